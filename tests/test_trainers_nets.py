"""Networks against their published layers, written out as functions of the same parameters."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import instance_norm, leaky_relu, relu
from trainer_data import _quick_convolutions  # noqa: F401

from trainers.blocks import ResidualBlock
from trainers.nets.blur_encoder import BlurEncoder
from trainers.nets.content_encoder import ContentEncoder, content_stem
from trainers.nets.content_generator import ContentGenerator, GeneratorBranch
from trainers.nets.multiscale_critic import MultiscaleCritic
from trainers.nets.patch_critic import PatchCritic
from trainers.nets.resnet_generator import ResnetGenerator

WIDTH, LATENT = 4, 3


class Layers:
    """The layers of a network, in order, each taking the next of its parameters."""

    def __init__(self, network):
        self.left = list(network.parameters())

    def take(self):
        return self.left.pop(0), self.left.pop(0)

    def conv(self, x, stride=1, reflect=0, zeros=0):
        x = F.pad(x, 4 * (reflect,), mode="reflect") if reflect else x
        return F.conv2d(x, *self.take(), stride=stride, padding=zeros)

    def up(self, x):
        return F.conv_transpose2d(x, *self.take(), stride=2, padding=1, output_padding=1)

    def block(self, x):
        inner = relu(instance_norm(self.conv(x, reflect=1)))
        return x + instance_norm(self.conv(inner, reflect=1))

    def layer_norm(self, x):
        scale, shift = self.take()
        return F.layer_norm(x, x.shape[1:]) * scale[:, None, None] + shift[:, None, None]


def with_z(x, z):
    return torch.cat([x, z[:, :, None, None].repeat(1, 1, *x.shape[2:])], 1)


def content_encoder(layers, x):
    x = leaky_relu(layers.conv(x, reflect=3), 0.01)
    for _ in range(2):
        x = relu(instance_norm(layers.conv(x, stride=2, reflect=1)))
    for _ in range(4):
        x = layers.block(x)
    return x


def blur_encoder(layers, x):
    x = layers.conv(x, stride=2, reflect=1)
    for _ in range(3):
        inner = layers.conv(leaky_relu(x, 0.2), reflect=1)
        inner = F.avg_pool2d(layers.conv(leaky_relu(inner, 0.2), reflect=1), 2)
        x = inner + layers.conv(F.avg_pool2d(x, 2))
    pooled = leaky_relu(x, 0.2).mean((2, 3))
    return torch.cat([F.linear(pooled, *layers.take()) for _ in range(2)], 1)


def generator(layers, content, z):
    x = with_z(layers.block(content), z)
    for _ in range(3):
        x = layers.block(x)
    for _ in range(2):
        x = relu(layers.layer_norm(layers.up(with_z(x, z))))
    return F.conv_transpose2d(with_z(x, z), *layers.take()).tanh()


def multiscale_critic(layers, x):
    logits = []
    for scale in range(2):
        # Means over 3 x 3 pixels, of those that are there.
        counts = F.avg_pool2d(torch.ones_like(x), 3, 2, 1)
        x = F.avg_pool2d(x, 3, 2, 1) / counts if scale else x
        y = x
        for _ in range(4):
            y = leaky_relu(layers.conv(y, stride=2, reflect=1), 0.01)
        logits.append(layers.conv(y).flatten())
    return torch.cat(logits)


def resnet_generator(layers, x):
    x = relu(instance_norm(layers.conv(x, reflect=3)))
    for _ in range(2):
        x = relu(instance_norm(layers.conv(x, stride=2, zeros=1)))
    for _ in range(2):
        x = layers.block(x)
    for _ in range(2):
        x = relu(instance_norm(layers.up(x)))
    return layers.conv(x, reflect=3).tanh()


def patch_critic(layers, x):
    x = leaky_relu(layers.conv(x, stride=2, zeros=1), 0.2)
    for stride in (2, 2, 1):
        x = leaky_relu(instance_norm(layers.conv(x, stride=stride, zeros=1)), 0.2)
    return layers.conv(x, zeros=1)


def joined(outputs):
    """Return what a network returns, as one tensor."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    return torch.cat([output.flatten() if isinstance(outputs, list) else output for output in outputs], -1)


IMAGE, CODE, CONTENT = (2, 3, 32, 48), (2, LATENT), (2, 4 * WIDTH, 8, 8)
NETWORKS = {
    "content encoder": (
        lambda: ContentEncoder(content_stem(WIDTH), ResidualBlock(4 * WIDTH)), content_encoder, (IMAGE,)
    ),
    "blur encoder": (lambda: BlurEncoder(WIDTH, LATENT), blur_encoder, (IMAGE,)),
    "generator": (
        lambda: ContentGenerator(ResidualBlock(4 * WIDTH), GeneratorBranch(WIDTH, LATENT)), generator, (CONTENT, CODE)
    ),
    "critic of scales": (lambda: MultiscaleCritic(WIDTH, 2), multiscale_critic, (IMAGE,)),
    "residual generator": (lambda: ResnetGenerator(WIDTH, 2), resnet_generator, (IMAGE,)),
    "patch critic": (lambda: PatchCritic(WIDTH), patch_critic, (IMAGE,)),
}  # fmt: skip


@pytest.mark.parametrize(("build", "written_out", "shapes"), NETWORKS.values(), ids=NETWORKS)
def test_networks_are_their_layers_in_values_and_gradients(build, written_out, shapes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build()
        # Scales and shifts of norms, too, must be where they should.
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    layers = Layers(network)
    ours, theirs = joined(network(*inputs)), written_out(layers, *inputs)
    assert not layers.left
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    weights = torch.linspace(-1, 1, ours.numel()).reshape(ours.shape)
    wanted = [*inputs, *network.parameters()]
    found, expected = (torch.autograd.grad((output * weights).sum(), wanted) for output in (ours, theirs))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3 * max(1.0, other.abs().max().item()))
