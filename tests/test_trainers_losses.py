"""Losses against their formulas in NumPy; schedules; noise that is keyed; the pool of past fakes."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from trainer_data import CPU, noise

from trainers import losses
from trainers.method import MethodConfig, frozen, learning_rate_factor
from trainers.noise import Noise
from trainers.pool import ImagePool


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


REAL, FAKE = normal(3, 1, 4, 5) * 3, normal(3, 1, 4, 5, seed=1) * 3 - 1


def cross_entropy(logits, label):
    """Return the mean of -log p(label) with p the logistic function."""
    chance = 1 / (1 + np.exp(-logits.double().numpy()))
    return -np.log(chance if label else 1 - chance).mean()


def test_binary_cross_entropy_is_its_formula():
    expected = cross_entropy(REAL, 1) + cross_entropy(FAKE, 0)
    assert losses.bce_critic(REAL, FAKE).item() == pytest.approx(expected, rel=1e-5)
    assert losses.bce_generator(FAKE).item() == pytest.approx(cross_entropy(FAKE, 1), rel=1e-5)


def test_binary_cross_entropy_of_a_beaten_side_keeps_its_gradient():
    fake = torch.tensor([-300.0], requires_grad=True)
    loss = losses.bce_generator(fake)
    loss.backward()
    assert (loss.item(), fake.grad.item()) == (300, -1)


def test_least_squares_are_their_formula():
    real, fake = REAL.double().numpy(), FAKE.double().numpy()
    expected = 0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake**2).mean()
    assert losses.least_squares_critic(REAL, FAKE).item() == pytest.approx(expected, rel=1e-5)
    assert losses.least_squares_generator(FAKE).item() == pytest.approx(((fake - 1) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("loss", [losses.bce_critic, losses.least_squares_critic])
def test_critics_losses_rise_with_fakes_and_fall_with_reals(loss):
    real, fake = REAL.clone().requires_grad_(), (FAKE.abs() + 0.1).requires_grad_()
    loss(real.clamp(max=0.9), fake).backward()
    assert (real.grad <= 0).all()
    assert real.grad.any()
    assert (fake.grad > 0).all()


def test_scales_are_summed_each_with_its_own_mean():
    pairs = [(normal(2, 1, side, side, seed=side), normal(2, 1, side, side, seed=9 + side)) for side in (8, 4, 2)]
    expected = sum(cross_entropy(real, 1) + cross_entropy(fake, 0) for real, fake in pairs)
    reals, fakes = zip(*pairs, strict=True)
    assert losses.over_scales(losses.bce_critic, reals, fakes).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="zip"):
        losses.over_scales(losses.bce_critic, reals, fakes[:2])


@pytest.mark.parametrize("n", [1, 8])
def test_kl_is_summed_over_entries_and_averaged_over_the_batch(n):
    mean, log_variance = normal(5, n), normal(5, n, seed=1)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(n), torch.ones(n)))
    assert losses.kl_to_standard_normal(mean, log_variance).item() == pytest.approx(theirs.sum().item() / 5, rel=1e-5)
    assert losses.kl_to_standard_normal(0 * mean, 0 * mean).item() == 0


def test_kl_is_what_draws_from_the_code_say():
    mean, log_variance = torch.tensor([[0.7, -1.2]]), torch.tensor([[0.5, -0.9]])
    deviation = (log_variance / 2).exp()
    drawn = mean + deviation * normal(200_000, 2)
    sampled = (Normal(mean, deviation).log_prob(drawn) - Normal(0.0, 1.0).log_prob(drawn)).sum(1).mean()
    assert losses.kl_to_standard_normal(mean, log_variance).item() == pytest.approx(sampled.item(), rel=0.01)


def test_l1_is_its_formula():
    assert losses.l1(REAL, FAKE).item() == pytest.approx(np.abs(REAL.numpy() - FAKE.numpy()).mean(), rel=1e-6)


@pytest.mark.parametrize("loss", [losses.l1, losses.bce_critic, losses.least_squares_critic])
def test_losses_of_bfloat16_are_sums_in_float32(loss):
    # The mean of 65,536 ones and a little, which bfloat16 can't add up.
    real, fake = (normal(4, 1, 128, 128, seed=seed).bfloat16() + 1 for seed in (0, 1))
    value = loss(real, fake)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(real.double(), fake.double()).item(), rel=1e-5)


def test_feature_distance_is_the_mean_square():
    image, target = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    distance = losses.feature_distance(lambda x: 2 * x, image, target).item()
    assert distance == pytest.approx(((2 * image.numpy() - target.numpy()) ** 2).mean(), rel=1e-5)


def blocks(image, px):
    """Return the means over whole squares of `px` pixels, in NumPy."""
    batch, channels, height, width = image.shape
    whole = image.double().numpy()[:, :, : height // px * px, : width // px * px]
    return whole.reshape(batch, channels, height // px, px, width // px, px).mean((3, 5))


@pytest.mark.parametrize(("side", "px"), [(64, 32), (70, 32), (32, 32), (20, 20)])
def test_color_distance_is_of_means_over_squares(side, px):
    image, target = normal(2, 3, side, side), normal(2, 3, side, side, seed=1)
    expected = np.abs(blocks(image, px) - blocks(target, px)).mean()
    assert losses.color_distance(image, target).item() == pytest.approx(expected, rel=1e-4)


def test_color_distance_is_blind_to_detail():
    checks = torch.arange(64).remainder(2).mul(2.0).sub(1).expand(1, 3, 64, 64)
    assert losses.color_distance(checks, -checks).item() == pytest.approx(0, abs=1e-6)
    assert losses.color_distance(checks, checks + 0.5).item() == pytest.approx(0.5)


def test_color_correlation_is_pearsons():
    image = normal(2, 3, 32, 24)
    target = image + normal(2, 3, 32, 24, seed=1)
    expected = np.corrcoef(blocks(image, 8).ravel(), blocks(target, 8).ravel())[0, 1]
    assert losses.color_correlation(image, target).item() == pytest.approx(expected, abs=1e-5)
    assert losses.color_correlation(image, 0.5 - image).item() == pytest.approx(-1, abs=1e-5)
    assert losses.color_correlation(image, 2 * image + 3).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("flat", [0.0, 1.0, 0.3, -0.7])
def test_color_correlation_of_a_flat_image_is_no_alarm(flat):
    blank, image = torch.full((2, 3, 40, 40), flat), normal(2, 3, 40, 40)
    for pair in ((blank, image), (image, blank), (blank, blank)):
        assert losses.color_correlation(*pair).item() == 0


def config(**changes):
    return MethodConfig(**{"constant_epochs": 40, "decay_epochs": 40, **changes})


@pytest.mark.parametrize("epoch", [0, 39, 40, 41, 60, 79])
def test_linear_decay_is_that_of_the_public_code(epoch):
    factor = learning_rate_factor(config(schedule="linear"), epoch)
    assert factor == pytest.approx(1 - max(0, epoch - 40) / 41)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (40, 1), (41, 0.9), (43, 0.729), (79, 0.9**39)])
def test_exponential_decay_takes_a_tenth_per_epoch(epoch, factor):
    assert learning_rate_factor(config(schedule="exponential"), epoch) == pytest.approx(factor)


@pytest.mark.parametrize("schedule", ["linear", "exponential", "constant"])
def test_beyond_the_schedule_the_last_factor_stays(schedule):
    last = learning_rate_factor(config(schedule=schedule), 79)
    assert 0 < last <= 1
    assert learning_rate_factor(config(schedule=schedule), 80) == learning_rate_factor(config(schedule=schedule), 999)
    assert learning_rate_factor(config(schedule=schedule), 80) == last


def test_frozen_networks_hand_gradients_on_and_are_freed_again():
    network, x = torch.nn.Linear(2, 2), normal(3, 2).requires_grad_()
    network.bias.requires_grad_(False)
    with frozen(network):
        loss = network(x).sum()
    loss.backward()
    assert network.weight.grad is None
    assert x.grad.abs().sum() > 0
    assert [p.requires_grad for p in (network.weight, network.bias)] == [True, False]


def test_frozen_networks_are_freed_after_an_error():
    network = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="shape"), frozen(network):
        network(normal(3, 5))
    assert all(p.requires_grad for p in network.parameters())


def test_noise_depends_on_all_its_keys_and_on_nothing_else():
    reference = noise(step=3, samples=(5,), seed=7).normal("code", 16)
    assert torch.equal(noise(step=3, samples=(5,), seed=7).normal("code", 16), reference)
    torch.manual_seed(9)
    _ = torch.randn(3)
    assert torch.equal(noise(step=3, samples=(4, 5), seed=7).normal("code", 16)[1:], reference)
    for other in (
        noise(step=3, samples=(5,), seed=8).normal("code", 16),
        noise(step=4, samples=(5,), seed=7).normal("code", 16),
        noise(step=3, samples=(6,), seed=7).normal("code", 16),
        noise(step=3, samples=(5,), seed=7).normal("other", 16),
    ):
        assert abs(np.corrcoef(other.ravel(), reference.ravel())[0, 1]) < 0.8
        assert not (other == reference).any()


def test_noise_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    noise().normal("code", 3)
    noise().uniform("code", 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_of_split_batches_equals_that_of_the_joint_batch(kind):
    joint = getattr(Noise(0, 2, range(4, 10), CPU), kind)("code", 3, 2)
    parts = [getattr(Noise(0, 2, samples, CPU), kind)("code", 3, 2) for samples in (range(4, 6), range(6, 10))]
    assert torch.equal(torch.cat(parts), joint)


def test_noise_has_the_moments_of_its_distribution():
    drawn = noise(samples=range(100)).normal("code", 500).double()
    # The standard error of the mean of 50,000 is 0.0045; of a sample's mean, over 100 of them, 0.045.
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(1, abs=0.015)
    assert drawn.mean(1).std() == pytest.approx(500**-0.5, rel=0.25)
    assert (drawn**4).mean() == pytest.approx(3, abs=0.15)
    flat = noise(samples=range(100)).uniform("code", 500).double()
    assert flat.min() >= 0
    assert flat.max() < 1
    assert flat.mean() == pytest.approx(0.5, abs=0.006)
    assert flat.var() == pytest.approx(1 / 12, abs=0.002)


def numbered(*numbers):
    """Return images (B, 1, 2, 2) that are flat, each with its number."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def numbers(images):
    return [int(image.unique().item()) for image in images]


