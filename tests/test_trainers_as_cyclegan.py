"""AS-CycleGAN: sizes, blocks, features that a condition transforms, relativistic losses, which loss trains what."""

import os
import socket

import numpy as np
import pytest
import torch
from torch import nn
from toy_system import finish, start
from trainer_data import (  # noqa: F401
    FEATURES,
    _quick_convolutions,
    assert_trains_alone,
    batch_of,
    changed,
    counted_calls,
    noise,
    rescaled,
    tiny,
    tiny_config,
    values,
)

from blurgen.options import build
from trainers.method import Batch, Context
from trainers.models.as_cyclegan import ASCycleGAN, ASCycleGANConfig
from trainers.nets.preactivation import (
    ColorsAndSlope,
    FeatureTransform,
    PreactivationBlock,
    begin_as_identity,
    condition_net,
)
from trainers.processes import joined
from trainers.validation import restore

NAME = "as-cyclegan"
CPU = torch.device("cpu")
V1, V2, SFT = {"block": "v1", "sft": False}, {"sft": False}, {}
GENERATORS, CRITICS = ("generator_sharp", "generator_blurred"), ("critic_sharp", "critic_blurred")
GANS = ("ragan-ls", "wgan-gp", "ragan-ls+gp")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def awake(method):
    """Return `method` with weights as large as at full width, and with transforms that do something."""
    for module in method.networks.modules():
        if isinstance(module, FeatureTransform):
            for last in (module.scale[-1], module.shift[-1]):
                last.weight.data = normal(*last.weight.shape)
    return rescaled(method)


def test_parameters_are_those_of_the_published_networks():
    with torch.device("meta"):
        sizes = [
            ASCycleGAN(build(ASCycleGANConfig, changes), Context(torch.device("meta"))) for changes in (V1, V2, SFT)
        ]
        v1, v2, sft = (method.networks for method in sizes)
        assert count(condition_net(8)) == 70_176
        assert count(FeatureTransform(256, 32)) == 19_008
        assert condition_net(8)(torch.empty(1, 8, 64, 96)).shape == (1, 32, 16, 24)
    assert {count(net[name]) for net in (v1, v2) for name in GENERATORS} == {11_378_179}
    transforms = [module for module in sft["generator_sharp"].modules() if isinstance(module, FeatureTransform)]
    assert (len(transforms), count(*transforms)) == (18, 342_144)
    condition = sft["generator_sharp"].condition
    assert count(sft["generator_sharp"]) == 11_378_179 + 342_144 + count(condition)
    assert count(condition) == 70_176 - 4 * 4 * 4 * 128
    assert {count(sft[name]) for name in CRITICS} == {2_764_737}


def standardised(x):
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()


def convolved(x, layer):
    return nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), layer.weight, layer.bias)


@pytest.mark.parametrize("conditioned", [False, True])
def test_preactivation_block_is_its_formula(conditioned):
    block, x, kept = PreactivationBlock(3, 0.5, 4 if conditioned else 0), normal(2, 3, 6, 8), normal(2, 3, 6, 8) > 0
    first, second = (layer for layer in block.convs.modules() if isinstance(layer, nn.Conv2d))
    condition = normal(2, 4, 6, 8, seed=1) if conditioned else None

    def transformed(values, number):
        if not conditioned:
            return values
        transform = block.transforms[number]
        return values * (1 + pointwise(transform.scale, condition)) + pointwise(transform.shift, condition)

    def pointwise(layers, values):
        inner = torch.einsum("oi,bihw->bohw", layers[0].weight[..., 0, 0], values) + layers[0].bias[:, None, None]
        inner = torch.where(inner > 0, inner, 0.1 * inner)
        return torch.einsum("oi,bihw->bohw", layers[2].weight[..., 0, 0], inner) + layers[2].bias[:, None, None]

    inner = convolved(transformed(standardised(x), 0).clamp_min(0), first) * kept * 2
    expected = x + convolved(transformed(standardised(inner), 1).clamp_min(0), second)
    torch.testing.assert_close(block(x, kept, *([condition] if conditioned else [])), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("changes", "norms"), [(V1, 23), (V2, 24), (SFT, 24)])
