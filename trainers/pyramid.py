"""Image pyramids: how many scales an image has, their sizes, and images resized to them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# A size that is whole but for rounding is that size.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Pyramid:
    """The scales of one image.

    Attributes
    ----------
    height, width : int
        Of the finest scale, px.
    ratio : float
        r, by which the sides of a scale are smaller than those of the next.
    scales : int
        How many there are, two at least.
    """

    height: int
    width: int
    ratio: float
    scales: int

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every scale, px, the coarsest first."""
        return tuple(self.size_below(self.height, self.width, self.scales - 1 - i) for i in range(self.scales))

    def size_below(self, height: int, width: int, steps: int) -> tuple[int, int]:
        """Return the size `steps` scales below that of an image of any size: r^steps of its sides, rounded up."""
        return _shrunk(height, width, self.ratio**steps)

    def finest_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of an image of any size whose longer side is that of the finest scale."""
        return _shrunk(height, width, max(self.height, self.width) / max(height, width))


def pyramid_of(height: int, width: int, coarsest_px: int = 25, finest_px: int = 250, wanted: float = 0.75) -> Pyramid:
    """Return the pyramid that SinGAN makes of an image of (height, width) px.

    The image is made smaller first, where its longer side is above `finest_px`. With r0 the `wanted` ratio, there are
    ceil(log_r0(coarsest / min(H, W))) + 1 - ceil(log_r0(min(finest / max(H, W), 1))) steps down from there, and the
    ratio is such that the last of them arrives at a shorter side of `coarsest_px`.

    Raises
    ------
    ValueError
        An image whose shorter side is then not above `coarsest_px`.

    References
    ----------
    Shaham, Dekel, Michaeli, "SinGAN: learning a generative model from a single natural image", ICCV 2019; the number
    of scales is that of its public code.

    Examples
    --------
    >>> pyramid_of(720, 1280).sizes[0], pyramid_of(720, 1280).sizes[-1]
    ((25, 45), (141, 250))
    """
    first = min(1.0, finest_px / max(height, width))
    finest = _shrunk(height, width, first)
    if min(finest) <= coarsest_px:
        raise ValueError(
            f"an image must have a shorter side above {coarsest_px} px where its longer side is at most {finest_px} "
            f"px, and one of {width}x{height} px has {min(finest)}: take another image, a lower --coarsest or a "
            "higher --crop"
        )
    steps = _logarithm(coarsest_px / min(height, width), wanted) + 1 - _logarithm(first, wanted)
    return Pyramid(*finest, (coarsest_px / min(finest)) ** (1 / steps), steps + 1)


def _logarithm(value: float, base: float) -> int:
    return math.ceil(math.log(value, base) - _ROUNDING)


def _shrunk(height: int, width: int, factor: float) -> tuple[int, int]:
    return tuple(max(1, math.ceil(side * factor - _ROUNDING)) for side in (height, width))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (B, 3, H, W) at another size: bicubic (a = -1/2), without aliasing, by sRGB values."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)


def resized_colors(colors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) uint8 at another size, as `resized` has it."""
    values = torch.from_numpy(np.ascontiguousarray(colors)).permute(2, 0, 1)[None].float()
    return resized(values, size)[0].permute(1, 2, 0).round().clamp(0, 255).numpy().astype(np.uint8)
