"""The source `leaves`: scenes of occluding things with the statistics of photographs, drawn, not read."""

import hashlib
from dataclasses import dataclass

from blurgen.rng import stream
from blurgen.sources import BadImage, Entry, Picture
from blurgen.sources.scenes.scene import draw_scene

_LEAST_SIDE_PX = 64
_LARGEST_SIDE_PX = 8192


@dataclass(frozen=True)
class LeavesSource:
    """Dead-leaves scenes: textured things in front of one another, under a sky or not; any number of them.

    Scene i depends on the seed and i alone: the same bytes in any process and any order.

    Parameters
    ----------
    seed : int
        Another seed gives other scenes.
    width, height : int
        Size of a scene in pixels, 64 to 8192.

    Raises
    ------
    ValueError
        If a size is out of range.
    """

    seed: int = 0
    width: int = 512
    height: int = 512

    name = "leaves"
    licence = "CC0-1.0"
    author = "blurgen"

    def __post_init__(self):
        for side in ("width", "height"):
            if not _LEAST_SIDE_PX <= getattr(self, side) <= _LARGEST_SIDE_PX:
                limits = f"{_LEAST_SIDE_PX} to {_LARGEST_SIDE_PX}"
                raise ValueError(f"{side} of a scene must be {limits} pixels, got {getattr(self, side)}")

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return the entries of the first scenes, each its own group.

        Parameters
        ----------
        count : int, optional
            How many scenes; 1,000 if not given.
        """
        keys = (f"leaves/{index:06}" for index in range(1000 if count is None else count))
        return [Entry(key, key, "train") for key in keys]

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) of a scene in pixels."""
        self._index(key)
        return self.width, self.height

    def read(self, key: str) -> Picture:
        """Return a scene, (height, width, 3) uint8 RGB, drawn anew on every call."""
        pixels = draw_scene(stream(self.seed, "leaves", self._index(key)), self.width, self.height)
        return Picture(pixels, None, hashlib.sha256(pixels).digest())

    def _index(self, key: str) -> int:
        name, _, digits = key.partition("/")
        if name != self.name or not digits.isdecimal():
            raise BadImage("vanished", f"keys of this source read like leaves/000012, got {key}")
        return int(digits)
