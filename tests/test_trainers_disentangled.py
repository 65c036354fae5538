"""Disentangled deblurring: its size, its presets, which network runs when, its two alternating updates."""

import pytest
import torch
from torch import nn
from trainer_data import (  # noqa: F401
    FEATURES,
    _quick_convolutions,
    batch_of,
    changed,
    counted_calls,
    purposes_of,
    tiny,
    tiny_config,
    values,
)

from blurgen.options import build
from trainers.losses import kl_to_standard_normal
from trainers.method import Context, learning_rate_factor
from trainers.models.disentangled import Disentangled, DisentangledConfig

NAME = "disentangled"
NO_FEATURES = {"perceptual": 0.0}
CRITICS = ("critic_sharp", "critic_blurred", "critic_sharp_random", "critic_blurred_random")


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def full_size():
    """Return the systems with four critics and with two, at their full size, on the device without memory."""
    with torch.device("meta"):
        return {
            preset: Disentangled(build(DisentangledConfig, Disentangled.presets[preset]), Context(torch.device("meta")))
            for preset in ("official", "paper")
        }


def test_parameters_are_those_of_the_published_networks(full_size):
    method = full_size["official"]
    net = method.networks
    assert count(nn.ModuleList([net["content_sharp"], net["content_blurred"]])) == 9_018_112
    assert count(net["content_sharp"].stem) == count(net["content_blurred"].stem) == 3_918_976
    assert net["content_sharp"].shared is net["content_blurred"].shared
    assert count(net["blur_encoder"]) == 1_344_080
    assert count(nn.ModuleList([net["generator_sharp"], net["generator_blurred"]])) == 9_564_710
    assert count(net["generator_sharp"].branch) == count(net["generator_blurred"].branch) == 4_192_275
    assert net["generator_sharp"].shared is net["generator_blurred"].shared
    assert {count(net[name]) for name in CRITICS} == {8_271_171}
    assert {count(critic) for critic in net["critic_sharp"].scales} == {2_757_057}
    assert count(method.restorer) == count(method.averaged) == 11_815_651
    assert count(net) == 53_011_586
    assert count(full_size["paper"].networks) == 36_469_244
    assert set(full_size["paper"].sides()["critics"]) == set(CRITICS[:2])


def test_codes_and_logits_have_the_sizes_they_should(full_size):
    image = torch.empty(2, 3, 128, 128, device="meta")
    net = full_size["official"].networks
    content = net["content_blurred"](image)
    assert content.shape == (2, 256, 32, 32)
    assert [code.shape for code in net["blur_encoder"](image)] == [(2, 8)] * 2
    assert net["generator_sharp"](content, torch.empty(2, 8, device="meta")).shape == image.shape
    assert [logits.shape for logits in net["critic_sharp"](image)] == [(2, 1, side, side) for side in (8, 4, 2)]


ENCODERS, GENERATORS = ("content_sharp", "content_blurred", "blur_encoder"), ("generator_sharp", "generator_blurred")


def table(encoders, blur, generators, critics, features):
    """Return network -> calls; those of one kind are called equally often."""
    rows = {
        **dict.fromkeys(ENCODERS[:2], encoders),
        ENCODERS[2]: blur,
        **dict.fromkeys(GENERATORS, generators),
        **critics,
        FEATURES: features,
    }
    return {name: calls for name, calls in rows.items() if calls}


FOUR, TWO = CRITICS, CRITICS[:2]
PAPER = Disentangled.presets["paper"] | {"batch": 2}
# Settings -> calls in a step that updates critics alone, and in one that updates encoders and generators, too. Each
# domain's images are encoded once and once more in the cycle; a generator makes its domain of the other, of itself,
# of a random code, and in the cycle; a critic sees a real and a fake image, and the fake again once it is updated.
CALLS = {
    "default": ({}, table(1, 1, 2, dict.fromkeys(FOUR, 2), 0), table(2, 3, 4, dict.fromkeys(FOUR, 3), 3)),
    "paper": (PAPER, table(1, 1, 1, dict.fromkeys(TWO, 2), 0), table(2, 2, 2, dict.fromkeys(TWO, 3), 2)),
    "no perceptual loss": (
        NO_FEATURES, table(1, 1, 2, dict.fromkeys(FOUR, 2), 0), table(2, 3, 4, dict.fromkeys(FOUR, 3), 0)
    ),
    "text": (
        {"domain": "text"}, table(1, 1, 2, dict.fromkeys(FOUR, 2), 0), table(2, 3, 4, dict.fromkeys(FOUR, 3), 0)
    ),
    "paper, text": (
        PAPER | {"domain": "text"}, table(1, 1, 1, dict.fromkeys(TWO, 2), 0), table(2, 2, 2, dict.fromkeys(TWO, 3), 0)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "critics_alone", "both"), CALLS.values(), ids=CALLS)
