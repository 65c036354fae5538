"""CycleGAN: its size, its presets, which loss trains what, which network runs when, its pool of fakes."""

import pytest
import torch
from torch import nn
from trainer_data import (  # noqa: F401
    _quick_convolutions,
    batch_of,
    changed,
    counted_calls,
    purposes_of,
    rescaled,
    tiny,
    tiny_config,
    values,
)

from blurgen.options import build
from trainers.blocks import InstanceNorm
from trainers.method import Context, learning_rate_factor
from trainers.models.cyclegan import CycleGAN, CycleGANConfig
from trainers.nets.patch_critic import PatchCritic
from trainers.nets.resnet_generator import ResnetGenerator

NAME = "cyclegan"
GENERATORS, CRITICS = ("generator_sharp", "generator_blurred"), ("critic_sharp", "critic_blurred")
# Loss -> the networks that it trains, and no other.
TRAINS = {
    "adversarial": set(GENERATORS),
    "cycle": set(GENERATORS),
    "identity": set(GENERATORS),
    "critic_sharp": {"critic_sharp"},
    "critic_blurred": {"critic_blurred"},
}


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("blocks", "parameters"), [(9, 11_378_179), (6, 7_837_699)])
def test_parameters_of_generators_are_those_of_the_published_networks(blocks, parameters):
    with torch.device("meta"):
        assert count(ResnetGenerator(64, blocks)) == parameters


@pytest.mark.parametrize(("padding", "side"), [(1, 30), (2, 35)])
def test_critics_are_the_patch_critics_of_70_px(padding, side):
    with torch.device("meta"):
        critic = PatchCritic(64, padding)
        assert count(critic) == 2_764_737
        assert critic(torch.empty(1, 3, 256, 256)).shape == (1, 1, side, side)


def test_a_logit_sees_70_px():
    critic = PatchCritic(4)
    # The norms' statistics are of the whole image.
    layers = nn.Sequential(*(layer for layer in critic.layers if not isinstance(layer, InstanceNorm)))
    image = torch.zeros(1, 3, 128, 128).normal_(generator=torch.Generator().manual_seed(0)).requires_grad_()
    layers(image)[0, 0, 7, 7].backward()
    for axis in (0, 1):
        seen = torch.nonzero(image.grad[0].abs().sum(0).sum(axis)).flatten()
        assert len(seen) == seen[-1] - seen[0] + 1 == 70


def test_both_directions_have_networks_of_their_own():
    with torch.device("meta"):
        method = CycleGAN(CycleGANConfig(), Context(torch.device("meta")))
    assert count(method.networks) == 2 * (11_378_179 + 2_764_737)
    assert count(method.restorer) == 11_378_179
    assert {name: count(network) for name, network in method.networks.items()} == {
        **dict.fromkeys(GENERATORS, 11_378_179),
        **dict.fromkeys(CRITICS, 2_764_737),
    }


def test_initial_biases_are_zero():
    method = tiny(NAME)
    biases = [layer.bias for layer in method.networks.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
    assert biases
    assert not any(bias.any() for bias in biases)


PRESETS = {"default": 5.0, "official": 5.0, "paper": 0.0}


@pytest.mark.parametrize(("preset", "identity"), PRESETS.items())
def test_presets_are_those_of_paper_and_public_code(preset, identity):
    config = build(CycleGANConfig, CycleGAN.presets[preset])
    assert config.weights == {"adversarial": 1.0, "cycle": 10.0} | ({"identity": identity} if identity else {})
    assert (config.batch, config.crop, config.width, config.blocks, config.pool) == (1, 256, 64, 9, 50)
    assert (config.lr, config.beta1, config.beta2, config.weight_decay) == (2e-4, 0.5, 0.999, 0)
    assert [learning_rate_factor(config, epoch) for epoch in (0, 100)] == [1, 1]
    assert learning_rate_factor(config, 150) == pytest.approx(1 - 50 / 101)
    assert learning_rate_factor(config, 199) == pytest.approx(2 / 101)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"pool": -1}, "pool must be at least 0 and finite, got -1"),
        ({"crop": 28}, "crop must be a multiple of 4 and at least 32 px, got 28"),
        ({"cycle": float("nan")}, "cycle must be a number, got nan"),
    ],
)
def test_values_that_nothing_trains_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(NAME, **changes)


def gradients(method, loss):
    """Return network -> the joint gradient of its parameters, None where autograd finds no way to any of them."""
    found = {}
    for name, network in method.networks.items():
        grads = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
        grads = [grad.flatten() for grad in grads if grad is not None]
        found[name] = torch.cat(grads) if grads else None
    return found


@pytest.fixture(scope="module")
def losses():
    """Return a system, its losses of one batch, and the gradient of their weighted sum on each side."""
    method = rescaled(tiny(NAME))
    batch = batch_of(method.config)
    fakes = method.translate(batch)
    generators, critics = method.generator_losses(batch, fakes), method.critic_losses(batch, fakes)
    weighted = sum(weight * generators[name] for name, weight in method.config.weights.items())
    whole = {"generators": gradients(method, weighted), "critics": gradients(method, sum(critics.values()))}
    return method, generators | critics, whole


@pytest.mark.parametrize("name", TRAINS)
def test_each_loss_trains_what_it_should_and_nothing_else(name, losses):
    method, terms, whole = losses
    assert set(terms) == set(TRAINS)
    side, weight = ("generators", method.config.weights[name]) if name in method.config.weights else ("critics", 1)
    for network, gradient in gradients(method, terms[name]).items():
        if network in TRAINS[name]:
            assert weight * gradient.norm() > 1e-4 * whole[side][network].norm(), network
        else:
            assert gradient is None or not gradient.any(), network


