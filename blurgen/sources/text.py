"""The source `text`: document pages that are drawn, not read."""

import threading
from dataclasses import dataclass

import numpy as np

from blurgen.sources.drawn import DrawnSource
from blurgen.sources.pages.fonts import Family, bundled_families, families_in
from blurgen.sources.pages.layouts import draw_page

_drawing = threading.Lock()  # pages share glyph cells and matplotlib's parser and settings, which bear one thread only


@dataclass(frozen=True)
class TextSource(DrawnSource):
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
    plain : bool
        Black and greys on white, as scanned or printed without colour, instead of drawn inks and papers.

    Raises
    ------
    ValueError
        If a size is out of range.
    """

    name = "text"
    thing = "page"
    least_side_px = 256

    fonts: str | None = None
    width: int = 1024
    height: int = 1448
    plain: bool = False

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return a page, (height, width, 3) uint8 RGB; threads take turns."""
        with _drawing:
            return draw_page(rng, self._families(), self.width, self.height, self.plain)

    def _families(self) -> tuple[Family, ...]:
        return bundled_families() if self.fonts is None else families_in(self.fonts)