def test_no_network_runs_that_its_losses_do_not_need(changes, critics_alone, both):
    method = tiny(NAME, **changes)
    for step, expected in enumerate((critics_alone, both)):
        with counted_calls(method) as calls:
            method.step(batch_of(method.config, step))
        assert calls == expected


def test_features_of_the_real_image_are_taken_once_and_without_a_graph():
    method, seen = tiny(NAME), []
    batch = batch_of(method.config, step=1)
    method.context.features.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    method.step(batch)
    real = [output for image, output in seen if torch.equal(image, batch.blurred)]
    assert len(real) == 1
    assert not real[0].requires_grad
    assert sum(output.requires_grad for _, output in seen) == 2


def test_each_critic_judges_its_own_kind_of_images():
    method, seen = tiny(NAME), {name: [] for name in CRITICS}
    batch = batch_of(method.config, step=1)
    made = method.translate(batch)
    for name, images in seen.items():
        method.networks[name].register_forward_hook(lambda _, inputs, __, images=images: images.append(inputs[0]))
    method.step(batch)
    pairs = {
        "critic_sharp": (batch.sharp, made.sharp_of_blurred),
        "critic_blurred": (batch.blurred, made.blurred_of_sharp),
        "critic_sharp_random": (batch.sharp, made.sharp_random),
        "critic_blurred_random": (batch.blurred, made.blurred_random),
    }
    for name, (real, fake) in pairs.items():
        assert all(map(torch.equal, seen[name], (real, fake, fake))), name
        assert [image.requires_grad for image in seen[name]] == [False, False, True], name


def test_images_of_a_step_for_the_critics_alone_carry_no_graph():
    method, graphs = tiny(NAME), []
    for name in GENERATORS:
        method.networks[name].register_forward_hook(lambda _, __, image: graphs.append(image.requires_grad))
    method.step(batch_of(method.config, step=0))
    assert graphs == [False] * 4


def test_each_side_goes_backward_once(monkeypatch):
    method, passes = tiny(NAME), []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss, *_: (passes.append(1), backward(loss)))
    for step, expected in enumerate((1, 3)):
        method.step(batch_of(method.config, step))
        assert len(passes) == expected


