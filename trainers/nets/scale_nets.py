"""The two networks of one scale of SinGAN: five 3x3 convolutions without padding, batch norms in between."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.blocks import initialise

RADIUS_PX = 5
"""How far an output pixel sees, px: it and its critic judge patches of 11 x 11."""


def _layers(width: int, outputs: int, *ends: nn.Module) -> nn.Sequential:
    """Return the layers of a scale; weights of convolutions are drawn from N(0, 0.02²), of norms from N(1, 0.02²)."""
    layers: list[nn.Module] = []
    for inputs in (3, width, width, width):
        layers += [nn.Conv2d(inputs, width, 3), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
    network = initialise(nn.Sequential(*layers, nn.Conv2d(width, outputs, 3), *ends))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    return network


class ScaleGenerator(nn.Module):
    """What a scale adds to the enlarged image of the scale below.

    Parameters
    ----------
    width : int
        Channels of every layer.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = _layers(width, 3, nn.Tanh())

    def forward(self, noise: Tensor, below: Tensor) -> Tensor:
        """Return below + tanh(net(noise + below)) of images (B, 3, H, W), both with zeros around them."""
        return below + self.layers(F.pad(noise + below, [RADIUS_PX] * 4))

    def in_strips(self, noise: Tensor, below: Tensor, rows: int) -> Tensor:
        """Return the same in little memory, `rows` rows at a time; only in evaluation mode, where pixels are apart."""
        if torch.compiler.is_compiling():
            # A graph for images of any size can have no number of strips.
            return self(noise, below)
        padded, strips = F.pad(noise + below, [RADIUS_PX] * 4), []
        for top in range(0, below.shape[2], rows):
            bottom = min(top + rows, below.shape[2])
            strips.append(below[:, :, top:bottom] + self.layers(padded[:, :, top : bottom + 2 * RADIUS_PX]))
        return torch.cat(strips, 2)


class ScaleCritic(nn.Module):
    """A judge of the patches of one scale.

    Parameters
    ----------
    width : int
        Channels of every layer.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = _layers(width, 1)
        # It cancels in the difference between real and fake.
        self.layers[-1].bias.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 1, H - 10, W - 10) of images (B, 3, H, W) of at least 11 px."""
        return self.layers(image)