def test_a_fake_reaches_the_generator_that_made_it_and_the_one_that_translates_it_back():
    method = rescaled(tiny(NAME))
    batch = batch_of(method.config)
    for domain, maker in (("sharp", "generator_sharp"), ("blurred", "generator_blurred")):
        fakes = {name: fake if name == domain else fake.detach() for name, fake in method.translate(batch).items()}
        losses = method.generator_losses(batch, fakes)
        reached = {name for name, grad in gradients(method, losses["adversarial"]).items() if grad is not None}
        assert reached == {maker}
        assert torch.autograd.grad(losses["cycle"], fakes[domain])[0].any()


def test_generators_take_the_sum_of_all_gradients_and_critics_none_of_them():
    method = rescaled(tiny(NAME))
    for optimizer in method.optimizers.values():
        optimizer.step = lambda: None
    batch = batch_of(method.config)
    method.step(batch)
    fakes = method.translate(batch)
    losses = method.generator_losses(batch, fakes)
    generators = gradients(method, sum(method.config.weights[name] * loss for name, loss in losses.items()))
    critics = gradients(method, sum(method.critic_losses(batch, fakes).values()))
    for name, network in method.networks.items():
        taken = torch.cat([p.grad.flatten() for p in network.parameters()])
        expected = (critics if name in CRITICS else generators)[name]
        torch.testing.assert_close(taken, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


# A generator makes its domain of the other, of the other's fakes, and of its own domain; a critic judges the fake,
# and once the generators are updated a real image and one out of the pool.
CALLS = {
    "default": ({}, 3, 3),
    "identity 0": ({"identity": 0.0}, 2, 3),
    "cycle 0": ({"cycle": 0.0}, 2, 3),
    "adversarial alone": ({"identity": 0.0, "cycle": 0.0}, 1, 3),
}


@pytest.mark.parametrize(("changes", "generators", "critics"), CALLS.values(), ids=CALLS)
def test_no_network_runs_that_its_losses_do_not_need(changes, generators, critics):
    method = tiny(NAME, **changes)
    with counted_calls(method) as calls:
        method.step(batch_of(method.config))
    assert calls == {**dict.fromkeys(GENERATORS, generators), **dict.fromkeys(CRITICS, critics)}


def test_each_side_goes_backward_once(monkeypatch):
    method, passes = tiny(NAME), []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss, *_: (passes.append(1), backward(loss)))
    method.step(batch_of(method.config))
    assert len(passes) == 2


def test_both_sides_learn_in_every_step_generators_first():
    method, sides = tiny(NAME), []
    update = method.update

    def watched(side, loss):
        before = values(method.networks)
        update(side, loss)
        sides.append((side, changed(method, before)))

    method.update = watched
    for step in range(2):
        method.step(batch_of(method.config, step))
    assert sides == 2 * [("generators", set(GENERATORS)), ("critics", set(CRITICS))]


def test_critics_judge_what_the_pool_hands_out():
    method, judged = tiny(NAME, pool=3, batch=2), []
    method.networks["critic_sharp"].register_forward_hook(
        lambda _, inputs, logits: judged.append((inputs[0].detach().clone(), inputs[0].requires_grad))
    )
    made = []
    for step in range(6):
        batch = batch_of(method.config, step, seed=step)
        with torch.no_grad():
            made += list(method.networks["generator_sharp"](batch.blurred))
        method.step(batch)
    # Of each step the generators' fake, the real image, and what the pool hands out.
    assert [graph for _, graph in judged] == 6 * [True, False, False]
    pooled = [image for images, _ in judged[2::3] for image in images]
    sources = [min(range(len(made)), key=lambda i, image=image: (made[i] - image).abs().max()) for image in pooled]
    assert all((made[source] - image).abs().max() < 1e-5 for source, image in zip(sources, pooled, strict=True))
    assert sources[:3] == [0, 1, 2]
    assert all(source <= place for place, source in enumerate(sources))
    assert any(source < place // 2 * 2 for place, source in enumerate(sources)), "no past fake was judged"


def test_pools_of_both_domains_exchange_independently(monkeypatch):
    method, purposes = tiny(NAME), purposes_of("uniform", monkeypatch)
    method.step(batch_of(method.config))
    assert len(purposes) == len(set(purposes)) == 2


def test_pools_are_part_of_the_state():
    method = tiny(NAME, pool=3)
    for step in range(2):
        method.step(batch_of(method.config, step))
    assert {domain: len(images) for domain, images in method.state()["extra"].items()} == {"sharp": 3, "blurred": 3}


class Painter(nn.Module):
    """In the place of a generator: the image itself, or its negative."""

    def __init__(self, sign):
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(float(sign)))

    def forward(self, image):
        return self.sign * image


@pytest.mark.parametrize(("sign", "alarms"), [(1, 0), (-1, 1)])
def test_inverted_colours_raise_the_alarm(sign, alarms):
    method = tiny(NAME)
    method.networks["generator_sharp"] = Painter(sign)
    scalars = {name: value.item() for name, value in method.step(batch_of(method.config)).items()}
    assert scalars["color_correlation"] == pytest.approx(sign, abs=1e-5)
    assert len(method.alarms(scalars)) == alarms


def test_two_negatives_please_the_cycle_and_offend_the_identity():
    """Inverted colours in both directions are what the loss on images of the target domain is against."""
    method = tiny(NAME)
    for name in GENERATORS:
        method.networks[name] = Painter(-1)
    batch = batch_of(method.config)
    losses = method.generator_losses(batch, method.translate(batch))
    assert losses["cycle"].item() == pytest.approx(0, abs=1e-6)
    assert losses["identity"].item() == pytest.approx(
        2 * (batch.sharp.abs().mean() + batch.blurred.abs().mean()).item()
    )
