"""Tiny systems, images and batches for the tests of `trainers`, and what is counted while they run."""

import dataclasses
from collections import Counter
from contextlib import contextmanager
from itertools import chain, islice

import pytest
import torch
from torch import nn

from blurgen.options import build
from trainers.method import Batch, Context
from trainers.models import MODELS, method_class
from trainers.noise import Noise

CPU = torch.device("cpu")
# Tests of the loop add a system of their own to the table; what learns from one image has tests of its own.
SYSTEMS = tuple(
    name for name, target in MODELS.items() if target.startswith("trainers.") and method_class(name).pairing != "single"
)
TINY = {"width": 4, "batch": 2, "crop": 32, "scales": 2, "blocks": 2}
FEATURES = "features"


class Features(nn.Module):
    """Two frozen layers in the place of VGG-19's."""

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterList(
            torch.randn(8, channels, 3, 3, generator=rng) / (3 * channels**0.5) for channels in (3, 8)
        )
        self.requires_grad_(False)

    def forward(self, images):
        first, second = self.weights
        return torch.conv2d(torch.conv2d(images, first, stride=2).relu(), second, stride=2)


def tiny_config(name, **changes):
    """Return the Config of a system at a size for tests, with `changes`."""
    config = method_class(name).Config
    fields = {field.name for field in dataclasses.fields(config)}
    return build(config, {field: value for field, value in TINY.items() if field in fields} | changes)


def tiny(name, seed=0, **changes):
    """Return a system at a size for tests, with the features of VGG-19 replaced where it needs any."""
    system, config = method_class(name), tiny_config(name, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return system(config, Context(CPU, Features() if system.needs_features(config) else None))


def rescaled(method):
    """Return `method` with the weights of its convolutions scaled so that they keep the variance at any width.

    N(0, 0.02²) does that at the published widths; networks as narrow as these would hand on next to nothing.
    """
    for layer in method.networks.modules():
        # What begins at zero on purpose stays there.
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.weight.any():
            transposed = isinstance(layer, nn.ConvTranspose2d)
            inputs = layer.weight[:, 0].numel() / layer.stride[0] ** 2 if transposed else layer.weight[0].numel()
            layer.weight.data *= inputs**-0.5 / layer.weight.std()
    return method


def noise(step=0, samples=(0, 1), seed=0):
    """Return the random numbers of a step."""
    return Noise(seed, step, tuple(samples), CPU)


def batch_of(config, step=0, seed=0, paired=False):
    """Return a batch of black and white squares on tints: sharp ones, and blurred ones of others or the same.

    Where the system enlarges, blurred images are smaller by its scale. A system that maps guide is given some.
    """
    rng = torch.Generator().manual_seed(seed)
    size, side = config.batch, config.fed_crop
    squares = torch.rand(2, size, 1, 4, 4, generator=rng).round().mul(1.4).sub(0.7)
    tints = torch.rand(2, size, 3, 1, 1, generator=rng).mul(0.4).sub(0.2)
    sharp = nn.functional.interpolate(squares[0], side, mode="nearest") + tints[0]
    source, tint = (squares[0], tints[0]) if paired else (squares[1], tints[1])
    blurred = nn.functional.interpolate(source, side // getattr(config, "scale", 1), mode="bilinear") + tint
    return Batch(sharp, blurred, noise(step, range(size)), **guides_of(config, rng))


def guides_of(config, rng):
    """Return the maps of a batch by name: squares of 4 x 4 px with an id, or with probabilities of classes, each."""
    kind, side = getattr(config, "guide", None), config.fed_crop
    if kind is None:
        return {}
    squares = torch.rand(2, config.batch, config.classes, side // 4, side // 4, generator=rng).mul(6).softmax(2)
    if kind == "label":
        squares = squares.argmax(2, keepdim=True).float()
    return dict(
        zip(("sharp_guide", "blurred_guide"), squares.repeat_interleave(4, 3).repeat_interleave(4, 4), strict=True)
    )


@contextmanager
def counted_calls(method):
    """Context in which the forward calls of each network, and of the features, are counted."""
    calls, networks = Counter(), dict(method.networks)
    if method.context.features is not None:
        networks[FEATURES] = method.context.features
    handles = [
        network.register_forward_hook(lambda *_, name=name: calls.update([name])) for name, network in networks.items()
    ]
    yield calls
    for handle in handles:
        handle.remove()


def values(module):
    """Return copies of the parameters by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def changed(method, before):
    """Return the names of the networks of which any parameter differs from `before`, as from `values`."""
    now = values(method.networks)
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], now[name])}


def gradient_norms(parts, loss):
    """Return part -> norm of the gradient of `loss` in its parameters; 0 where autograd finds no way to any of them."""
    own = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    found = iter(torch.autograd.grad(loss, list(chain(*own.values())), retain_graph=True, allow_unused=True))
    norms = {}
    for name, parameters in own.items():
        reached = [grad.flatten() for grad in islice(found, len(parameters)) if grad is not None]
        norms[name] = torch.cat(reached).norm().item() if reached else 0.0
    return norms


def assert_trains_alone(trained, parts, loss, whole):
    """Fail unless `loss` has a gradient in the parts named `trained`, beside that of the `whole`, and in no other."""
    of_whole = gradient_norms(parts, whole)
    for name, norm in gradient_norms(parts, loss).items():
        if name in trained:
            assert norm > 1e-4 * of_whole[name] > 0, name
        else:
            assert norm == 0, name


@pytest.fixture(autouse=True)
def _quick_convolutions(monkeypatch):
    """Convolve without oneDNN, which takes twice the time for images this small; import the fixture to have it."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def purposes_of(law, monkeypatch):
    """Return a list that gathers the purposes of all draws from a law of `Noise`, ``"uniform"`` or ``"normal"``."""
    purposes, draw = [], getattr(Noise, law)

    def watched(self, purpose, *shape):
        purposes.append(purpose)
        return draw(self, purpose, *shape)

    monkeypatch.setattr(Noise, law, watched)
    return purposes


def disentangled_parts(net):
    """Return encoders and generators of a disentangled system: modules that hold every parameter once, by name."""
    return {
        "stem of sharp": net["content_sharp"].stem,
        "stem of blurred": net["content_blurred"].stem,
        "shared encoder blocks": net["content_sharp"].shared,
        "blur encoder": net["blur_encoder"].features,
        "head of the mean": net["blur_encoder"].mean,
        "head of the variance": net["blur_encoder"].log_variance,
        "shared generator block": net["generator_sharp"].shared,
        "branch of sharp": net["generator_sharp"].branch,
        "branch of blurred": net["generator_blurred"].branch,
    }
