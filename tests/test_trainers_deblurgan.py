"""DeblurGAN: its size, its two gradient penalties, its keyed dropout, which loss trains what, how a step goes."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn
from trainer_data import (  # noqa: F401
    FEATURES,
    Features,
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
from trainers import losses
from trainers.blocks import ResidualBlock, dropped
from trainers.method import Context
from trainers.models.deblurgan import DeblurGAN, DeblurGANConfig
from trainers.nets.resnet_generator import ResnetGenerator
from trainers.validation import restore

NAME = "deblurgan"
CPU = torch.device("cpu")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_and_logits_are_those_of_the_published_networks():
    with torch.device("meta"):
        method = DeblurGAN(DeblurGANConfig(), Context(torch.device("meta")))
        image = torch.empty(2, 3, 256, 256)
        assert method.networks["critic"](image).shape == (2, 1, 35, 35)
        assert method.restorer(image).shape == image.shape
    assert count(method.restorer) == count(method.networks["generator"]) == 11_378_179
    assert count(method.networks["critic"]) == 2_764_737


def test_wasserstein_losses_are_their_formula():
    real, fake = normal(3, 1, 4, 5), normal(3, 1, 4, 5, seed=1)
    assert losses.wasserstein_critic(real, fake).item() == pytest.approx((fake.mean() - real.mean()).item(), abs=1e-6)
    assert losses.wasserstein_generator(fake).item() == pytest.approx(-fake.mean().item(), abs=1e-6)


class Squares(nn.Module):
    """Logits whose gradient is known: (a x²) averaged over colours and squares of 2 px."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(normal(3, 1, 1, seed=5) * 8)

    def forward(self, image):
        return nn.functional.avg_pool2d((self.a * image.square()).mean(1, keepdim=True), 2)


@pytest.mark.parametrize("per_pixel", [False, True])
def test_gradient_penalty_is_its_formula(per_pixel):
    critic, real, fake = Squares(), normal(3, 3, 4, 6), normal(3, 3, 4, 6, seed=1)
    share = torch.tensor(0.3) if per_pixel else torch.tensor([0.1, 0.5, 0.9]).reshape(3, 1, 1, 1)
    a, x, y = (part.detach().double().numpy() for part in (critic.a, real, fake))
    between = share.double().numpy() * x + (1 - share.double().numpy()) * y
    # Each pixel is a quarter of one of 6 logits, and each colour a third of a pixel.
    gradient = 2 * a * between / 3 / 4
    if per_pixel:
        norms = np.sqrt((gradient**2).sum(1))
    else:
        norms = np.sqrt(((gradient / 6) ** 2).sum((1, 2, 3)))
    penalty = losses.gradient_penalty(critic, real, fake, share, per_pixel)
    assert penalty.item() == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-5)
    # Norms are proportional to a scale of a: d/ds mean (s n - 1)² = mean 2 (n - 1) n at s = 1.
    penalty.backward()
    assert (critic.a.grad * critic.a).sum().item() == pytest.approx((2 * (norms - 1) * norms).mean(), rel=1e-4)


@pytest.mark.parametrize("per_pixel", [False, True])
def test_gradient_penalty_trains_the_critic_as_differences_say(per_pixel):
    critic = rescaled(tiny(NAME)).networks["critic"]
    # At the kinks of a leaky ReLU the gradient of the critic jumps, which differences see and derivatives do not.
    for number, layer in enumerate(critic.layers):
        if isinstance(layer, nn.LeakyReLU):
            critic.layers[number] = nn.Softplus()
    weight, direction = critic.layers[2].weight, normal(*critic.layers[2].weight.shape, seed=2)
    arguments = normal(2, 3, 32, 32), normal(2, 3, 32, 32, seed=1), torch.tensor(0.4), per_pixel
    (slope,) = torch.autograd.grad(losses.gradient_penalty(critic, *arguments), weight)
    ends = []
    for sign in (1, -1):
        weight.data += sign * 2e-3 * direction
        ends.append(losses.gradient_penalty(critic, *arguments).item())
        weight.data -= sign * 2e-3 * direction
    assert (slope * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 4e-3, rel=1e-2)


