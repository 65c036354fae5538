"""What holds for every system: its restorer, its presets, its steps, its state."""

import dataclasses

import numpy as np
import pytest
import torch
from trainer_data import SYSTEMS, _quick_convolutions, batch_of, changed, noise, tiny, tiny_config, values  # noqa: F401

from blurgen.options import as_values, build
from trainers.method import Batch, Context, Method, Restorer
from trainers.models import method_class

systems = pytest.mark.parametrize("name", SYSTEMS)


@pytest.fixture(scope="module")
def tiny_methods():
    """Return a system of each name that no test may change."""
    return {name: tiny(name) for name in SYSTEMS}


def image_of(height, width, count=2, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("name", ["disentangle", "gan", ""])
def test_unknown_system_is_refused_with_a_known_one(name):
    with pytest.raises(
        ValueError, match=r"there is no system .*(did you mean '(disentangled|\w*gan)'\?|known are as-cyclegan, )"
    ):
        method_class(name)


@systems
def test_every_system_says_what_it_is(name):
    system = method_class(name)
    assert issubclass(system, Method)
    assert issubclass(system.Restorer, Restorer)
    assert system.name == name
    assert system.paper[-4:].isdigit()
    assert system.pairing in ("paired", "unpaired")


@systems
def test_every_preset_is_a_config_and_paper_and_code_are_there(name):
    system = method_class(name)
    assert {"default", "official", "paper"} <= set(system.presets)
    assert system.presets["default"] == {}
    for preset in system.presets.values():
        config = build(system.Config, preset)
        assert build(system.Config, as_values(config)) == config


@systems
@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("width", 0, "width must be at least 1, got 0"),
        ("batch", 0, "batch must be at least 1, got 0"),
        ("crop", 0, "crop must be"),
        ("crop", 130, "crop must be a multiple of 4"),
        ("crop", 12, "crop must be .*at least .* px"),
        ("lr", float("nan"), "lr must be a number, got nan"),
        ("lr", float("inf"), "lr must be above 0"),
        ("decay_rate", 1.5, "decay_rate must be in"),
        ("beta1", 1.0, r"beta1 must be in \[0, 1\), got 1"),
        ("ema", -0.1, r"ema must be in \[0, 1\), got -0.1"),
        ("weight_decay", float("nan"), "weight_decay must be a number, got nan"),
        ("clip_norm", -1.0, "clip_norm must be at least 0 and finite, got -1"),
        ("constant_epochs", -1, "constant_epochs and decay_epochs must be at least 0"),
        ("schedule", "cosine", "schedule must be one of linear, exponential, constant, got 'cosine'"),
        ("weigth_decay", 0.1, "did you mean 'weight_decay'"),
    ],
)
def test_values_that_nothing_trains_with_are_refused(name, field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(name, **{field: value})


@systems
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_weights_of_losses_must_be_finite(name, value):
    for weight in tiny_config(name).weights:
        with pytest.raises(ValueError, match=f"{weight} must be at least 0 and finite, got {value}"):
            dataclasses.replace(tiny_config(name), **{weight: value})


@systems
def test_a_system_without_any_loss_is_refused(name):
    nothing = dict.fromkeys(tiny_config(name).weights, 0.0)
    with pytest.raises(ValueError, match="at least one loss needs a weight above 0"):
        tiny_config(name, **nothing)


@systems
def test_restorer_makes_images_of_the_size_and_range_it_should(name, tiny_methods):
    restorer = tiny_methods[name].averaged
    for height, width in ((32, 32), (36, 64), (64, 44)):
        blurred = image_of(height, width)
        restored = restorer(blurred)
        assert restored.shape == (2, 3, restorer.scale * height, restorer.scale * width)
        assert restored.dtype == torch.float32
        assert restored.abs().max() <= 1
        assert restored.std() > 0


@systems
def test_restorer_repeats_itself_and_treats_images_alone(name, tiny_methods):
    restorer, blurred = tiny_methods[name].averaged, image_of(32, 40)
    assert not restorer.training
    restored = restorer(blurred)
    assert torch.equal(restorer(blurred), restored)
    alone = torch.cat([restorer(image[None]) for image in blurred])
    torch.testing.assert_close(alone, restored, rtol=0, atol=1e-5)


@systems
def test_samples_of_the_code_are_draws_from_its_distribution(name, tiny_methods):
    restorer, blurred = tiny_methods[name].averaged, image_of(32, 32)
    if not restorer.latent:
        with pytest.raises(TypeError, match="has no code of the blur"):
            restorer.encode(blurred)
        return
    mean, log_variance = restorer.encode(blurred)
    assert mean.shape == log_variance.shape == (2, restorer.latent)
    epsilon = noise().normal("epsilon", restorer.latent)
    drawn = mean + epsilon * log_variance.exp().sqrt()
    assert torch.equal(restorer(blurred), restorer.restore(blurred, mean))
    torch.testing.assert_close(restorer(blurred, epsilon), restorer.restore(blurred, drawn))
    assert not torch.equal(restorer(blurred, epsilon), restorer(blurred))


@systems
def test_restorer_is_part_of_what_is_trained(name, tiny_methods):
    method = tiny_methods[name]
    trained = {id(p) for p in method.networks.parameters()}
    assert {id(p) for p in method.restorer.parameters()} <= trained
    assert not {id(p) for p in method.averaged.parameters()} & trained
    assert not any(p.requires_grad for p in method.averaged.parameters())


@systems
def test_every_parameter_is_trained_by_one_side(name, tiny_methods):
    method = tiny_methods[name]
    trained = [id(p) for side in method.sides() for p in method.parameters(side)]
    assert len(trained) == len(set(trained))
    assert set(trained) == {id(p) for p in method.networks.parameters()}
    for side, optimizer in method.optimizers.items():
        assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(
            map(id, method.parameters(side))
        )


@systems
def test_optimisers_are_those_of_the_config(name):
    changes = {"lr": 3e-4, "beta1": 0.4, "beta2": 0.9, "weight_decay": 0.01, "constant_epochs": 2, "decay_epochs": 4}
    method = tiny(name, schedule="linear", **changes)
    for epoch, factor in ((0, 1), (2, 1), (3, 0.8)):
        method.set_epoch(epoch)
        for optimizer in method.optimizers.values():
            (group,) = optimizer.param_groups
            assert group["lr"] == pytest.approx(3e-4 * factor)
            assert (group["betas"], group["weight_decay"]) == ((0.4, 0.9), 0.01)


@systems
def test_same_seed_same_system(name, tiny_methods):
    same, other = tiny(name, seed=0), tiny(name, seed=1)
    first = values(tiny_methods[name].networks)
    assert all(torch.equal(first[key], value) for key, value in values(same.networks).items())
    assert changed(other, first) == set(method_networks := dict(same.networks)), method_networks.keys()


@systems
def test_steps_return_unweighted_detached_scalars(name):
    method = tiny(name)
    for step in range(2):
        scalars = method.step(batch_of(method.config, step))
        for key, value in scalars.items():
            assert value.shape == (), key
            assert not value.requires_grad, key
            assert value.isfinite(), key
    assert set(method.config.weights) | {"color_correlation"} <= set(scalars)
    heavy = tiny(name, **{key: 3 * weight for key, weight in method.config.weights.items()})
    light = tiny(name)
    pairs = [one.step(batch_of(one.config, 1)) for one in (heavy, light)]
    first = next(iter(light.config.weights))
    assert pairs[0][first].item() == pytest.approx(pairs[1][first].item(), rel=0.2)


@systems
def test_losses_in_bfloat16_are_those_in_float32_but_for_rounding(name):
    scalars = []
    for enabled in (False, True):
        method = tiny(name)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scalars.append(method.step(batch_of(method.config, 1)))
    for key, value in scalars[0].items():
        assert scalars[1][key].dtype == torch.float32, key
        assert scalars[1][key].item() == pytest.approx(value.item(), rel=0.1, abs=0.03), key


@systems
def test_steps_are_the_same_every_time(name):
    runs = []
    for _ in range(2):
        method = tiny(name)
        for step in range(2):
            method.step(batch_of(method.config, step))
        runs.append(values(method.networks))
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@systems
def test_a_system_goes_on_from_its_state(name, tmp_path):
    first, second = tiny(name, seed=0), tiny(name, seed=1)
    for step in range(3):
        first.step(batch_of(first.config, step))
        first.average_weights()
    torch.save(first.state(), tmp_path / "state.pt")
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(3, 5):
        for method in (first, second):
            method.step(batch_of(method.config, step))
            method.average_weights()
    for part in ("networks", "averaged"):
        mine, theirs = values(getattr(first, part)), values(getattr(second, part))
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@systems
def test_losses_of_a_batch_are_the_means_over_its_parts(name):
    """Two processes with half a batch each then have the gradient of one with all of it."""
    # Relativistic losses are the exception: each part needs the means over all others, which processes exchange.
    changes = {"as-cyclegan": {"gan": "wgan-gp", "generator_every": 1}}.get(name, {})
    whole = batch_of(tiny_config(name, batch=4), step=1)
    scalars = []
    for part in (slice(0, 4), slice(0, 2), slice(2, 4)):
        method = tiny(name, batch=4, **changes)
        method.update = lambda *_: None
        scalars.append(method.step(Batch(whole.sharp[part], whole.blurred[part], noise(1, range(4)[part]))))
    joint, *halves = scalars
    for key in joint.keys() - {"color_correlation"}:
        assert joint[key].item() == pytest.approx(np.mean([half[key].item() for half in halves]), rel=1e-4), key


@systems
def test_gradients_are_clipped_to_the_norm_given_and_logged_before(name):
    once = {"critic_updates": 1} if hasattr(tiny_config(name), "critic_updates") else {}
    free, clipped = tiny(name, **once), tiny(name, clip_norm=1e-3, **once)
    for method in (free, clipped):
        method.step(batch_of(method.config, 1))
    for side, norm in free.grad_norms.items():
        grads = [p.grad for p in clipped.parameters(side) if p.requires_grad]
        assert norm > 1e-3
        assert torch.stack([grad.norm() for grad in grads]).norm().item() == pytest.approx(1e-3, rel=1e-2)
    first = next(iter(free.grad_norms))
    assert clipped.grad_norms[first].item() == pytest.approx(free.grad_norms[first].item(), rel=1e-4)


@systems
def test_averaged_weights_follow_those_of_the_restorer(name):
    method = tiny(name, ema=0.9)
    expected = values(method.restorer)
    for update in range(1, 13):
        with torch.no_grad():
            for p in method.restorer.parameters():
                p += 0.1 * update
        method.average_weights()
        decay = min(0.9, (1 + update) / (10 + update))
        now = values(method.restorer)
        expected = {key: decay * expected[key] + (1 - decay) * now[key] for key in expected}
    for key, value in values(method.averaged).items():
        torch.testing.assert_close(value, expected[key])


@systems
def test_gradients_pass_the_averaged_weights_by(name):
    method = tiny(name)
    before = values(method.averaged)
    method.step(batch_of(method.config, 1))
    assert all(torch.equal(before[key], value) for key, value in values(method.averaged).items())


@systems
def test_alarm_speaks_of_negative_correlation_alone(name, tiny_methods):
    method = tiny_methods[name]
    (sentence,) = method.alarms({"color_correlation": -0.5})
    assert "colours of the deblurred images are inverted (correlation -0.50" in sentence
    for scalars in ({}, {"color_correlation": 0.0}, {"color_correlation": 0.9}):
        assert method.alarms(scalars) == []


@systems
def test_networks_are_on_the_device_that_is_asked_for(name):
    config, context = tiny_config(name), Context(torch.device("meta"))
    with torch.device("meta"):
        method = method_class(name)(config, context)
    for module in (method.networks, method.restorer, method.averaged):
        assert {p.device.type for p in module.parameters()} == {"meta"}
