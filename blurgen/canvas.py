"""What a kernel slides over: rows of pixels with as much border as its taps reach."""

import threading
from math import isfinite, prod
from typing import NamedTuple

import numpy as np

from blurgen.jit import njit
from blurgen.options import nearest

# What lies beyond an image, in the words of numpy.pad.
BORDERS = ("reflect", "symmetric", "edge", "wrap")
_REFLECT, _SYMMETRIC, _EDGE, _WRAP = range(4)


class Taps(NamedTuple):
    """A kernel, flipped and cropped to its centre and its non-zeros.

    Fields
    ------
    values : (a, b) float32
    row, column : int
        Where in `values` the centre lies.
    sides : (int, int)
        Shape of the whole kernel.
    count : int
        Number of non-zeros.
    least, total : float
        Smallest value and sum of the whole kernel.
    """

    values: np.ndarray
    row: int
    column: int
    sides: tuple[int, int]
    count: int
    least: float
    total: float


def taps_of(kernel: np.ndarray) -> Taps:
    """Return the taps of a kernel (k, l) with odd sides.

    Raises
    ------
    ValueError
        A side is even, or a value is not finite.
    """
    kernel = np.ascontiguousarray(kernel, np.float32)
    if kernel.ndim != 2 or not (kernel.shape[0] % 2 and kernel.shape[1] % 2):
        raise ValueError(f"a kernel must be two-dimensional with odd sides, got {kernel.shape}")
    up, down, left, right, count, least, total = _measure(kernel)
    if not isfinite(total):
        raise ValueError("a kernel must be finite, got NaN or infinity in it")
    row, column = kernel.shape[0] // 2, kernel.shape[1] // 2
    box = kernel[row - up : row + down + 1, column - left : column + right + 1]
    return Taps(np.ascontiguousarray(box[::-1, ::-1]), down, right, kernel.shape, count, least, total)


class Layout(NamedTuple):
    """Where image and output lie on a canvas, whose rows hold interleaved samples.

    Fields
    ------
    shape : (rows, samples)
        Shape of the canvas.
    image : (slice, slice)
        Rows and samples of the canvas that the image covers.
    origin : int
        Offset on the flattened canvas of the first tap for the first pixel of the output.
    out_shape : tuple
        Shape of the output: (height, width) or (height, width, channels).
    channels : int
    border : str
    """

    shape: tuple[int, int]
    image: tuple[slice, slice]
    origin: int
    out_shape: tuple[int, ...]
    channels: int
    border: str


def lay_out(image_shape: tuple[int, ...], taps: Taps, border: str) -> Layout:
    """Return where an image (H, W) or (H, W, C) and its convolution lie, with a border or with none (``"valid"``).

    Raises
    ------
    ValueError
        The border is unknown, or ``"valid"`` leaves nothing.
    """
    (height, width), channels = image_shape[:2], prod(image_shape[2:])
    if border in BORDERS:
        more_rows, more_columns = taps.values.shape[0] - 1, taps.values.shape[1] - 1
        rows = slice(taps.row, taps.row + height)
        samples = slice(taps.column * channels, (taps.column + width) * channels)
        shape = (height + more_rows, (width + more_columns) * channels)
        return Layout(shape, (rows, samples), 0, image_shape, channels, border)
    if border != "valid":
        raise ValueError(f"there is no border {border!r}: {nearest(border, [*BORDERS, 'valid'])}")
    inner = height - taps.sides[0] + 1, width - taps.sides[1] + 1
    if min(inner) < 1:
        raise ValueError(f"border valid needs an image no smaller than the kernel {taps.sides}, got {image_shape}")
    row, column = taps.sides[0] // 2 - taps.row, taps.sides[1] // 2 - taps.column
    whole = slice(0, height), slice(0, width * channels)
    origin = (row * width + column) * channels
    return Layout((height, width * channels), whole, origin, inner + image_shape[2:], channels, border)


def surround(canvas: np.ndarray, layout: Layout) -> None:
    """Fill the border of a canvas on which the image lies already."""
    if layout.border != "valid":
        rows, samples = layout.image
        border = BORDERS.index(layout.border)
        _surround(canvas, rows.start, rows.stop, samples.start, samples.stop, layout.channels, border)


class Scratch(threading.local):
    """Memory that a thread uses again: fresh pages from the system can cost more than the convolution."""

    _MOST_BYTES = 32 << 20

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return uninitialised float32 of this shape; it holds until the thread asks for the same name again."""
        size = prod(shape)
        if 4 * size > self._MOST_BYTES:
            return np.empty(shape, np.float32)
        if name not in self._kept or self._kept[name].size < size:
            self._kept[name] = np.empty(size, np.float32)
        return self._kept[name][:size].reshape(shape)


@njit(nogil=True)
def _measure(kernel):
    """Return how far the non-zeros of a kernel reach up, down, left and right, their count, least value and sum."""
    row, column = kernel.shape[0] // 2, kernel.shape[1] // 2
    up = down = left = right = count = 0
    least, total = kernel[0, 0], 0.0
    for y in range(kernel.shape[0]):
        for x in range(kernel.shape[1]):
            if kernel[y, x] != 0:
                up, down = max(up, row - y), max(down, y - row)
                left, right = max(left, column - x), max(right, x - column)
                count += 1
                least, total = min(least, kernel[y, x]), total + kernel[y, x]
    return up, down, left, right, count, least, total


@njit(nogil=True)
def _surround(canvas, top, bottom, start, stop, channels, border):
    """Fill what lies around the rows top … bottom - 1 and the samples start … stop - 1 of a canvas."""
    left, width = start // channels, (stop - start) // channels
    for fringe in (range(left), range(left + width, canvas.shape[1] // channels)):
        for x in fringe:
            inside = (left + _folded(x - left, width, border)) * channels
            for y in range(top, bottom):
                for c in range(channels):
                    canvas[y, x * channels + c] = canvas[y, inside + c]
    for fringe in (range(top), range(bottom, canvas.shape[0])):
        for y in fringe:
            canvas[y] = canvas[top + _folded(y - top, bottom - top, border)]


@njit(nogil=True)
def _folded(index, size, border):
    """Return which of the pixels 0 … size - 1 stands at an index that may lie beyond them."""
    if border == _EDGE:
        return min(max(index, 0), size - 1)
    if border == _WRAP:
        return index % size
    repeats = 1 if border == _SYMMETRIC else 0
    period = max(2 * (size - 1 + repeats), 1)
    index %= period
    return min(index, period - repeats - index)