def test_gradient_penalty_is_float32_under_autocast():
    critic = rescaled(tiny(NAME)).networks["critic"]
    arguments = critic, normal(1, 3, 32, 32), normal(1, 3, 32, 32, seed=1), torch.tensor(0.4)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = losses.gradient_penalty(*arguments)
    assert torch.equal(penalty, losses.gradient_penalty(*arguments))


def test_a_flat_critic_has_a_penalty_with_a_gradient_that_is_finite():
    critic = nn.Conv2d(3, 1, 2)
    nn.init.zeros_(critic.weight)
    penalty = losses.gradient_penalty(critic, normal(1, 3, 4, 4), normal(1, 3, 4, 4), torch.tensor(0.5))
    penalty.backward()
    assert penalty.item() == 1
    assert critic.weight.grad.isfinite().all()


def test_dropout_zeroes_what_is_not_kept_and_scales_the_rest():
    x, kept = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1) > 0
    expected = np.where(kept, x / 0.75, 0)
    np.testing.assert_allclose(dropped(x, kept, 0.25), expected, rtol=1e-6)
    assert dropped(x, None, 0.25) is x
    assert dropped(x.bfloat16(), kept, 0.25).dtype == torch.bfloat16


def test_dropout_stands_between_the_convolutions_of_a_block():
    block, x = ResidualBlock(3, 0.5), normal(1, 3, 6, 6)
    nothing, everything = torch.zeros(1, 3, 6, 6, dtype=torch.bool), torch.ones(1, 3, 6, 6, dtype=torch.bool)
    # A convolution of nothing is flat, and flat is zero after a norm.
    assert torch.equal(block(x, nothing), x)
    # A norm follows, to which a scale is nothing.
    torch.testing.assert_close(block(x, everything), block(x), atol=1e-2, rtol=0)
    half = normal(1, 3, 6, 6) > 0
    expected = x + block.second(torch.where(half, block.first(x), 0) * 2)
    torch.testing.assert_close(block(x, half), expected)


def test_masks_have_the_rate_and_differ_between_blocks_samples_steps_and_purposes():
    generator = ResnetGenerator(4, 3, dropout=0.3)
    masks = []
    for block in generator.blocks:
        block.forward = lambda x, kept, block=block: masks.append(kept) or ResidualBlock.forward(block, x, kept)
    image = normal(2, 3, 32, 32)
    for step, purpose in ((0, "a"), (0, "b"), (1, "a")):
        generator.dropping(image, noise(step), purpose)
    rows = torch.cat(masks).flatten(1).double()
    assert rows.shape == (18, 16 * 8 * 8)
    assert rows.mean().item() == pytest.approx(0.7, abs=0.01)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.2


def test_dropout_is_off_where_images_are_restored_and_can_be_asked_for():
    restorer, blurred = rescaled(tiny(NAME)).averaged, batch_of(tiny_config(NAME)).blurred
    for mode in (True, False):
        restorer.train(mode)
        assert torch.equal(restorer(blurred), restorer(blurred))
    drawn = restorer.restore_dropping(blurred, noise())
    assert torch.equal(drawn, restorer.restore_dropping(blurred, noise()))
    assert not torch.allclose(drawn, restorer(blurred), atol=1e-2)
    assert not torch.allclose(drawn, restorer.restore_dropping(blurred, noise(1)), atol=1e-2)
    # Each image has masks of its own, whatever it is beside.
    alone = restorer.restore_dropping(blurred[1:], noise(samples=(1,)))
    torch.testing.assert_close(alone, drawn[1:], atol=1e-5, rtol=0)


def test_a_dropout_of_nothing_is_none_and_a_system_without_it_says_so():
    restorer, blurred = tiny(NAME, dropout=0.0).averaged, batch_of(tiny_config(NAME)).blurred
    assert torch.equal(restorer.restore_dropping(blurred, noise()), restorer(blurred))
    assert tiny("cyclegan").restorer.dropout == 0
    with pytest.raises(TypeError, match="CycleGANRestorer has no dropout"):
        tiny("cyclegan").restorer.restore_dropping(blurred, noise())


