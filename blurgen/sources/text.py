"""The source `text`: document pages that are drawn, not read."""

import hashlib
import threading
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from blurgen.options import nearest
from blurgen.rng import stream
from blurgen.sources import Picture
from blurgen.sources.drawn import DrawnSource
from blurgen.sources.pages.fonts import Family, families_in, families_of
from blurgen.sources.pages.layouts import LAYOUTS, draw_page
from blurgen.sources.pages.page import Page
from blurgen.sources.pages.writing import LATIN, SCRIPTS
from blurgen.words import Words

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
    layout : str, optional
        One kind of page alone, such as ``book``, ``letter``, ``article`` or ``receipt``.
    letters : float
        Size of the type, relative to what is usual on such a page, 0.25 to 8.
    script : str
        Letters of the words (formulas keep theirs): ``latin``, ``greek``, ``cyrillic``, ``armenian``, ``georgian``,
        or ``hiragana``, which matplotlib's fonts lack: it needs `fonts`.

    Raises
    ------
    ValueError
        If a size is out of range, there is no such kind of page or script, or no font with the letters of that.
    """

    name = "text"
    knows_words: ClassVar[bool] = True
    thing = "page"
    least_side_px = 256

    fonts: str | None = None
    width: int = 1024
    height: int = 1448
    plain: bool = False
    layout: str | None = None
    letters: float = 1.0
    script: str = LATIN

    def __post_init__(self) -> None:
        """Refuse pages that cannot be drawn."""
        super().__post_init__()
        if self.layout is not None and self.layout not in LAYOUTS:
            raise ValueError(f"layout must be a kind of page, got {self.layout!r}: {nearest(self.layout, LAYOUTS)}")
        if not 0.25 <= self.letters <= 8:
            raise ValueError(f"letters must be 0.25 to 8 times their usual size, got {self.letters:g}")
        if self.script not in SCRIPTS:
            raise ValueError(f"script must be one of {', '.join(SCRIPTS)}, got {self.script!r}")
        if self.script != LATIN:
            # That no font has its letters is to be known before there are pages to draw.
            self._families()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return a page, (height, width, 3) uint8 RGB; threads take turns."""
        with _drawing:
            return self._page(rng).finish()

    def read(self, key: str) -> Picture:
        """Return a page with its words, drawn anew on every call."""
        with _drawing:
            page = self._page(stream(self.seed, self.name, self._index(key)))
            pixels = page.finish()
        return Picture(pixels, None, hashlib.sha256(pixels).digest(), words=partial(_words_of, page))

    def _page(self, rng: np.random.Generator) -> Page:
        size = self.width, self.height
        return draw_page(rng, self._families(), *size, self.plain, self.layout, self.letters)

    def _families(self) -> tuple[Family, ...]:
        return families_of(self.script) if self.fonts is None else families_in(self.fonts, self.script)


def _words_of(page: Page) -> Words:
    with _drawing:
        return page.words()