def test_norm_and_activation_follow_the_last_block_of_v2(changes, norms):
    with torch.device("meta"):
        generator = ASCycleGAN.Restorer(build(ASCycleGANConfig, changes)).generator
    assert [type(layer).__name__ for layer in generator.decoder[:2]] == (
        ["ConvTranspose2d", "InstanceNorm"] if changes is V1 else ["InstanceNorm", "ReLU"]
    )
    assert sum(type(module).__name__ == "InstanceNorm" for module in generator.modules()) == norms


def test_an_image_tells_its_colours_and_its_slopes():
    image = normal(2, 3, 5, 7)
    pixels = image.double().numpy()
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="reflect")
    right, below = (padded[:, :, :-1, 1:] - pixels) / 2, (padded[:, :, 1:, :-1] - pixels) / 2
    slope = np.sqrt((right**2 + below**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(ColorsAndSlope()(image), np.concatenate([pixels, slope], 1), rtol=1e-4, atol=1e-6)


def test_a_flat_image_has_a_slope_with_a_gradient_that_is_finite():
    flat = torch.full((1, 3, 4, 4), 0.3, requires_grad=True)
    ColorsAndSlope()(flat).sum().backward()
    assert flat.grad.isfinite().all()


def test_transforms_begin_as_nothing_and_a_run_of_v2_can_be_gone_on_from():
    plain, steered = rescaled(tiny(NAME, seed=0, **V2)), tiny(NAME, seed=1)
    blurred = batch_of(plain.config).blurred
    plain.average_weights()
    # Whatever there is of a condition must come to nothing.
    for key, p in steered.networks.named_parameters():
        if (".condition." in key or ".transforms." in key) and key.endswith("weight") and p.any():
            p.data = normal(*p.shape)
    before = values(steered.networks)
    steered.load_initial(plain.state()["networks"])
    for mine, theirs in ((plain.restorer, steered.restorer), (plain.restorer, steered.averaged)):
        torch.testing.assert_close(theirs(blurred), mine(blurred), atol=1e-5, rtol=0)
    kept = {key for key, value in values(steered.networks).items() if torch.equal(value, before[key])}
    extra = {key for key in before if ".condition." in key or ".transforms." in key}
    assert extra == kept - set(plain.networks.state_dict())
    assert changed(steered, before) == {*GENERATORS, *CRITICS}


def test_a_transform_that_has_learned_changes_the_image():
    steered, blurred = awake(tiny(NAME)), batch_of(tiny_config(NAME)).blurred
    changed_image = steered.restorer(blurred)
    begin_as_identity(steered.networks)
    assert not torch.allclose(steered.restorer(blurred), changed_image, atol=1e-2)


@pytest.mark.parametrize("other", [{"sft": False, "block": "v1"}, {"width": 6}])
def test_a_run_that_does_not_fit_is_not_gone_on_from(other):
    with pytest.raises(ValueError, match="of the run to start from has no place here: give a run of as-cyclegan"):
        tiny(NAME).load_initial(tiny(NAME, **other).state()["networks"])


@pytest.mark.parametrize(("height", "width"), [(65, 66), (130, 67), (3, 5)])
@pytest.mark.parametrize("changes", [V2, SFT])
def test_photographs_of_any_size_keep_it(height, width, changes):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert restore(tiny(NAME, **changes).averaged, image, CPU).shape == image.shape


def parts(method):
    """Return the modules that together hold every parameter once, by name."""
    found = {}
    for name in GENERATORS:
        net = method.networks[name]
        found |= {
            f"{name} encoder": net.encoder,
            f"{name} condition": net.condition,
            f"{name} convolutions": nn.ModuleList(block.convs for block in net.blocks),
            f"{name} transforms": nn.ModuleList(block.transforms for block in net.blocks),
            f"{name} decoder": net.decoder,
        }
    return found | {name: method.networks[name] for name in CRITICS}


BOTH = {
    f"{name} {part}"
    for name in GENERATORS
    for part in ("encoder", "condition", "convolutions", "transforms", "decoder")
}
TRAINS = {
    **dict.fromkeys(("adversarial", "cycle", "cycle_pixel", "identity"), BOTH),
    **{name: {name} for name in CRITICS},
    "gradient_penalty": set(CRITICS),
}


@pytest.mark.parametrize("gan", GANS)
def test_each_loss_trains_what_it_should_and_nothing_else(gan):
    method = awake(tiny(NAME, gan=gan, cycle_pixel=1.0))
    batch, weights = batch_of(method.config), method.config.weights
    assert sum(map(count, parts(method).values())) == count(method.networks)
    fakes = method.translate(batch)
    of_generators, of_critics = method.generator_losses(batch, fakes), method.critic_losses(batch, fakes)
    assert set(of_generators) == set(weights) == {"adversarial", "cycle", "cycle_pixel", "identity"}
    assert set(of_critics) == {*CRITICS} | ({"gradient_penalty"} if gan != "ragan-ls" else set())
    whole = sum(weights[name] * loss for name, loss in of_generators.items())
    for name, loss in of_generators.items():
        assert_trains_alone(TRAINS[name], parts(method), weights[name] * loss, whole)
    whole = sum(of_critics.values())
    for name, loss in of_critics.items():
        assert_trains_alone(TRAINS[name], parts(method), loss, whole)


@pytest.mark.parametrize("gan", GANS)
def test_losses_of_a_step_are_those_of_the_loss_chosen(gan):
    method = awake(tiny(NAME, gan=gan, pool=0))
    batch, net = batch_of(method.config), method.networks
    fakes = {domain: fake.detach() for domain, fake in method.translate(batch).items()}
    terms = method.generator_losses(batch, fakes) | method.critic_losses(batch, fakes)
    expected = 0.0
    for domain in ("sharp", "blurred"):
        r, f = (net[f"critic_{domain}"](image).detach().double() for image in (getattr(batch, domain), fakes[domain]))
        if gan == "wgan-gp":
            critic, generator = f.mean() - r.mean(), -f.mean()
        else:
            critic = ((r - f.mean() - 1).square().mean() + (f - r.mean() + 1).square().mean()) / 2
            generator = ((f - r.mean() - 1).square().mean() + (r - f.mean() + 1).square().mean()) / 2
        expected += generator.item()
        assert terms[f"critic_{domain}"].item() == pytest.approx(critic.item(), rel=1e-4, abs=1e-6)
    assert terms["adversarial"].item() == pytest.approx(expected, rel=1e-4)


def test_a_penalty_is_part_of_the_critics_loss_with_its_weight():
    norms = []
    for weight in (1.0, 1000.0):
        method = awake(tiny(NAME, gan="ragan-ls+gp", gradient_penalty=weight, pool=0))
        method.step(batch_of(method.config))
        norms.append(method.grad_norms["critics"].item())
    assert norms[1] > 100 * norms[0]
    assert "gradient_penalty" not in tiny(NAME, gan="wgan-gp", gradient_penalty=0.0).step(batch_of(tiny_config(NAME)))


def test_cycles_are_compared_in_features_or_in_pixels():
    method = awake(tiny(NAME, cycle_pixel=1.0))
    batch, features = batch_of(method.config), method.context.features
    fakes = method.translate(batch)
    sharp, blurred = method.returned(batch, fakes)
    terms = method.cycle_losses(batch, fakes)
    expected = sum(
        (features(image) - features(target)).square().mean().item()
        for image, target in ((sharp, batch.sharp), (blurred, batch.blurred))
    )
    assert terms["cycle"].item() == pytest.approx(expected, rel=1e-4)
    pixels = (sharp - batch.sharp).abs().mean() + (blurred - batch.blurred).abs().mean()
    assert terms["cycle_pixel"].item() == pytest.approx(pixels.item(), rel=1e-4)
    assert not ASCycleGAN.needs_features(tiny_config(NAME, cycle=0.0))


@pytest.mark.parametrize(("changes", "every"), [({}, 1), ({"gan": "wgan-gp"}, 5), ({"generator_every": 3}, 3)])
def test_critics_learn_every_step_and_generators_when_they_are_due(changes, every):
    method = tiny(NAME, batch=1, **changes)
    for step in range(2 * every):
        before = values(method.networks)
        with counted_calls(method) as calls:
            scalars = method.step(batch_of(method.config, step))
        due = (step + 1) % every == 0
        assert changed(method, before) == {*CRITICS, *(GENERATORS if due else ())}
        assert ("adversarial" in scalars) == ("color_correlation" in scalars) == due
        # Translated, back again, and itself; a relativistic generator looks at the real ones, too.
        assert calls["generator_sharp"] == (3 if due else 1)
        assert calls["critic_sharp"] == 2 + due * (1 if method.config.gan == "wgan-gp" else 2)
        assert calls[FEATURES] == (4 if due else 0)


def test_every_pass_through_a_generator_drops_other_values():
    method, masks = tiny(NAME), []
    for name in GENERATORS:
        block = method.networks[name].blocks[0]
        block.forward = lambda x, kept, condition, block=block: (
            masks.append(kept) or PreactivationBlock.forward(block, x, kept, condition)
        )
    method.step(batch_of(method.config))
    rows = torch.cat(masks).flatten(1).double()
    assert rows.shape[0] == 6 * 2
    assert rows.mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.2


def test_the_offset_of_the_critics_stays():
    method = tiny(NAME)
    lasts = [method.networks[name].layers[-1] for name in CRITICS]
    before = [values(last) for last in lasts]
    method.step(batch_of(method.config))
    for last, old in zip(lasts, before, strict=True):
        assert torch.equal(last.bias, old["bias"])
        assert not torch.equal(last.weight, old["weight"])


def gradients_of(method, batch):
    """Return the gradients of one step of critics and generators, and its scalars."""
    for optimizer in method.optimizers.values():
        optimizer.step = lambda: None
    scalars = method.step(batch)
    return [p.grad.clone() for p in method.networks.parameters() if p.requires_grad], scalars


def joint_batch(config):
    return batch_of(config, step=1)


def step_of_one(rank, port, folder):
    """Take the step of one of two processes, and write its gradients."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    # As in the process that is compared: other sums part at the kinks of ReLUs.
    torch.backends.mkldnn.enabled = False
    with joined("cpu"):
        method = awake(tiny(NAME, gan="ragan-ls+gp"))
        whole, part = joint_batch(method.config), slice(rank, rank + 1)
        batch = Batch(whole.sharp[part], whole.blurred[part], noise(1, samples=(rank,)))
        gradients, scalars = gradients_of(method, batch)
        torch.save((gradients, {name: value.item() for name, value in scalars.items()}), folder / f"{rank}.pt")


def test_two_processes_have_the_gradients_of_one_with_the_joint_batch(tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    started = [start(step_of_one, rank, port, tmp_path) for rank in range(2)]
    method = awake(tiny(NAME, gan="ragan-ls+gp"))
    expected, scalars = gradients_of(method, joint_batch(method.config))
    finish(*started)
    (first, of_first), (second, of_second) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for mine, also, theirs in zip(first, second, expected, strict=True):
        assert torch.equal(mine, also)
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm() + 1e-5
    for name in scalars.keys() - {"color_correlation"}:
        assert (of_first[name] + of_second[name]) / 2 == pytest.approx(scalars[name].item(), rel=1e-4), name


def test_presets_are_variants_of_the_paper():
    expected = {
        "default": ("v2", True, 5.0),
        "official": ("v2", True, 5.0),
        "paper": ("v2", True, 0.5),
        "v1": ("v1", False, 5.0),
        "v2": ("v2", False, 5.0),
    }
    for preset, (block, sft, identity) in expected.items():
        config = build(ASCycleGANConfig, ASCycleGAN.presets[preset])
        assert (config.block, config.sft, config.identity) == (block, sft, identity)
        assert (config.gan, config.cycle, config.cycle_pixel, config.dropout) == ("ragan-ls", 10, 0, 0.5)
        assert (config.lr, config.epochs, config.pool, config.blocks) == (2e-4, 200, 50, 9)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"block": "v1"}, "sft transforms the features of block v2, got block v1: give --no-sft"),
        ({"block": "v3"}, "block must be one of v1, v2"),
        ({"gan": "lsgan"}, "gan must be one of ragan-ls, wgan-gp, ragan-ls[+]gp"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1"),
        ({"generator_every": 0}, "generator_every must be at least 1, got 0"),
        ({"cycle_pixel": -1.0}, "cycle_pixel must be at least 0 and finite"),
        ({"gradient_penalty": float("inf")}, "gradient_penalty must be at least 0 and finite"),
    ],
)
def test_values_that_nothing_trains_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(NAME, **changes)
