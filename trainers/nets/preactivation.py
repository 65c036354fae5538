"""Residual blocks whose norms stand first, and the spatial feature transform that a condition works through.

He et al. 2016, Identity Mappings in Deep Residual Networks; Wang et al. 2018, Recovering Realistic Texture in Image
Super-resolution by Deep Spatial Feature Transform.
"""

import torch
from torch import Tensor, nn

from trainers.blocks import Channels, InstanceNorm, OneHot, Slope, dropped, reflected_conv

CONDITION_CHANNELS = 32
CONDITION_INNER_CHANNELS = 128


class FeatureTransform(nn.Module):
    """x (1 + scale(c)) + shift(c), pixel by pixel, of features x and a condition c."""

    def __init__(self, channels: int, condition_channels: int):
        super().__init__()
        self.scale, self.shift = (
            nn.Sequential(
                nn.Conv2d(condition_channels, condition_channels, 1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(condition_channels, channels, 1),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return (B, C, H, W) of the shape of x, given (B, condition_channels, H, W)."""
        return x * (1 + self.scale(condition)) + self.shift(condition)


class PreactivationBlock(nn.Module):
    """x + conv(relu(norm(drop(conv(relu(norm(x))))))), 3x3 with reflection.

    Parameters
    ----------
    channels : int
    dropout : float
        Share of the values that are dropped.
    condition_channels : int
        Of the condition by which both norms are followed; 0 where there is none.
    """

    def __init__(self, channels: int, dropout: float = 0.0, condition_channels: int = 0):
        super().__init__()
        self.dropout = dropout
        self.norms = nn.ModuleList(InstanceNorm() for _ in range(2))
        self.convs = nn.ModuleList(nn.Sequential(nn.ReLU(), *reflected_conv(channels, channels, 3)) for _ in range(2))
        self.transforms = nn.ModuleList(
            FeatureTransform(channels, condition_channels) for _ in range(2 if condition_channels else 0)
        )

    def forward(self, x: Tensor, kept: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Return (B, C, H, W) of the shape of x; `kept`, of this shape, too, says which values are not dropped."""
        first = self._convolved(0, x, condition)
        return x + self._convolved(1, dropped(first, kept, self.dropout), condition)

    def _convolved(self, number: int, x: Tensor, condition: Tensor | None) -> Tensor:
        x = self.norms[number](x)
        if condition is not None:
            x = self.transforms[number](x, condition)
        return self.convs[number](x)


class ColorsAndSlope(nn.Module):
    """What an image tells of itself: its colours and how steep they are."""

    channels = 4

    def __init__(self):
        super().__init__()
        # The mean of a pixel and the next, less the pixel, is half the difference: of layers that know their edges.
        self.right = nn.Sequential(nn.ReflectionPad2d((0, 1, 0, 0)), nn.AvgPool2d((1, 2), 1))
        self.below = nn.Sequential(nn.ReflectionPad2d((0, 0, 0, 1)), nn.AvgPool2d((2, 1), 1))
        self.slope = Slope()

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, 4, H, W) of (B, 3, H, W)."""
        return torch.cat((image, self.slope(self.right(image) - image, self.below(image) - image)), 1)


def condition_of(guide: str | None, classes: int) -> nn.Sequential:
    """Return images to the condition (B, 32, H/4, W/4).

    Parameters
    ----------
    guide : str or None
        What is read: the image itself, (B, 3, H, W), or what lies behind its colours: with "label" ids of classes in
        one channel, with "prior" the probabilities of each.
    classes : int
        Their number; ids from there on count as no class.
    """
    if guide is None:
        return nn.Sequential(prior := ColorsAndSlope(), condition_net(prior.channels))
    if guide == "label":
        return nn.Sequential(Channels(3, 4), OneHot(classes), condition_net(classes))
    return nn.Sequential(Channels(3, 3 + classes), condition_net(classes))


def condition_net(channels: int) -> nn.Sequential:
    """Return (B, channels, H, W) to the condition (B, 32, H/4, W/4) that all transforms of a network share."""
    inner = CONDITION_INNER_CHANNELS
    layers = [nn.Conv2d(channels, inner, 4, stride=4), nn.LeakyReLU(0.1)]
    for _ in range(3):
        layers += [nn.Conv2d(inner, inner, 1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Conv2d(inner, CONDITION_CHANNELS, 1))


def begin_as_identity(network: nn.Module) -> nn.Module:
    """Let all feature transforms of a network do nothing at first; return it."""
    for layer in network.modules():
        if isinstance(layer, FeatureTransform):
            for last in (layer.scale[-1], layer.shift[-1]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
    return network