def test_pool_fills_before_it_exchanges():
    pool = ImagePool(3)
    assert numbers(pool.exchange(numbered(1, 2), noise(0), "pool")) == [1, 2]
    assert numbers(pool.exchange(numbered(3), noise(1, (0,)), "pool")) == [3]
    assert numbers(pool.state()) == [1, 2, 3]


def test_full_pool_exchanges_half_of_the_time_and_loses_no_image():
    pool, out = ImagePool(20), []
    for step in range(500):
        out += numbers(pool.exchange(numbered(2 * step, 2 * step + 1), noise(step), "pool"))
    fresh = sum(given == shown for given, shown in enumerate(out[20:], 20))
    # 980 draws: a deviation of 16.
    assert abs(fresh - 490) < 64
    # Each image is shown once, or held, or shown at once and forgotten: what came in is what is out or held,
    # but that the first 20 are shown and held.
    assert sorted(out + numbers(pool.state())) == sorted([*range(1000), *range(20)])
    ages = [given - shown for given, shown in enumerate(out) if shown != given]
    # One of 20 places is taken every other time: an image stays for 40 on average.
    assert np.mean(ages) == pytest.approx(40, rel=0.2)


def test_pool_hands_out_and_holds_no_graph_and_no_shared_memory():
    pool, images = ImagePool(1), numbered(1, 2).requires_grad_()
    for step in range(4):
        out = pool.exchange(images * 1, noise(step), "pool")
        assert not any(image.requires_grad for image in (out, *pool.state()))
    out.zero_()
    assert numbers(pool.state())[0] in (1, 2)
    assert not ImagePool(0).exchange(images * 1, noise(), "pool").requires_grad


