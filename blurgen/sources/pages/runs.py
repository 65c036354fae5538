"""What is written on a page: pieces of text that were set become words with their places."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from blurgen.sources.pages.fonts import Font
from blurgen.words import Words

_SEAM_PX = 0.01  # pieces of one word follow each other this closely, round-off aside


class Run(NamedTuple):
    """A piece of text set at once, its pen starting at x: glyphs `first` up to, not including, `last` of its font."""

    font: Font
    text: str
    x: float
    row: int
    first: int
    last: int


def gather_words(runs: Sequence[Run], placed: Mapping[Font, np.ndarray]) -> Words:
    """Return the words of some runs, in their order.

    A word ends at a space, at the end of its line, and where the pen is lifted between two runs. Dots alone, which
    lead the eye from one end of a line to the other, are none. A line that was set first and stands below all others,
    at the foot of the page, is read last.

    Parameters
    ----------
    runs : sequence of Run
    placed : mapping
        Font -> all its glyphs as (cell, x, y), (n, 3) int64.
    """
    rectangles = {font: _rectangles(font, glyphs) for font, glyphs in placed.items()}
    texts: list[str] = []
    boxes: list[np.ndarray] = []
    lines: list[int] = []
    line, row, pen, spaced = 0, None, 0.0, False
    for run in runs:
        line += run.row != row or run.x < pen - _SEAM_PX
        goes_on = bool(texts) and lines[-1] == line and abs(run.x - pen) < _SEAM_PX and not spaced
        for text, box in _words_of(run, rectangles):
            if goes_on and text:
                texts[-1] += text
                boxes[-1] = _around(np.stack([boxes[-1], box]))
            elif text:
                texts.append(text)
                boxes.append(box)
                lines.append(line)
            goes_on = False
        row, spaced, pen = run.row, run.text.endswith(" "), run.x + run.font.width_px(run.text)
    words = [number for number, text in enumerate(texts) if text.strip(".")]
    order = _foot_last(np.array([boxes[word] for word in words]).reshape(-1, 4), np.array([lines[w] for w in words]))
    words = [words[place] for place in order]
    return Words([texts[word] for word in words], np.array([boxes[word] for word in words]), [lines[w] for w in words])


def _foot_last(boxes: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Return the order (n,) of words in which a first line below all others is the last."""
    is_first = lines == lines[:1]
    if is_first.all() or boxes[is_first, 1].min() < boxes[~is_first, 3].max():
        return np.arange(len(lines))
    return np.concatenate([np.flatnonzero(~is_first), np.flatnonzero(is_first)])


def _words_of(run: Run, rectangles: Mapping[Font, np.ndarray]):
    """Yield the (text, box) of each word of a run; an empty one at an end that is a space."""
    first = run.first
    spelled = run.font.face.spelled(run.text).split(" ")
    for text, glyphs in zip(run.font.face.shown(run.text).split(" "), spelled, strict=True):
        last = first + len(glyphs)
        yield text, _around(rectangles[run.font][first:last]) if glyphs else None
        first = last


def _rectangles(font: Font, glyphs: np.ndarray) -> np.ndarray:
    """Return left, top, right and lower edge of each glyph's cell, (n, 4) int64."""
    cells, x, y = glyphs.T
    _, height, width, top, left = font.glyphs()[1][cells].T
    return np.stack([x + left, y + top, x + left + width, y + top + height], axis=1)


def _around(rectangles: np.ndarray) -> np.ndarray:
    """Return the rectangle around some."""
    return np.concatenate([rectangles[:, :2].min(0), rectangles[:, 2:].max(0)])
