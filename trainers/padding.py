"""Images between files and networks: integers to [-1, 1] and back, padded to a size that a network takes."""

import numpy as np
import torch
from torch import Tensor

from blurgen.maps import PRIOR_FACTOR

LEAST_SIDE_PX = 64
"""Smaller images are padded: some paddings inside the networks need a larger side than their own width."""


def reflected(positions: np.ndarray, length: int) -> np.ndarray:
    """Return where `positions` along an axis of `length` px fall when it is mirrored at its ends, again and again.

    The end pixels are not repeated: -1 falls on 1, and of a single pixel all fall on it.

    Examples
    --------
    >>> reflected(np.arange(-2, 7), 3)
    array([2, 1, 0, 1, 2, 1, 0, 1, 2])
    """
    if length == 1:
        return np.zeros_like(positions)
    folded = np.abs(positions) % (2 * length - 2)
    return np.minimum(folded, 2 * length - 2 - folded)


class PaddedImage:
    """An image as a network takes it, made in the parts that are asked for.

    It is mirrored at its right and lower end up to the next multiple, and to 64 px at least.

    Parameters
    ----------
    colors : (H, W, 3) uint8 or uint16
        RGB.
    multiple : int
        Of which the sides of the padded image are multiples.
    device : torch.device
        Where the parts lie.
    guide : ndarray, optional
        What goes in behind the colours: ids (H, W) uint8, or probabilities (K, H/4, W/4), rounded up, each for 4 x 4
        px.
    """

    def __init__(self, colors: np.ndarray, multiple: int, device: torch.device, guide: np.ndarray | None = None):
        self._colors, self.device, self._guide = colors, device, guide
        self._half = np.float32(np.iinfo(colors.dtype).max / 2)
        self.height, self.width = (-(-max(side, LEAST_SIDE_PX) // multiple) * multiple for side in colors.shape[:2])

    def part(self, top: int, bottom: int, left: int = 0, right: int | None = None) -> Tensor:
        """Return rows `top` to `bottom` (excluded), and columns likewise, as (1, 3, h, w) float32 in [-1, 1].

        The channels of the guide follow: ids as they are, probabilities in [0, 1].
        """
        height, width = self._colors.shape[:2]
        rows = reflected(np.arange(top, bottom), height)
        columns = reflected(np.arange(left, self.width if right is None else right), width)
        part = self._colors[rows][:, columns]
        values = torch.from_numpy(part.astype(np.float32) / self._half - np.float32(1))
        colors = values.to(self.device).permute(2, 0, 1)[None].contiguous()
        if self._guide is None:
            return colors
        return torch.cat((colors, torch.from_numpy(self._guiding(rows, columns)).to(self.device)), 1)

    def _guiding(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the guide (1, C, h, w) float32 of some rows and columns of the image."""
        if self._guide.ndim == 2:
            return self._guide[rows][:, columns][None, None].astype(np.float32)
        places = self._guide[:, rows // PRIOR_FACTOR][:, :, columns // PRIOR_FACTOR]
        return places[None].astype(np.float32)

    def whole(self) -> Tensor:
        """Return all of it, (1, 3, height, width)."""
        return self.part(0, self.height)


class RestoredImage:
    """The pixels of a result, filled in part by part; what lies in the padding is dropped.

    Parameters
    ----------
    colors : (H, W, 3) uint8 or uint16
        The image that is restored.
    scale : int
        How many times larger the result is.
    """

    def __init__(self, colors: np.ndarray, scale: int):
        height, width = colors.shape[:2]
        self.pixels = np.empty((scale * height, scale * width, 3), colors.dtype)

    def fill(self, top: int, values: Tensor) -> None:
        """Take rows from `top` on, (1, 3, h, w) in [-1, 1]; the levels are round(clip((y + 1) * highest / 2))."""
        height, width = self.pixels.shape[:2]
        highest = np.iinfo(self.pixels.dtype).max
        kept = values[0, :, : max(0, height - top), :width].float()
        levels = ((kept + 1) * (highest / 2)).clamp(0, highest).round().permute(1, 2, 0)
        self.pixels[top : top + levels.shape[0]] = levels.cpu().numpy()
