"""VEGAN: its scaled perceptual loss, its smoothness, its crops of random scale, alone and together."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toy_system import write_shards
from trainer_data import (  # noqa: F401
    _quick_convolutions,
    assert_trains_alone,
    batch_of,
    noise,
    rescaled,
    tiny,
    tiny_config,
)

from blurgen.options import build
from trainers import losses
from trainers.data import DataOptions, open_data
from trainers.method import Batch, Context
from trainers.models.deblurgan import DeblurGANConfig
from trainers.models.vegan import RESCALED, VEGAN, VEGANConfig
from trainers.vgg import CONV3_3, VGG19, open_features

NAME = "vegan"
CPU = torch.device("cpu")
SPL, SMOOTH = {"spl": True}, {"smooth": True}
RSC = {"rsc": True, "rsc_source": 48, "rsc_sigma": 10.0}
VARIANTS = {"none": {}, "spl": SPL, "smooth": SMOOTH, "rsc": RSC, "all": {**SPL, **SMOOTH, **RSC}}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_image(side, seed=0):
    """Return (3, side, side) in [-1, 1] without sharp edges."""
    drawn = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
    return nn.functional.interpolate(drawn, side, mode="bicubic")[0].clamp(-1, 1)


@pytest.fixture(scope="module")
def vgg():
    return open_features("random", 25)[0]


def with_variant(name, vgg, **changes):
    """Return a tiny system with a variant, on the true layers of VGG-19."""
    config = tiny_config(NAME, critic_updates=1, **VARIANTS[name], **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VEGAN(config, Context(CPU, vgg if config.spl else open_features("random", CONV3_3)[0]))


def larger_batch(config, seed=0):
    """Return a batch of the size that the feed gives."""
    sharp, blurred = (
        torch.stack([smooth_image(config.fed_crop, seed + i) for i in range(part, part + config.batch)])
        for part in (0, 10)
    )
    return Batch(sharp, blurred, noise(samples=range(config.batch)))


def test_scaled_content_is_the_mean_over_four_layers_before_their_activation(vgg):
    image, target = normal(2, 3, 32, 32), normal(2, 3, 32, 32, seed=1)
    weights = [p.detach() for p in vgg.parameters()]

    def layers(values):
        """Return conv1_2, conv2_2, conv3_4 and conv4_4: the 2nd, 4th, 8th and 12th convolution."""
        taken = []
        for number in range(12):
            values = nn.functional.conv2d(values, weights[2 * number], weights[2 * number + 1], padding=1)
            if number in (1, 3, 7, 11):
                taken.append(values.double().numpy())
            values = values.clamp_min(0)
            if number in (1, 3, 7):
                values = nn.functional.max_pool2d(values, 2)
        return taken

    expected = np.mean([((x - y) ** 2).mean() for x, y in zip(layers(image), layers(target), strict=True)])
    method = with_variant("spl", vgg)
    assert method.content(image, target).item() == pytest.approx(expected, rel=1e-4)
    assert method.content(image, image).item() == 0


def test_scaled_content_needs_more_layers_than_plain_content():
    assert VEGAN.last_feature(VEGANConfig()) == 14
    assert VEGAN.last_feature(VEGANConfig(spl=True)) == 25
    assert not VEGAN.needs_features(VEGANConfig(spl=True, content=0.0))


@pytest.mark.parametrize("edge", [0.0, 1.0, 10.0])
def test_smoothness_is_its_formula(edge):
    image, guide = normal(2, 3, 5, 7), normal(2, 3, 5, 7, seed=1)
    g, s = image.double().numpy(), guide.double().numpy()
    along_x = np.abs(g[..., 1:] - g[..., :-1]) * np.exp(-edge * np.abs(s[..., 1:] - s[..., :-1]))
    along_y = np.abs(g[..., 1:, :] - g[..., :-1, :]) * np.exp(-edge * np.abs(s[..., 1:, :] - s[..., :-1, :]))
    expected = along_x.mean() + along_y.mean()
    assert losses.smoothness(image, guide, edge).item() == pytest.approx(expected, rel=1e-5)


def test_smoothness_leaves_edges_of_the_sharp_image_in_peace():
    step = torch.arange(8).ge(4).float().mul(2).sub(1).expand(1, 3, 8, 8)
    assert losses.smoothness(step, step, 10.0) < 1e-6 < 0.1 < losses.smoothness(step, 0 * step, 10.0)
    assert losses.smoothness(0 * step, step).item() == 0
    # Edges that fall are edges, too.
    assert torch.equal(losses.smoothness(step, step), losses.smoothness(step, -step))


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_alone_and_all_together_train_the_generator(name, vgg):
    method = rescaled(with_variant(name, vgg))
    batch = batch_of(method.config)
    fake = method.restorer.restore_dropping(batch.blurred, batch.noise)
    terms, weights = method.generator_losses(batch, fake), method.config.weights
    assert (
        set(terms)
        == set(weights)
        == {"content", "adversarial"} | ({"smoothness"} if "smooth" in VARIANTS[name] else set())
    )
    generator = method.networks["generator"]
    parts = {"encoder": generator.encoder, "blocks": generator.blocks, "decoder": generator.decoder}
    whole = sum(weights[key] * loss for key, loss in terms.items())
    for key, loss in terms.items():
        assert_trains_alone(set(parts), parts | {"critic": method.networks["critic"]}, weights[key] * loss, whole)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_takes_a_step_on_what_it_is_fed(name, vgg):
    method = with_variant(name, vgg)
    batch, seen = larger_batch(method.config), []
    original = method.critic_losses
    method.critic_losses = lambda batch, *rest: seen.append(batch) or original(batch, *rest)
    scalars = method.step(batch)
    assert set(method.config.weights) | {"critic", "gradient_penalty"} <= set(scalars)
    assert all(value.isfinite() for value in scalars.values())
    for image in (seen[0].sharp, seen[0].blurred):
        assert image.shape == (2, 3, 32, 32)
        assert image.is_contiguous()
    assert torch.equal(seen[0].sharp, batch.sharp) == (name in ("none", "spl", "smooth"))


def test_smoothness_has_no_part_unless_it_is_asked_for():
    assert VEGANConfig(smoothness=3.0).weights.keys() == {"content", "adversarial"}
    assert VEGANConfig(smooth=True).weights["smoothness"] == 15
    assert VEGANConfig(smooth=True, smoothness=0.0).weights.keys() == {"content", "adversarial"}


def resized_by_pillow(image, side):
    """Return (3, H, W) at (3, side, side), by a library of its own."""
    planes = [Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC) for plane in image.numpy()]
    return np.stack([np.asarray(plane) for plane in planes])


@pytest.mark.parametrize(
    ("scale", "corner", "box"),
    [
        (0.5, (0.0, 0.99), (37, 0, 11)),
        (0.0, (0.5, 0.5), (32, 8, 8)),
        (9.0, (0.6, 0.3), (47, 1, 0)),
        (-9.0, (0.99, 0.0), (16, 32, 0)),
        (-0.81, (0.25, 0.75), (24, 6, 18)),
    ],
)
def test_a_scaled_crop_is_a_square_of_the_drawn_size_resized(scale, corner, box):
    image, (side, y, x) = smooth_image(48), box
    crop = RESCALED["crop"](image[None], tiny_config(NAME, **RSC), scale, corner)[0]
    expected = resized_by_pillow(image[:, y : y + side, x : x + side], 32)
    np.testing.assert_allclose(crop, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("scale", "corner", "box"),
    [(0.0, (0.5, 0.0), (48, 8, 0)), (0.7, (0.99, 0.5), (55, 23, 12)), (-9.0, (0.7, 0.7), (32, 0, 0))],
)
def test_a_jittered_crop_is_cut_out_of_the_resized_image(scale, corner, box):
    image, (side, y, x) = smooth_image(48), box
    crop = RESCALED["jitter"](image[None], tiny_config(NAME, **RSC, rsc_mode="jitter"), scale, corner)[0]
    expected = resized_by_pillow(image, side)[:, y : y + 32, x : x + 32]
    np.testing.assert_allclose(crop, expected, atol=2e-5)


@pytest.mark.parametrize("mode", RESCALED)
def test_both_images_of_a_pair_are_cut_alike_and_pairs_each_on_their_own(mode, vgg):
    method = with_variant("rsc", vgg, rsc_mode=mode)
    sharp = smooth_image(48).expand(2, 3, 48, 48)
    scaled = method.at_random_scales(Batch(sharp, sharp * -0.5, noise(3)))
    torch.testing.assert_close(scaled.blurred, scaled.sharp * -0.5, atol=1e-6, rtol=0)
    assert not torch.allclose(scaled.sharp[0], scaled.sharp[1], atol=0.05)
    assert scaled.noise == noise(3)
    alone = method.at_random_scales(Batch(sharp[1:], sharp[1:] * -0.5, noise(3, samples=(1,))))
    assert torch.equal(alone.sharp, scaled.sharp[1:])
    later = method.at_random_scales(Batch(sharp, sharp, noise(4)))
    assert not torch.allclose(later.sharp[0], scaled.sharp[0], atol=0.05)


def test_scales_are_drawn_from_the_normal_distribution_between_its_bounds(vgg, monkeypatch):
    method = with_variant("rsc", vgg, batch=400)
    sides = []
    monkeypatch.setattr(
        "trainers.models.vegan._resized", lambda images, side: sides.append(images.shape[2]) or images[..., :8, :8]
    )
    image = torch.zeros(400, 3, 48, 48)
    method.at_random_scales(Batch(image, image, noise(samples=range(400))))
    sides = np.array(sides)
    assert (sides.min(), sides.max()) == (16, 47)
    # N(32, 10²): a sixteenth lies at each bound, the rest between.
    assert np.mean(sides == 16) == pytest.approx(0.06, abs=0.03)
    assert np.mean(sides == 47) == pytest.approx(0.073, abs=0.035)
    assert np.median(sides) == pytest.approx(32, abs=1.5)
    assert np.subtract(*np.percentile(sides, [75, 25])) == pytest.approx(13.5, abs=2.5)


def test_overshoot_of_the_interpolation_is_clipped(vgg):
    checks = torch.from_numpy(np.indices((48, 48)).sum(0) // 6 % 2 * 2.0 - 1).float().expand(2, 3, 48, 48)
    scaled = with_variant("rsc", vgg).at_random_scales(Batch(checks, checks, noise()))
    assert scaled.sharp.abs().max() == 1


def test_the_feed_gives_images_as_large_as_scales_need(tmp_path):
    data = open_data(DataOptions(write_shards(tmp_path / "shards.h5", crop=48)), "paired")
    for changes, side in ((RSC, 48), ({**RSC, "rsc_source": 40}, 40), ({}, 32)):
        with data.feed(tiny_config(NAME, **changes), workers=0) as feed:
            batch = next(feed.steps())
        assert batch.sharp.shape == batch.blurred.shape == (2, 3, side, side)
    with pytest.raises(
        ValueError, match=r"side of 48 px, and the random scales of this system ask for 60: .*--crop 60"
    ):
        data.feed(tiny_config(NAME, **{**RSC, "rsc_source": 60}))


@pytest.mark.parametrize(
    ("preset", "gp", "variants"),
    [
        ("default", "sample", ()),
        ("official", "pixel", ()),
        ("paper", "sample", ()),
        ("spl", "sample", ("spl",)),
        ("smooth", "sample", ("smooth",)),
        ("rsc", "sample", ("rsc",)),
        ("all", "sample", ("spl", "smooth", "rsc")),
    ],
)
def test_presets_are_those_of_paper_and_public_code_and_each_variant(preset, gp, variants):
    config = build(VEGANConfig, VEGAN.presets[preset])
    assert config.gp == gp
    assert tuple(name for name in ("spl", "smooth", "rsc") if getattr(config, name)) == variants
    assert (config.lr, config.schedule, config.epochs, config.crop) == (1e-4, "constant", 15, 256)
    assert config.fed_crop == (360 if "rsc" in variants else 256)


# What a field is beside, what it is set to, and in which epoch.
LATE = {"decay_epochs": 10, "schedule": "linear"}
ACTING = {
    "schedule": ({"decay_epochs": 10}, "linear", 20),
    "constant_epochs": (LATE, 18, 20),
    "decay_epochs": (LATE, 30, 20),
    "spl": ({}, True, 0),
    "smooth": ({}, True, 0),
    "smoothness": (SMOOTH, 3.0, 0),
    "smooth_alpha": (SMOOTH, 10.0, 0),
    "rsc": ({"rsc_source": 48}, True, 0),
    "rsc_mode": (RSC, "jitter", 0),
    "rsc_sigma": (RSC, 3.0, 0),
    "rsc_source": (RSC, 40, 0),
    "blocks": ({}, 1, 0),
    "dropout": ({}, 0.1, 0),
    "critic_updates": ({}, 2, 0),
    "content": ({}, 10.0, 0),
    "adversarial": ({}, 3.0, 0),
    "gp": ({}, "pixel", 0),
    "gradient_penalty": ({}, 1.0, 0),
    "feature_input": ({}, "imagenet", 0),
    "lr": ({}, 1e-3, 0),
    "batch": ({}, 1, 0),
    "crop": ({}, 36, 0),
}


def weights_after_a_step(base, changes, epoch, monkeypatch):
    """Return all weights after one step on the images that the Config asks for."""
    config = tiny_config(NAME, **{"critic_updates": 1, **base, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = FewLayers(3, config.features_normalised)
        method = rescaled(VEGAN(config, Context(CPU, features)))
    monkeypatch.setattr("trainers.models.vegan.SCALED_LAYERS", (0, 2))
    method.set_epoch(epoch)
    method.step(larger_batch(config))
    return torch.cat([p.detach().flatten() for p in method.networks.parameters()])


class FewLayers(VGG19):
    """The first layers of VGG-19, of random weights."""

    def __init__(self, last, normalised):
        super().__init__(last, normalised)
        rng = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) / 20)


@pytest.mark.parametrize("field", ACTING)
def test_every_field_acts_on_what_is_learned(field, monkeypatch):
    base, value, epoch = ACTING[field]
    before, after = (weights_after_a_step(base, changes, epoch, monkeypatch) for changes in ({}, {field: value}))
    assert before.shape != after.shape or (before - after).abs().max() > 1e-5


def test_no_field_of_its_own_is_left_out():
    own = {name for config in (VEGANConfig, DeblurGANConfig) for name in config.__annotations__}
    assert own <= set(ACTING)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({**RSC, "rsc_source": 32}, "rsc_source must be larger than crop, 32 px, .* got 32"),
        ({"rsc_sigma": -1.0}, "rsc_sigma must be at least 0 and finite, got -1"),
        ({"smooth_alpha": float("nan")}, "smooth_alpha must be a number, got nan"),
        ({"rsc_mode": "zoom"}, "rsc_mode must be one of crop, jitter"),
    ],
)
def test_values_that_nothing_trains_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(NAME, **changes)
