"""Joint deblurring and super-resolution: sizes, what is compared with what, gray, data, runs."""

import json

import cv2
import numpy as np
import pytest
import torch
from restorers import photograph
from shard_data import grouped
from torch import nn
from toy_system import finish, start, start_together, train_here
from trainer_data import (  # noqa: F401
    _quick_convolutions,
    assert_trains_alone,
    batch_of,
    disentangled_parts,
    rescaled,
    tiny,
    tiny_config,
)

from blurgen.options import build
from blurgen.shards import Layout
from trainers.infer import deblur_image
from trainers.method import Context
from trainers.models.disentangled_sr import DisentangledSR, DisentangledSRConfig
from trainers.nets.reduction import Reduction
from trainers.padding import PaddedImage, RestoredImage
from trainers.tiles import Tiling, receptive_radius, run_in_tiles
from trainers.weights import load_weights

NAME = "disentangled-sr"
META = torch.device("meta")


def count(module):
    return sum(p.numel() for p in module.parameters())


def full_size(**changes):
    with META:
        return DisentangledSR(build(DisentangledSRConfig, changes), Context(META))


@pytest.mark.parametrize("scale", [2, 4])
def test_parameters_are_those_of_the_layers_stated(scale):
    method = full_size(scale=scale)
    net = method.networks
    stages = scale // 2
    stem = net["content_blurred"].stem
    assert [count(stem[3 * stage : 3 * stage + 3]) for stage in range(stages)] == [1_920, 37_056][:stages]
    assert count(stem[3 * stages + 1]) == 200_768
    # The first convolution of the stem has 9,472 where it takes colours, and four blocks are shared.
    own = 3_918_976 - 3 * 1_180_160
    enlarging = 1_920 + 37_056 * (stages - 1) + 200_768 - 9_472
    assert count(net["content_sharp"].stem) == own
    assert count(stem) == own + enlarging
    assert count(net["content_blurred"].shared) == 4 * 1_180_160
    assert net["content_blurred"].shared is net["content_sharp"].shared
    assert count(net["blur_encoder"]) == 1_344_080
    assert count(net["generator_sharp"].branch) == count(net["generator_blurred"].branch) == 4_192_275
    assert count(method.restorer) == 11_815_651 + enlarging
    assert count(net["critic_sharp"]) == 3 * 2_757_057
    assert count(net["critic_blurred"]) == count(net["critic_blurred_random"]) == (4 - stages) * 2_757_057


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_shared_blocks_are_the_last_of_four(shared):
    net = full_size(shared_blocks=shared).networks
    own = 3_918_976 - 3 * 1_180_160
    assert count(net["content_sharp"].stem) == own + (4 - shared) * 1_180_160
    assert count(net["content_sharp"].shared) == shared * 1_180_160


