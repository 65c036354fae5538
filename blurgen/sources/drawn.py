"""What sources that draw their own images have in common: any number of them, each fixed by the seed and its index."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from blurgen.rng import stream
from blurgen.sources import BadImage, Entry, Picture

_LARGEST_SIDE_PX = 8192
# Their list takes 4 GB then.
_MOST_IMAGES = 20_000_000


@dataclass(frozen=True)
class DrawnSource(ABC):
    """A source of images that are drawn, not read.

    Image i depends on the seed and i alone: the same bytes in any process and any order.
    """

    name: ClassVar[str]
    thing: ClassVar[str]
    licence: ClassVar[str] = "CC0-1.0"
    author: ClassVar[str] = "blurgen"
    least_side_px: ClassVar[int]

    seed: int = 0

    def __post_init__(self) -> None:
        for side in ("width", "height"):
            if not self.least_side_px <= getattr(self, side) <= _LARGEST_SIDE_PX:
                limits = f"{self.least_side_px} to {_LARGEST_SIDE_PX}"
                raise ValueError(f"{side} of a {self.thing} must be {limits} pixels, got {getattr(self, side)}")

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return an image, (height, width, 3) uint8 RGB."""

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return the entries of the first images, each its own group.

        Parameters
        ----------
        count : int, optional
            How many; 1,000 if not given.
        """
        if count is not None and count > _MOST_IMAGES:
            raise ValueError(
                f"at most {_MOST_IMAGES:,} images can be drawn, got {count:,}: cut several crops from each"
            )
        keys = (f"{self.name}/{index:06}" for index in range(1000 if count is None else count))
        return [Entry(key, key, "train") for key in keys]

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) of an image in pixels."""
        self._index(key)
        return self.width, self.height

    def read(self, key: str) -> Picture:
        """Return an image, drawn anew on every call."""
        pixels = self.draw(stream(self.seed, self.name, self._index(key)))
        return Picture(pixels, None, hashlib.sha256(pixels).digest())

    def _index(self, key: str) -> int:
        name, _, digits = key.partition("/")
        if name != self.name or not digits.isdecimal():
            raise BadImage("vanished", f"keys of this source read like {self.name}/000012, got {key}")
        return int(digits)
