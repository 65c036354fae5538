"""Layers against torch's own, against NumPy, and on images without contrast."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.signal import correlate2d
from torch import nn

from trainers.blocks import (
    Float32Linear,
    InstanceNorm,
    LayerNorm,
    ResidualBlock,
    doubling_conv,
    initialise,
    reflected_conv,
    with_code,
)

EPSILON = 1e-5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(layer, x, weights):
    x = x.clone().requires_grad_()
    (layer(x) * weights).sum().backward()
    return x.grad


def standardised(x, axes):
    """Return x with mean 0 and variance 1 over `axes`, in NumPy and float64."""
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 3, 5, 7), (4, 8, 16, 16)])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (0.05, 3), (100, -20), (1e-3, 0)])
def test_instance_norm_equals_torchs_on_images_with_contrast(shape, scale, offset):
    x, weights = scale * normal(*shape) + offset, normal(*shape, seed=1)
    theirs = nn.InstanceNorm2d(shape[1], affine=False, track_running_stats=False, eps=EPSILON)
    assert_allclose(InstanceNorm()(x), theirs(x), rtol=1e-5, atol=2e-5)
    assert_allclose(gradient(InstanceNorm(), x, weights), gradient(theirs, x, weights), rtol=1e-4, atol=1e-4 / scale)


def test_instance_norm_is_its_formula():
    x = normal(2, 3, 6, 5) + 2
    assert_allclose(InstanceNorm()(x), standardised(x, (2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 1e4])
def test_instance_norm_of_a_flat_channel_is_zero_and_passes_no_gradient(value):
    x = torch.full((2, 3, 8, 8), value)
    # Rounding, as a convolution of a blank page has it.
    x[:, 1, ::2] *= 1 + 2**-22
    x[:, 2] = normal(2, 8, 8)
    weights = normal(2, 3, 8, 8, seed=1)
    normed, grad = InstanceNorm()(x), gradient(InstanceNorm(), x, weights)
    assert not normed[:, :2].any()
    assert not grad[:, :2].any()
    assert_allclose(normed[:, 2:], standardised(x[:, 2:], (2, 3)), rtol=1e-4, atol=1e-5)
    assert grad[:, 2].abs().min() > 0


def largest_in_chain_of_norms(norm, image, seed=0, layers=20):
    """Return the largest number, gradients included, that a critic-like chain of norms makes of an image."""
    rng = torch.Generator().manual_seed(seed)
    network = nn.Sequential()
    for _ in range(layers):
        network.extend([*reflected_conv(8, 8, 3), norm(), nn.LeakyReLU(0.2)])
        network[-3].weight.data = torch.randn(8, 8, 3, 3, generator=rng) / 8
        network[-3].bias.data = torch.randn(8, generator=rng) / 8
    image = image.clone().requires_grad_()
    y = network(image)
    (y * normal(*y.shape)).sum().backward()
    tensors = [y, image.grad, *(p.grad for p in network.parameters())]
    return max(tensor.abs().nan_to_num(torch.inf).max().item() for tensor in tensors)


@pytest.mark.parametrize("value", [1.0, 0.1, -1.0])
@pytest.mark.parametrize("rounding", [0, 2**-23, 2**-22])
def test_a_blank_image_stays_finite_through_twenty_norms(value, rounding):
    blank = torch.full((1, 8, 16, 16), value)
    blank[..., ::2] *= 1 + rounding
    # Where a convolution's terms cancel, what is left of them is little beside their rounding.
    assert max(largest_in_chain_of_norms(InstanceNorm, blank, seed) for seed in range(10)) < 1e3
    plain = largest_in_chain_of_norms(lambda: nn.InstanceNorm2d(8), blank)
    assert plain > 1e6, "this is not the case that the norm is guarded against"


def test_the_least_contrast_of_an_image_is_no_rounding():
    image = torch.zeros(1, 1, 128, 128)
    # One level of 256 in one pixel, behind a weight of 0.02.
    image[0, 0, 5, 7] = 0.02 / 127.5
    assert InstanceNorm()(image).any()
    assert InstanceNorm()(image - 0.5).any()


def test_instance_norm_hands_on_what_is_not_finite():
    x = normal(1, 2, 4, 4)
    x[0, 0, 0, 0] = torch.nan
    assert InstanceNorm()(x)[0, 0].isnan().all()
    assert InstanceNorm()(x)[0, 1].isfinite().all()


@pytest.mark.parametrize(("layer", "axes"), [(InstanceNorm(), (2, 3)), (LayerNorm(6), (1, 2, 3))])
def test_norms_of_bfloat16_take_their_statistics_in_float32(layer, axes):
    # Of 4,096 numbers near 30, bfloat16 could not even hold the sum to 1 %.
    x = (30 + 4 * normal(2, 6, 64, 64)).bfloat16()
    normed = layer(x).detach()
    assert_allclose(normed.float(), standardised(x.float(), axes), atol=2**-8 * 4)
    assert normed.float().mean(axes).abs().max() < 2e-3


def test_instance_norm_keeps_its_dtype_under_autocast():
    x = normal(1, 2, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert InstanceNorm()(x).dtype == torch.bfloat16


def test_layer_norm_is_its_formula():
    layer, x = LayerNorm(3), normal(2, 3, 5, 4) * 3 + 1
    layer.weight.data, layer.bias.data = normal(3, seed=1), normal(3, seed=2)
    weight, bias = (p.detach().double().numpy()[:, None, None] for p in (layer.weight, layer.bias))
    assert_allclose(layer(x).detach(), standardised(x, (1, 2, 3)) * weight + bias, rtol=1e-5, atol=1e-5)


def test_layer_norm_treats_each_sample_alone():
    layer, x = LayerNorm(3), normal(3, 3, 4, 4)
    alone = torch.cat([layer(sample[None]) for sample in x])
    assert_allclose(layer(x).detach(), alone.detach(), atol=1e-6)


def test_code_becomes_channels_that_are_flat():
    x, z = normal(2, 3, 4, 5), normal(2, 7, seed=1)
    joined = with_code(x, z)
    assert joined.shape == (2, 10, 4, 5)
    assert torch.equal(joined[:, :3], x)
    for row in range(4):
        for column in range(5):
            assert torch.equal(joined[:, 3:, row, column], z)
    assert with_code(x.bfloat16(), z).dtype == torch.bfloat16


def test_linear_heads_stay_float32_under_autocast():
    layer, x = Float32Linear(16, 3), normal(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.float32
    expected = x.bfloat16().double() @ layer.weight.double().T + layer.bias.double()
    assert_allclose(y.detach(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_residual_block_is_its_formula():
    block, x = ResidualBlock(3), normal(1, 3, 6, 5)

    def convolved(values, layer):
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        kernels, biases = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        return np.stack(
            [
                sum(correlate2d(plane, kernel, "valid") for plane, kernel in zip(padded, row, strict=True)) + bias
                for row, bias in zip(kernels, biases, strict=True)
            ]
        )

    first, second = (layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    values = x[0].double().numpy()
    inner = np.maximum(standardised(convolved(values, first), (1, 2)), 0)
    expected = values + standardised(convolved(inner, second), (1, 2))
    assert_allclose(block(x)[0].detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), [(3, 1, None, 12), (7, 1, None, 12), (4, 2, 1, 6)])
def test_reflected_convolutions_have_the_size_they_should(kernel, stride, padding, side):
    layers = nn.Sequential(*reflected_conv(2, 5, kernel, stride, padding))
    assert layers(normal(1, 2, 12, 12)).shape == (1, 5, side, side)
    assert layers[1].padding == (0, 0)


def test_doubling_convolution_doubles():
    assert doubling_conv(4, 3)(normal(1, 4, 5, 7)).shape == (1, 3, 10, 14)


@pytest.mark.parametrize("zero_bias", [False, True])
def test_initial_weights_are_normal_and_only_those_of_convolutions(zero_bias):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(30, 40, 3), doubling_conv(40, 30), nn.Linear(50, 60), LayerNorm(4))
        before = [p.detach().clone() for p in network[2].parameters()]
        biases = [network[0].bias.detach().clone(), network[1].bias.detach().clone()]
        assert initialise(network, zero_bias=zero_bias) is network
    for layer, bias in zip(network[:2], biases, strict=True):
        # 10,800 numbers: the deviation is known to 0.7 %, the mean to 0.0002.
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.04)
        assert abs(layer.weight.mean().item()) < 1e-3
        assert torch.equal(layer.bias, torch.zeros_like(bias) if zero_bias else bias)
    assert all(torch.equal(a, b) for a, b in zip(before, network[2].parameters(), strict=True))
    assert torch.equal(network[3].weight, torch.ones(4))