@pytest.mark.parametrize("reblurred", ["low", "high"])
@pytest.mark.parametrize("scale", [2, 4])
def test_blurred_images_are_made_in_low_resolution(scale, reblurred):
    method = tiny(NAME, scale=scale, crop=64, reblurred=reblurred)
    batch = batch_of(method.config)
    assert batch.blurred.shape[2] == 64 // scale
    branch, sides = method.networks["generator_blurred"].branch, []
    branch.image[0].register_forward_hook(lambda _, __, image: sides.append(image.shape[2]))
    made = method.translate(batch)
    assert made.content_blurred.shape == made.content_sharp.shape == (2, 16, 16, 16)
    assert made.sharp_of_blurred.shape == made.sharp_random.shape == batch.sharp.shape
    assert made.blurred_of_sharp.shape == made.blurred_random.shape == batch.blurred.shape
    assert sides == [64 if reblurred == "high" else 64 // scale] * 2
    assert made.blurred_of_sharp.abs().max() <= 1


@pytest.mark.parametrize("factor", [2, 4])
def test_reduction_averages_light(factor):
    levels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    levels[:4, :4], levels[4:, :4] = 0, 255
    values = levels / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    means = light.reshape(8 // factor, factor, 16 // factor, factor, 3).mean((1, 3))
    expected = np.where(means <= 0.0031308, 12.92 * means, 1.055 * means ** (1 / 2.4) - 0.055) * 2 - 1
    images = torch.tensor(values * 2 - 1, dtype=torch.float32).permute(2, 0, 1)[None].requires_grad_()
    reduced = Reduction(factor)(images)
    np.testing.assert_allclose(reduced[0].permute(1, 2, 0).detach(), expected, atol=2e-6)
    reduced.sum().backward()
    # Black and white are where a power has no slope, or a branch that is not taken would have none.
    assert images.grad.isfinite().all()
    assert (images.grad[images > -1] > 0).all()


TRAINS_CONTENT = {"stem of blurred", "branch of sharp", "shared encoder blocks", "shared generator block"}
TRAINS_REBLURRED = {"stem of sharp", "branch of blurred", "shared encoder blocks", "shared generator block"}
BLUR = {"blur encoder", "head of the mean", "head of the variance"}
TRAINS = {
    "adversarial": TRAINS_CONTENT | TRAINS_REBLURRED | BLUR,
    "random": TRAINS_CONTENT | TRAINS_REBLURRED,
    "kl": BLUR,
    "cycle": TRAINS_CONTENT | TRAINS_REBLURRED | BLUR,
    "perceptual": TRAINS_CONTENT | BLUR,
    "perceptual_random": TRAINS_CONTENT,
    "self_reconstruction": TRAINS_CONTENT | TRAINS_REBLURRED | BLUR,
    "identity": {"stem of sharp", "branch of sharp", "shared encoder blocks", "shared generator block"} | BLUR,
    "latent_regression": TRAINS_REBLURRED,
    "color": TRAINS_CONTENT | BLUR,
}


def parts_of(net):
    """Return the modules that hold every parameter once, by name."""
    critics = {name: network for name, network in net.items() if name.startswith("critic")}
    return disentangled_parts(net) | critics


OTHERWISE = {"gray": True, "scale": 4, "reblurred": "high", "crop": 64}


@pytest.mark.parametrize("settings", [{}, pytest.param(OTHERWISE, marks=pytest.mark.slow)], ids=str)
def test_each_loss_trains_what_it_should_and_nothing_else(settings):
    method = rescaled(tiny(NAME, perceptual=1.0, identity=1.0, **settings))
    inner = method.restorer.inner
    batch = batch_of(method.config, step=1)
    batch = type(batch)(inner(batch.sharp), inner(batch.blurred), batch.noise)
    parts = parts_of(method.networks)
    assert sum(map(count, parts.values())) == count(method.networks)
    made = method.translate(batch)
    losses, critics = method.generator_losses(batch, made), method.critic_losses(batch, made)
    weights = method.config.weights
    assert set(losses) == set(TRAINS) == set(weights)
    whole = sum(weights[name] * loss for name, loss in losses.items())
    for name, trained in TRAINS.items():
        assert_trains_alone(trained, parts, weights[name] * losses[name], whole)
    assert set(critics) == {name for name in parts if name.startswith("critic")}
    for name, loss in critics.items():
        assert_trains_alone({name}, parts, loss, sum(critics.values()))


@pytest.mark.parametrize("gray", [False, True])
def test_deblurred_images_are_compared_with_blurred_ones_at_their_size(gray):
    method = tiny(NAME, perceptual=1.0, gray=gray, crop=64)
    inner = method.restorer.inner
    batch = batch_of(method.config, step=1)
    batch = type(batch)(inner(batch.sharp), inner(batch.blurred), batch.noise)
    made = method.translate(batch)
    losses = method.generator_losses(batch, made)
    reduced, blurred = Reduction(2)(made.sharp_of_blurred), batch.blurred
    # Squares of 32 px at full size.
    means = [images.unflatten(3, (2, 16)).unflatten(2, (2, 16)).mean((3, 5)) for images in (reduced, blurred)]
    color = (means[0] - means[1]).abs().mean()
    assert losses["color"].item() == pytest.approx(color.item(), abs=1e-6)
    shown = [images.repeat(1, 3 // images.shape[1], 1, 1) for images in (reduced, blurred)]
    features = [method.context.features(images) for images in shown]
    assert losses["perceptual"].item() == pytest.approx((features[0] - features[1]).pow(2).mean().item(), rel=1e-5)
    correlation = method.step(batch_of(method.config, step=1))["color_correlation"]
    pooled = [nn.functional.avg_pool2d(images, 8).flatten().detach().numpy() for images in (reduced, blurred)]
    assert correlation.item() == pytest.approx(np.corrcoef(*pooled)[0, 1], abs=1e-3)


def test_gray_is_one_channel_inside_and_three_outside():
    method = rescaled(tiny(NAME, gray=True))
    seen = {}
    for name, network in method.networks.items():
        network.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].shape[1]}))
    method.step(batch_of(method.config, step=1))
    images = [name for name in method.networks if not name.startswith("generator")]
    assert {seen[name] for name in images} == {1}
    colors = photograph(33, 47)
    restored = deblur_image(method.restorer, colors, device="cpu", tiles="whole")
    assert restored.shape == (66, 94, 3)
    assert restored.std() > 5
    assert (restored == restored[..., :1]).all()
    expected = cv2.cvtColor(colors, cv2.COLOR_RGB2GRAY)
    values = method.restorer.inner(torch.from_numpy(colors).permute(2, 0, 1)[None].float())
    assert np.abs(values[0, 0].numpy() - expected).max() <= 0.51


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": 4, "crop": 64, "gray": True},
        *(pytest.param({"scale": s, "crop": 64}, marks=pytest.mark.slow) for s in (2, 4)),
    ],
    ids=str,
)
def test_images_of_any_size_are_enlarged_exactly_in_bands_too(changes):
    restorer = rescaled(tiny(NAME, **changes)).restorer
    scale = restorer.scale
    for height, width in ((1, 1), (67, 70)):
        colors = photograph(height, width)
        whole = deblur_image(restorer, colors, device="cpu", tiles="whole")
        assert whole.shape == (scale * height, scale * width, 3)
        bands = deblur_image(restorer, colors, device="cpu", tiles="exact", memory_gib=0.001)
        assert np.abs(bands.astype(int) - whole).max() <= 1
        # Sides are at least 64 px inside, and whole codes: 4 px of the large image.
        sides = [-(-max(side, 64) * scale // 4) * 4 // scale for side in (height, width)]
        padded = np.pad(colors, [*((0, side - own) for side, own in zip(sides, (height, width), strict=True)), (0, 0)],
                        "reflect" if height > 1 else "edge")  # fmt: skip
        larger = deblur_image(restorer, padded, device="cpu", tiles="whole")
        np.testing.assert_array_equal(larger[: scale * height, : scale * width], whole)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scale": 3}, "scale must be 2 or 4, got 3"),
        ({"shared_blocks": 5}, "shared_blocks must be 1 to 4, got 5"),
        ({"shared_blocks": 0}, "shared_blocks must be 1 to 4, got 0"),
        ({"reblurred": "lower"}, "reblurred must be one of low, high, got 'lower'"),
        ({"blurred_scales": 0}, "blurred_scales must be at least 1, got 0"),
        ({"scale": 4, "crop": 32}, "crop must be at least 64 px at scale 4 for the critics of blurred images, got 32"),
        (
            {"blurred_scales": 2},
            "crop must be at least 64 px at scale 2 .* got 32: give a larger crop or fewer blur",
        ),
    ],
)
def test_values_that_nothing_trains_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(NAME, **changes)


