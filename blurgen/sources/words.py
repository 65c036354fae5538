"""The words of a picture, and where they stand."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


class Words:
    """Words in reading order, each with the box of its ink.

    Parameters
    ----------
    texts : sequence of str
        None is empty or holds white space.
    boxes : (n, 4) numbers
        Left, top, right and lower edge of each, px from the upper left corner of the picture; all ink is inside.
    lines : (n,) integers
        Words of one line of text share the number.
    """

    def __init__(self, texts: Sequence[str], boxes: np.ndarray, lines: np.ndarray):
        self.texts = tuple(texts)
        self.boxes = np.asarray(boxes).reshape(-1, 4)
        self.lines = np.asarray(lines)

    def inside(self, y: float, x: float, side: float) -> "Words":
        """Return the words that lie wholly in a square with its corner at (y, x), px."""
        left, top, right, bottom = self.boxes.T
        kept = np.flatnonzero((left >= x) & (top >= y) & (right <= x + side) & (bottom <= y + side))
        return Words([self.texts[word] for word in kept], self.boxes[kept], self.lines[kept])

    def __str__(self) -> str:
        """Return the text: a space between words of one line, a line feed between lines."""
        if not self.texts:
            return ""
        ends = [" " if one == other else "\n" for one, other in pairwise(self.lines.tolist())]
        return "".join(map("".join, zip(self.texts, [*ends, ""], strict=True)))