@pytest.mark.parametrize("every", [1, 2, 3])
def test_critics_learn_every_step_and_generators_every_few(every):
    method = tiny(NAME, generator_every=every, **NO_FEATURES)
    for step in range(4):
        before = values(method.networks)
        scalars = method.step(batch_of(method.config, step))
        due = (step + 1) % every == 0
        assert changed(method, before) == (set(method.networks) if due else set(CRITICS))
        assert ("cycle" in scalars) == ("color_correlation" in scalars) == due


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_generators_face_the_critics_just_updated(precision):
    method, last = tiny(NAME, lr=0.01, **NO_FEATURES), {}
    for name in CRITICS:
        method.networks[name].register_forward_hook(
            lambda _, inputs, out, name=name: last.update({name: (inputs, out)})
        )
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        method.step(batch_of(method.config, step=1))
    faced = dict(last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for name, ((image,), logits) in faced.items():
            again = method.networks[name](image.detach())
            assert all(torch.equal(one, other) for one, other in zip(logits, again, strict=True)), name


def test_the_sum_of_the_divergence_is_over_the_batch():
    mean, log_variance = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    averaged, summed = (tiny_config(NAME, batch=4, kl_sum=kl_sum).weights["kl"] for kl_sum in (False, True))
    each = sum(kl_to_standard_normal(m[None], v[None]) for m, v in zip(mean, log_variance, strict=True))
    assert summed * kl_to_standard_normal(mean, log_variance) == pytest.approx(0.01 * each.item())
    assert averaged == 0.01


CODE = {
    "adversarial": 1.0, "kl": 0.01, "cycle": 10.0, "perceptual": 0.1, "self_reconstruction": 10.0, "random": 1.0,
    "latent_regression": 10.0, "perceptual_random": 0.1,
}  # fmt: skip
PRESETS = {
    "default": (8, 1e-4, "linear", CODE | {"color": 1.0}),
    "official": (1, 1e-4, "linear", CODE),
    "paper": (16, 0.0, "exponential", {"adversarial": 1.0, "kl": 0.01, "cycle": 10.0, "perceptual": 0.1}),
}


@pytest.mark.parametrize(("preset", "expected"), PRESETS.items(), ids=PRESETS)
def test_presets_are_those_of_paper_and_public_code(preset, expected):
    config = build(DisentangledConfig, Disentangled.presets[preset])
    assert (config.batch, config.weight_decay, config.schedule, config.weights) == expected
    assert (config.lr, config.beta1, config.beta2, config.crop, config.latent) == (2e-4, 0.5, 0.999, 128, 8)
    assert (config.width, config.scales, config.generator_every, config.code_noise) == (64, 3, 2, 1.0)
    assert (config.constant_epochs, config.decay_epochs) == (40, 40)
    assert learning_rate_factor(config, 40) == 1
    assert learning_rate_factor(config, 60) == pytest.approx(0.9**20 if preset == "paper" else 1 - 20 / 41)


@pytest.mark.parametrize("preset", PRESETS)
def test_text_needs_no_features_and_every_weight_can_still_be_given(preset):
    values = Disentangled.presets[preset]
    assert Disentangled.needs_features(build(DisentangledConfig, values))
    text = build(DisentangledConfig, values | {"domain": "text"})
    assert not Disentangled.needs_features(text)
    assert not text.weights.keys() & {"perceptual", "perceptual_random"}
    assert build(DisentangledConfig, values | {"domain": "text", "perceptual": 0.5}).weights["perceptual"] == 0.5
    assert not Disentangled.needs_features(build(DisentangledConfig, values | NO_FEATURES))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"domain": "faces"}, "domain must be one of photo, text, got 'faces'"),
        (
            {"crop": 48, "scales": 3},
            "crop must be at least 64 px for 3 scales of the critics, got 48",
        ),
        ({"crop": 66}, "crop must be a multiple of 4"),
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"scales": 0}, "scales must be at least 1, got 0"),
        ({"generator_every": 0}, "generator_every must be at least 1, got 0"),
        ({"code_noise": float("nan")}, "code_noise must be a number, got nan"),
        ({"perceptual": float("nan")}, "perceptual must be a number or none, got nan"),
        ({"identity": -1.0}, "identity must be at least 0 and finite, got -1"),
    ],
)
def test_values_that_nothing_trains_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(NAME, **changes)


@pytest.mark.parametrize(("scales", "crop"), [(1, 16), (2, 32), (3, 64)])
def test_the_smallest_crop_allowed_can_be_trained_on(scales, crop):
    method = tiny(NAME, scales=scales, crop=crop, **NO_FEATURES)
    scalars = method.step(batch_of(method.config, step=1))
    assert all(value.isfinite() for value in scalars.values())
    with pytest.raises(ValueError, match="crop must be"):
        tiny_config(NAME, scales=scales, crop=crop - 4)


def test_codes_are_noisy_in_training_and_only_there():
    method = tiny(NAME)
    batch = batch_of(method.config)
    net = method.networks
    noisy, quiet = method.translate(batch), net["content_blurred"](batch.blurred)
    added = noisy.content_blurred - quiet
    assert added.std().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(method.translate(batch).content_blurred, noisy.content_blurred)
    assert not torch.equal(method.translate(batch_of(method.config, 1)).content_blurred, noisy.content_blurred)
    restored = net["generator_sharp"](quiet, net["blur_encoder"](batch.blurred)[0])
    torch.testing.assert_close(method.restorer(batch.blurred), restored)
    assert torch.equal(tiny(NAME, code_noise=0.0).translate(batch).content_blurred, quiet)


def test_blur_codes_are_drawn_with_the_deviation_that_is_encoded():
    method = tiny(NAME, batch=48, crop=16, scales=1)
    method.networks["blur_encoder"].log_variance.bias.data += torch.tensor([-3.0, 3.0]).repeat(4)
    made = method.translate(batch_of(method.config))
    deviation = ((made.z - made.mean) ** 2).mean(0).sqrt()
    expected = made.log_variance.exp().mean(0).sqrt()
    torch.testing.assert_close(deviation, expected, rtol=0.35, atol=0)
    assert made.z_random.std().item() == pytest.approx(1, abs=0.15)


def test_all_noise_of_a_step_is_independent(monkeypatch):
    method, purposes = tiny(NAME, **NO_FEATURES), purposes_of("normal", monkeypatch)
    method.step(batch_of(method.config, 1))
    assert len(purposes) == len(set(purposes)) == 7