def test_generator_adds_to_the_image_and_stays_in_range():
    restorer, blurred = tiny(NAME).restorer, batch_of(tiny_config(NAME)).blurred
    last = restorer.generator.decoder[-2]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0, 0.5, -9.0])
    added = np.tanh([0.0, 0.5, -9.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(restorer(blurred).detach(), np.clip(blurred.numpy() + added, -1, 1), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(65, 66), (64, 71), (130, 67), (3, 5)])
def test_photographs_of_any_size_keep_it(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert restore(tiny(NAME).averaged, image, CPU).shape == image.shape


def parts(method):
    """Return the modules that together hold every parameter once, by name."""
    generator = method.networks["generator"]
    blocks = {f"block {number}": block for number, block in enumerate(generator.blocks)}
    whole = {"encoder": generator.encoder, **blocks, "decoder": generator.decoder}
    return whole | {"critic": method.networks["critic"]}


TRAINS = {
    "content": {"encoder", "block 0", "block 1", "decoder"},
    "adversarial": {"encoder", "block 0", "block 1", "decoder"},
    "critic": {"critic"},
    "gradient_penalty": {"critic"},
}


@pytest.mark.parametrize("gp", ["sample", "pixel"])
def test_each_loss_trains_what_it_should_and_nothing_else(gp):
    method = rescaled(tiny(NAME, gp=gp))
    config, batch = method.config, batch_of(method.config)
    assert sum(count(part) for part in parts(method).values()) == count(method.networks)
    fake = method.restorer.restore_dropping(batch.blurred, batch.noise)
    of_critic = method.critic_losses(batch, fake.detach(), 0)
    of_generator = method.generator_losses(batch, fake)
    assert set(of_critic | of_generator) == set(TRAINS)
    whole = {
        "critic": of_critic["critic"] + config.gradient_penalty * of_critic["gradient_penalty"],
        "generator": sum(config.weights[name] * loss for name, loss in of_generator.items()),
    }
    for name, loss in of_generator.items():
        assert_trains_alone(TRAINS[name], parts(method), config.weights[name] * loss, whole["generator"])
    for name, loss in of_critic.items():
        assert_trains_alone(TRAINS[name], parts(method), loss, whole["critic"])


@pytest.mark.parametrize("updates", [1, 3])
def test_a_step_updates_the_critic_on_one_fake_and_then_the_generator_once(updates):
    method = tiny(NAME, critic_updates=updates)
    fakes, original = [], method.critic_losses
    method.critic_losses = lambda batch, fake, number: fakes.append((fake, number)) or original(batch, fake, number)
    before = values(method.networks)
    with counted_calls(method) as calls:
        method.step(batch_of(method.config))
    # The penalty calls the critic by its plain forward, which a compiled critic does not replace.
    assert calls == {"generator": 1, "critic": 2 * updates + 1, FEATURES: 2}
    assert [number for _, number in fakes] == list(range(updates))
    assert all(torch.equal(fake, fakes[0][0]) and not fake.requires_grad for fake, _ in fakes)
    for side, expected in (("critics", updates), ("generators", 1)):
        steps = {state["step"].item() for state in method.optimizers[side].state.values()}
        assert steps == {expected}
    assert changed(method, before) == {"generator", "critic"}


def test_the_generator_faces_the_critic_just_updated():
    method, critics = tiny(NAME), []
    original = method.generator_losses
    method.generator_losses = lambda *args: critics.append(values(method.networks["critic"])) or original(*args)
    method.step(batch_of(method.config))
    now = values(method.networks["critic"])
    assert all(torch.equal(critics[0][key], value) for key, value in now.items())


def test_each_update_penalises_other_points_and_all_samples_alike_only_for_pixels():
    for gp, shape in (("sample", (2, 1, 1, 1)), ("pixel", ())):
        method = tiny(NAME, gp=gp)
        with pytest.MonkeyPatch.context() as patch:
            spy = Mock(side_effect=losses.gradient_penalty)
            patch.setattr("trainers.models.deblurgan.gradient_penalty", spy)
            method.step(batch_of(method.config))
        shares = [call.args[3] for call in spy.call_args_list]
        assert {share.shape for share in shares} == {shape}
        assert len(shares) == 5
        assert len(torch.cat([share.flatten() for share in shares]).unique()) == 5 * shares[0].numel()
        assert {call.args[4] for call in spy.call_args_list} == {gp == "pixel"}


def test_common_numbers_are_those_of_all_parts_of_a_batch():
    drawn = noise(samples=(0, 1)).common("share", 3)
    assert torch.equal(drawn, noise(samples=(5,)).common("share", 3))
    assert drawn.shape == (3,)
    for other in (noise(step=1), noise(seed=1)):
        assert not (other.common("share", 3) == drawn).any()
    assert not (noise().common("other", 3) == drawn).any()
    assert not (noise().uniform("share", 3) == drawn).any()


def test_the_offset_of_the_critic_stays_and_is_trained_elsewhere():
    for name, critic, trained in ((NAME, "critic", False), ("cyclegan", "critic_sharp", True)):
        method = tiny(name)
        bias = method.networks[critic].layers[-1].bias
        before = bias.detach().clone()
        for step in range(2):
            method.step(batch_of(method.config, step))
        assert torch.equal(bias, before) != trained


@pytest.mark.parametrize(
    ("weights", "missing"),
    [
        ({"content": 0.0}, {"content"}),
        ({"adversarial": 0.0}, {"adversarial"}),
        ({"gradient_penalty": 0.0}, {"gradient_penalty"}),
    ],
)
def test_what_has_no_weight_is_not_computed(weights, missing):
    method = tiny(NAME, **weights)
    scalars = method.step(batch_of(method.config))
    assert set(TRAINS) - set(scalars) == missing
    assert (method.context.features is None) == ("content" in missing)


def test_presets_are_those_of_paper_and_public_code():
    for preset, gp in (("default", "sample"), ("official", "pixel"), ("paper", "sample")):
        config = build(DeblurGANConfig, DeblurGAN.presets[preset])
        assert (config.gp, config.gradient_penalty, config.critic_updates) == (gp, 10, 5)
        assert config.weights == {"content": 100, "adversarial": 1}
        assert (config.lr, config.beta1, config.constant_epochs, config.decay_epochs) == (1e-4, 0.5, 150, 150)
        assert (config.batch, config.crop, config.blocks, config.dropout) == (1, 256, 9, 0.5)
        assert (config.fed_crop, DeblurGAN.last_feature(config), DeblurGAN.pairing) == (256, 14, "paired")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1"),
        ({"dropout": float("nan")}, "dropout must be a number, got nan"),
        ({"gradient_penalty": -1.0}, "gradient_penalty must be at least 0 and finite"),
        ({"gp": "image"}, "gp must be one of sample, pixel"),
        ({"crop": 30}, "crop must be a multiple of 4 and at least 32 px, got 30"),
    ],
)
def test_values_that_nothing_trains_with_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(NAME, **changes)


def test_content_is_the_mean_square_of_features():
    method, image, target = tiny(NAME), normal(2, 3, 32, 32), normal(2, 3, 32, 32, seed=1)
    features = Features()
    expected = (features(image) - features(target)).double().square().mean().item()
    assert method.content(image, target).item() == pytest.approx(expected, rel=1e-5)


def test_updates_in_one_step_see_the_weights_that_those_before_left_under_bf16():
    method = tiny(NAME, lr=0.1)
    critic, image = method.networks["critic"], batch_of(method.config).sharp
    with torch.autocast("cpu", torch.bfloat16):
        before = critic(image)
        method.update("critics", before.float().square().mean())
        within = critic(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(within, critic(image))
    assert not torch.equal(within, before)