def test_pool_of_size_zero_hands_back_what_it_is_given():
    pool = ImagePool(0)
    for step in range(5):
        assert numbers(pool.exchange(numbered(step), noise(step, (0,)), "pool")) == [step]
    assert pool.state() == []


@pytest.mark.parametrize("filled", [2, 6])
def test_pool_goes_on_from_its_state(filled, tmp_path):
    first, second = ImagePool(4), ImagePool(4)
    for step in range(filled):
        first.exchange(numbered(step), noise(step, (0,)), "pool")
    torch.save(first.state(), tmp_path / "pool.pt")
    second.load_state(torch.load(tmp_path / "pool.pt", weights_only=True), CPU)
    for step in range(filled, 40):
        shown = [numbers(pool.exchange(numbered(step), noise(step, (0,)), "pool")) for pool in (first, second)]
        assert shown[0] == shown[1]
    assert numbers(first.state()) == numbers(second.state())


def test_relativistic_losses_are_their_formula():
    real, fake = normal(3, 1, 4, 5) * 2 + 1, normal(3, 1, 4, 5, seed=1)
    r, f = real.double().numpy(), fake.double().numpy()
    critic = (((r - f.mean() - 1) ** 2).mean() + ((f - r.mean() + 1) ** 2).mean()) / 2
    generator = (((f - r.mean() - 1) ** 2).mean() + ((r - f.mean() + 1) ** 2).mean()) / 2
    assert losses.relativistic_critic(real, fake).item() == pytest.approx(critic, rel=1e-5)
    assert losses.relativistic_generator(real, fake).item() == pytest.approx(generator, rel=1e-5)


@pytest.mark.parametrize("loss", [losses.relativistic_critic, losses.relativistic_generator])
def test_gradients_of_relativistic_losses_flow_through_the_means(loss):
    sign = 1 if loss is losses.relativistic_critic else -1
    real, fake = normal(20).requires_grad_(), normal(20, seed=1).requires_grad_()
    found = torch.autograd.grad(loss(real, fake), (real, fake))
    r, f = real.detach().double().numpy(), fake.detach().double().numpy()
    # Of each of the two squares, the derivative by the number itself, and by the mean that the other is compared with.
    above, below = r - f.mean() - sign, f - r.mean() + sign
    expected = (above - below.mean()) / 20, (below - above.mean()) / 20
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [losses.relativistic_critic, losses.relativistic_generator])
def test_what_moves_all_logits_alike_does_not_matter_to_a_relativistic_critic(loss):
    real, fake = normal(3, 1, 4, 5), normal(3, 1, 4, 5, seed=1)
    assert loss(real + 2, fake + 2).item() == pytest.approx(loss(real, fake).item(), rel=1e-5)