def test_presets_and_arrays_are_those_stated():
    plain = build(DisentangledSRConfig, {})
    assert DisentangledSR.arrays(plain) == ("sharp", "blurred_x2")
    assert DisentangledSR.arrays(build(DisentangledSRConfig, {"scale": 4})) == ("sharp", "blurred_x4")
    assert not DisentangledSR.needs_features(plain)
    crossing = build(DisentangledSRConfig, DisentangledSR.presets["cross-domain"])
    assert (crossing.weights["perceptual"], crossing.weights["perceptual_random"]) == (1.0, 1.0)
    assert tiny_config(NAME, crop=64, scales=3, blurred_scales=1).critic_scales["critic_blurred"] == 1
    assert tiny_config(NAME, crop=64, scales=3).critic_scales["critic_blurred"] == 2


SMALL = {"width": 2, "scales": 1, "crop": 32, "batch": 2, "save_every": 100, "validate_every": 2, "device": "cpu"}


def pages(folder, prefix="", lowres=(2,), crop=32):
    groups = [f"{prefix}{number}" for number in range(20)]
    return grouped(groups, Layout(crop, 3, lowres), prefix=prefix).write(folder / f"{prefix}pages.h5")


def last_state(run):
    return torch.load(max((run / "states").glob("*.pt")), weights_only=True)["method"]


