"""The sheet: shapes are drawn at once, text is collected and inked in one pass over its glyphs."""

import numpy as np
from cv2 import LINE_AA, circle, fillPoly, polylines, rectangle

from blurgen.jit import njit
from blurgen.sources.pages.fonts import Font
from blurgen.sources.pages.runs import Run, gather_words
from blurgen.words import Words

_SHIFT = 4  # cv2 takes coordinates in sixteenths of a pixel
Colour = tuple[int, int, int]


@njit
def _ink_glyphs(pixels, coverage, boxes, placed, inks):
    """Blend glyph cells `placed` as (cell, x, y) onto `pixels` (h, w, 3), each in its own ink."""
    height, width, _ = pixels.shape
    for i in range(placed.shape[0]):
        offset, h, w, top, left = boxes[placed[i, 0]]
        x0, y0 = placed[i, 1] + left, placed[i, 2] + top
        for y in range(max(0, -y0), min(h, height - y0)):
            for x in range(max(0, -x0), min(w, width - x0)):
                a = np.int64(coverage[offset + y * w + x])
                if a > 0:
                    for c in range(3):
                        below = np.int64(pixels[y0 + y, x0 + x, c])
                        pixels[y0 + y, x0 + x, c] = (below * (255 - a) + inks[i, c] * a + 127) // 255


class Page:
    """A sheet of paper under way.

    Attributes
    ----------
    pixels : np.ndarray
        (height, width, 3) uint8 RGB. Coordinates are (x, y) in pixels from the upper left corner.
    """

    def __init__(self, width: int, height: int, paper: Colour):
        self.width, self.height = width, height
        self.pixels = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = paper
        self._glyphs: dict[Font, tuple[list, list]] = {}
        self._inked: dict[Font, np.ndarray] = {}
        self._runs: list[Run] = []

    def text(self, font: Font, x: float, baseline: float, text: str, ink: Colour) -> None:
        """Set text with its pen starting at x on a baseline; it lies above every shape."""
        placed, inks = self._glyphs.setdefault(font, ([], []))
        row, first = round(baseline), len(placed)
        placed.extend((cell, column, row) for cell, column in font.place(text, x))
        inks.extend([ink] * (len(placed) - len(inks)))
        self._runs.append(Run(font, text, x, row, first, len(placed)))

    def words(self) -> Words:
        """Return the words of a finished page, in the order of setting, which is that of reading."""
        return gather_words(self._runs, self._inked)

    def finish(self) -> np.ndarray:
        """Ink the collected text and return the pixels."""
        for font, (placed, inks) in self._glyphs.items():
            if placed:
                self._inked[font] = np.array(placed, np.int64)
                _ink_glyphs(self.pixels, *font.glyphs(), self._inked[font], np.array(inks, np.int64))
        self._glyphs.clear()
        return self.pixels

    def fill(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle, its edges on whole pixels and at least one pixel apart."""
        left, top = round(x0), round(y0)
        self.pixels[top : max(top + 1, round(y1)), left : max(left + 1, round(x1))] = colour

    def frame(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, weight_px: int = 1) -> None:
        """Draw the outline of a rectangle."""
        rectangle(self.pixels, (round(x0), round(y0)), (round(x1), round(y1)), colour, weight_px)

    def line(self, points: np.ndarray, colour: Colour, weight_px: int = 1, closed: bool = False) -> None:
        """Draw a smooth-edged polyline through points (n, 2) of (x, y)."""
        polylines(self.pixels, [_fixed_point(points)], closed, colour, weight_px, LINE_AA, _SHIFT)

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        """Fill a smooth-edged polygon with corners (n, 2) of (x, y)."""
        fillPoly(self.pixels, [_fixed_point(points)], colour, LINE_AA, _SHIFT)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a smooth-edged disc."""
        centre, scale = _fixed_point(np.array([x, y])), 1 << _SHIFT
        circle(self.pixels, [int(c) for c in centre], round(radius * scale), colour, -1, LINE_AA, _SHIFT)

    def stamp(self, coverage: np.ndarray, x: float, y: float, ink: Colour) -> None:
        """Blend an ink through coverage (h, w) uint8 whose upper left corner is at (x, y)."""
        left, top = round(x), round(y)
        below = self.pixels[top : top + coverage.shape[0], left : left + coverage.shape[1]]
        alpha = coverage[: below.shape[0], : below.shape[1], None] / np.float32(255)
        below[:] = np.rint(below + (np.float32(ink) - below) * alpha)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """Return the colour with a share in [0, 1] of another in it."""
    return tuple(round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
