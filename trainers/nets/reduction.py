"""Reduction as `blurgen make --lowres` does it, as a layer that gradients pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reduction(nn.Module):
    """Means over squares in linear light, of sRGB images: anti-aliased, without a shift.

    Parameters
    ----------
    factor : int
        How many times smaller; height and width must be multiples of it.
    """

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H / factor, W / factor) float32 of images (B, C, H, W), both in [-1, 1]."""
        light = linear_light((image.float() + 1) / 2)
        return 2 * encoded(F.avg_pool2d(light, self.factor)) - 1


def linear_light(values: Tensor) -> Tensor:
    """Return the light of sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(light: Tensor) -> Tensor:
    """Return the sRGB values of light, both in [0, 1] (IEC 61966-2-1)."""
    # Where the power is not taken its gradient must be finite, too.
    curved = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, curved)