def test_runs_read_low_resolution_images_of_one_file_or_two(tmp_path):
    shards, other = pages(tmp_path), pages(tmp_path, "b", lowres=(2, 4))
    train_here(NAME, data=shards, out=tmp_path / "run", steps=2, **SMALL)
    line = next(
        line for line in map(json.loads, (tmp_path / "run/metrics.jsonl").open()) if "validation_psnr_db" in line
    )
    assert np.isfinite([line["validation_psnr_db"], line["validation_input_psnr_db"]]).all()
    sheet = cv2.imread(str(next((tmp_path / "run").rglob("00000002.png"))))
    assert sheet.shape[0] > 256 < sheet.shape[1]
    train_here(NAME, sharp=shards, blurred=other, out=tmp_path / "two", steps=1, scale=2, **SMALL)
    assert load_weights(tmp_path / "two").restorer.scale == 2
    with pytest.raises(
        ValueError, match=r"holds no blurred_x4 images, only .*make shards with `blurgen make --lowres 4`"
    ):
        train_here(NAME, data=shards, out=tmp_path / "four", steps=1, **SMALL | {"scale": 4, "crop": 64})


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, OTHERWISE], ids=str)
def test_n_steps_are_k_and_n_minus_k_steps_bit_for_bit(tmp_path, changes):
    values = SMALL | {"constant_epochs": 1, "decay_epochs": 2} | changes
    values["data"] = pages(tmp_path, lowres=(2, 4), crop=values["crop"])
    whole = start(train_here, NAME, out=tmp_path / "straight", steps=9, **values)
    finish(start(train_here, NAME, out=tmp_path / "parted", steps=3, workers=0, **values))
    finish(whole, start(train_here, NAME, out=tmp_path / "parted", steps=9, **values))
    one, two = (last_state(tmp_path / run) for run in ("straight", "parted"))
    for kind in ("networks", "averaged"):
        assert all(torch.equal(tensor, two[kind][key]) for key, tensor in one[kind].items())
    assert str(one["optimizers"]) == str(two["optimizers"])


@pytest.mark.slow
def test_two_processes_end_close_to_one_with_the_joint_batch(tmp_path):
    values = SMALL | {"batch": 4, "data": pages(tmp_path), "steps": 2}
    alone = start(train_here, NAME, out=tmp_path / "one", **values)
    finish(alone, *start_together(2, 29_517, NAME, out=tmp_path / "two", **values))
    one, two = (last_state(tmp_path / run) for run in ("one", "two"))
    for key, tensor in one["networks"].items():
        # A bias before a norm has no gradient but round-off, by which Adam divides.
        if key.endswith("weight"):
            assert (tensor - two["networks"][key]).norm() < 1e-4 * tensor.norm(), key


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4])
def test_fast_tiles_are_near_the_whole_image(scale):
    restorer = rescaled(tiny(NAME, scale=scale, crop=64)).restorer
    colors = np.tile(photograph(40, 40), (6, 5, 1))
    image = PaddedImage(colors, restorer.multiple, torch.device("cpu"))
    tiled, whole = RestoredImage(colors, scale), RestoredImage(colors, scale)
    with torch.inference_mode():
        z = restorer.encode(image.whole())[0]
        run_in_tiles(restorer, image, z, Tiling(120, 2 * receptive_radius(restorer), colors.size // 12), tiled.fill)
        whole.fill(0, restorer(image.whole()))
    error = np.abs(tiled.pixels.astype(int) - whole.pixels)
    assert tiled.pixels.shape == (240 * scale, 200 * scale, 3)
    assert error.mean() < 0.2 * whole.pixels.std()
