"""The words of a picture, where they stand, and the bytes that keep them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


class TooMuchText(ValueError):
    """Text that takes more bytes than there are."""


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


def bytes_of(text: str, size: int) -> np.ndarray:
    """Return a text as (size,) uint8: UTF-8, padded with NULs; raises `TooMuchText` where it is longer.

    Examples
    --------
    >>> bytes_of("Zoë", 6)
    array([ 90, 111, 195, 171,   0,   0], dtype=uint8)
    """
    encoded = text.encode()
    if len(encoded) > size:
        # The same for every crop of an image: not which of them came first, and so not its length.
        raise TooMuchText(f"the words of some of its crops take more than {size:,} bytes: say --transcripts {2 * size}")
    return np.frombuffer(encoded.ljust(size, b"\0"), np.uint8)


def text_of(stored: np.ndarray) -> str:
    """Return the text that `bytes_of` has made bytes of; what is no UTF-8 becomes U+FFFD."""
    return stored.tobytes().rstrip(b"\0").decode("utf-8", "replace")
