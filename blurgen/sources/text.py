"""The source `text`: document pages that are drawn, not read."""

import hashlib
import threading
from dataclasses import dataclass

from blurgen.rng import stream
from blurgen.sources import BadImage, Entry, Picture
from blurgen.sources.pages.fonts import Family, bundled_families, families_in
from blurgen.sources.pages.layouts import draw_page

_LEAST_SIDE_PX = 256
_LARGEST_SIDE_PX = 8192
_drawing = threading.Lock()  # pages share glyph cells and matplotlib's parser and settings, which bear one thread only


@dataclass(frozen=True)
class TextSource:
    """Document pages set in varied fonts, layouts, inks and papers; any number of them.

    Page i depends on the seed and i alone: the same bytes in any process and any order.

    Parameters
    ----------
    seed : int
        Another seed gives other pages.
    fonts : str, optional
        A folder of .ttf and .otf files to set the text in, instead of the fonts that matplotlib brings along
        (formulas keep those).
    width, height : int
        Size of a page in pixels, 256 to 8192; type and margins are in proportion to it.

    Raises
    ------
    ValueError
        If a size is out of range.
    """

    seed: int = 0
    fonts: str | None = None
    width: int = 1024
    height: int = 1448

    name = "text"
    licence = "CC0-1.0"
    author = "blurgen"

    def __post_init__(self):
        for side in ("width", "height"):
            if not _LEAST_SIDE_PX <= getattr(self, side) <= _LARGEST_SIDE_PX:
                limits = f"{_LEAST_SIDE_PX} to {_LARGEST_SIDE_PX}"
                raise ValueError(f"{side} of a page must be {limits} pixels, got {getattr(self, side)}")

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return the entries of the first pages, each its own group.

        Parameters
        ----------
        count : int, optional
            How many pages; 1,000 if not given.
        """
        keys = (f"text/{index:06}" for index in range(1000 if count is None else count))
        return [Entry(key, key, "train") for key in keys]

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) of a page in pixels."""
        self._index(key)
        return self.width, self.height

    def read(self, key: str) -> Picture:
        """Return a page, (height, width, 3) uint8 RGB, drawn anew on every call; threads take turns."""
        rng = stream(self.seed, "text", self._index(key))
        with _drawing:
            pixels = draw_page(rng, self._families(), self.width, self.height)
        return Picture(pixels, None, hashlib.sha256(pixels).digest())

    def _families(self) -> tuple[Family, ...]:
        return bundled_families() if self.fonts is None else families_in(self.fonts)

    def _index(self, key: str) -> int:
        name, _, digits = key.partition("/")
        if name != self.name or not digits.isdecimal():
            raise BadImage("vanished", f"keys of this source read like text/000012, got {key}")
        return int(digits)
