"""Which crop of which image is seen when: the endless sequence of a domain, a pure function of the seed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from blurgen.rng import stream
from blurgen.shards import Shards
from blurgen.shards.layout import Item

_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Images:
    """The array `array` of the samples `samples` (n,) of `shards`.

    Images (side, side, 3) uint8 sRGB, or maps that guide: labels (side, side) uint8, priors (K, side, side) float16.
    """

    shards: Shards
    array: str
    samples: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def item(self) -> Item:
        """Shape and dtype of one of them."""
        return self.shards.layout.arrays[self.array]

    @property
    def side(self) -> int:
        """Side of an image in px."""
        return self.item.shape[-2]

    @property
    def channels(self) -> int:
        """Colours of an image, 1 for a label, classes of a prior."""
        return self.item.nbytes // (self.side**2 * self.item.dtype.itemsize)

    @property
    def factor(self) -> int:
        """How many times smaller it is than the images at full resolution."""
        return self.shards.layout.crop // self.side

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return len(self) * self.item.nbytes

    def read(self, row: int, out: np.ndarray) -> np.ndarray:
        """Return image `row`, in `out`."""
        return self.shards.read(self.array, int(self.samples[row]), out)


class Cuts(NamedTuple):
    """What is cut out of which image, (B,) each.

    Attributes
    ----------
    rows : ndarray of int64
        Numbers of the images.
    y, x : ndarray of int64
        Upper left corner, px at full resolution.
    flip : ndarray of bool
        Whether the crop is mirrored, left to right.
    """

    rows: np.ndarray
    y: np.ndarray
    x: np.ndarray
    flip: np.ndarray


class Order:
    """The sequence of cuts of one domain: a chain of passes, each a permutation of all images.

    A position's corner and flip are drawn for the position, whatever image stands there.

    Parameters
    ----------
    seed : int
        Of the run.
    name : str
        Of the domain; the two sides of a pair share one Order.
    count : int
        Number of images.
    slack : int
        Side of the images minus that of the crops, px at full resolution.
    grid : int
        Corners are multiples of it, so that low-resolution variants can be cut at the same place.
    flips : bool
        Whether crops are mirrored at random.

    Examples
    --------
    >>> order = Order(seed=0, name="sharp", count=3, slack=128, grid=1, flips=True)
    >>> sorted(order.cuts(3, 3).rows.tolist())
    [0, 1, 2]
    >>> bool(order.cuts(0, 6).x[4] == order.cuts(4, 1).x[0])
    True
    """

    def __init__(self, seed: int, name: str, count: int, slack: int, grid: int, flips: bool):
        self.seed, self.name, self.count = seed, name, count
        self.slack, self.grid, self.flips = slack, grid, flips
        # A step lies in a few passes, and the threads of a feed are a few steps apart.
        self._permutation = lru_cache(maxsize=4)(self._permutation)
        self._drawn = lru_cache(maxsize=8)(self._drawn)

    def cuts(self, start: int, count: int) -> Cuts:
        """Return the cuts at positions `start` to `start + count`."""
        positions = np.arange(start, start + count)
        rows = _looked_up(self._permutation, self.count, positions)
        drawn = _looked_up(self._drawn, _BLOCK, positions)
        corners = (drawn[:, :2] * (self.slack // self.grid + 1)).astype(np.int64) * self.grid
        return Cuts(rows, corners[:, 0], corners[:, 1], (drawn[:, 2] < 0.5) & self.flips)

    def _permutation(self, number: int) -> np.ndarray:
        """Return the images (count,) of one pass."""
        return stream(self.seed, self.name, "order", number).permutation(self.count)

    def _drawn(self, number: int) -> np.ndarray:
        """Return three numbers in [0, 1) for each position of a block; a stream for each would cost more than all."""
        return stream(self.seed, self.name, "cut", number).random((_BLOCK, 3))


def _looked_up(block: Callable[[int], np.ndarray], size: int, positions: np.ndarray) -> np.ndarray:
    """Return the rows at ascending `positions` of a table that is made in blocks of `size` rows."""
    numbers, places = np.divmod(positions, size)
    return np.concatenate([block(int(number))[places[numbers == number]] for number in np.unique(numbers)])
