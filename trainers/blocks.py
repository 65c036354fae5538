"""Layers and residual blocks that several networks are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON, LEAST_RANGE = 1e-5, 1e-5


class InstanceNorm(nn.Module):
    """Instance normalisation without affine parameters and running statistics: each channel to mean 0, variance 1.

    Where a channel is flat but for rounding, as on a blank page, the output is 0 and no gradient passes: the formula
    would multiply rounding, and the gradient, by 1 / sqrt(eps) = 316 in each of a chain of norms. Statistics are
    accumulated in float32 under any input dtype.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W), normalised over H and W, of the same dtype."""
        batch, channels, height, width = x.shape
        with torch.no_grad():
            varied = varies(*x.reshape(batch * channels, -1).aminmax(dim=1))
        planes = x.reshape(1, batch * channels, height, width)
        # Batch normalisation of one image whose channels are all planes: one fused kernel, and a weight per plane.
        return F.batch_norm(planes, None, None, weight=varied, training=True, eps=EPSILON).view_as(x)


def varies(least: Tensor, most: Tensor) -> Tensor:
    """Return 1 where the extremes of a channel differ by more than rounding, and 0 where it is flat, float32.

    Rounding is relative to what a convolution adds up, which can be far more than what is left of it. So a range is
    none, too, that is too small for the formula to make anything of: below 1e-5, whose output is below 0.004.
    """
    rounding = 8 * torch.finfo(least.dtype).eps * torch.maximum(least.abs(), most.abs())
    return (most - least > rounding.clamp_min(LEAST_RANGE)).float()


class LayerNorm(nn.Module):
    """Layer normalisation over (C, H, W) of each sample, with a scale and a shift per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W), normalised."""
        return F.group_norm(x, 1, self.weight, self.bias, EPSILON)


class Float32Linear(nn.Linear):
    """A linear layer in float32, under autocast, too."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, n) times the weight, plus the bias, float32."""
        # The meta device, on which sizes are found without computing, knows no autocast.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            return super().forward(x.float())


class Slope(nn.Module):
    """The length of a gradient, over all colours, from its two directions."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (B, 1, H, W) from the differences (B, C, H, W) along both axes."""
        # At 0 the root alone would have no gradient.
        return (x.square() + y.square()).mean(1, keepdim=True).add(EPSILON).sqrt()


class Luma(nn.Module):
    """The gray of sRGB images, with the weights of BT.601, of the values as they are encoded."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 1, H, W) of x (B, 3, H, W), in the same range."""
        return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


class Channels(nn.Module):
    """The channels from `first` to `last` (excluded) of a map."""

    def __init__(self, first: int, last: int):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, last - first, H, W) of x (B, C, H, W)."""
        return x[:, self.first : self.last]


class OneHot(nn.Module):
    """A channel for each of the ids 0 ... `classes` - 1, 1 where that is the id and else 0; other ids have none."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def forward(self, ids: Tensor) -> Tensor:
        """Return (B, classes, H, W) of ids (B, 1, H, W), of their dtype."""
        known = torch.arange(self.classes, device=ids.device, dtype=ids.dtype)
        return (ids == known[:, None, None]).to(ids.dtype)


LAYERS = (InstanceNorm, LayerNorm, Float32Linear, Slope, Luma, Channels, OneHot)
"""The layers of this file that are no compositions of others."""


def reflected_conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None) -> list:
    """Return reflection padding (half the kernel unless given) and a convolution."""
    padding = kernel // 2 if padding is None else padding
    return [nn.ReflectionPad2d(padding), nn.Conv2d(inputs, outputs, kernel, stride)]


def doubling_conv(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return the transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


def dropped(x: Tensor, kept: Tensor | None, rate: float) -> Tensor:
    """Return x, zero where `kept` (bool, of its shape) is false, else over 1 - rate; x as it is where that is None."""
    return x if kept is None else x * kept / (1 - rate)


class ResidualBlock(nn.Module):
    """x + norm(conv(drop(relu(norm(conv(x)))))), 3x3 with reflection; nothing after the sum.

    Parameters
    ----------
    channels : int
    dropout : float
        Share of the values that are dropped.
    """

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.first = nn.Sequential(*reflected_conv(channels, channels, 3), InstanceNorm(), nn.ReLU())
        self.second = nn.Sequential(*reflected_conv(channels, channels, 3), InstanceNorm())

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return (B, C, H, W) of the shape of x; `kept`, of this shape, too, says which values are not dropped."""
        return x + self.second(dropped(self.first(x), kept, self.dropout))


def with_code(x: Tensor, z: Tensor) -> Tensor:
    """Return x (B, C, H, W) with the code z (B, n) spread over its pixels as further channels, (B, C + n, H, W)."""
    spread = z.to(x.dtype)[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3])
    return torch.cat((x, spread), 1)


def initialise(module: nn.Module, deviation: float = 0.02, zero_bias: bool = False) -> nn.Module:
    """Draw the weights of all convolutions from N(0, deviation²), leave or zero their biases; return the module."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, deviation)
            if zero_bias and layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
