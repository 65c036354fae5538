"""Blurring: true convolution in linear light, tap by tap or by FFT, whichever is faster."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft

from blurgen import imaging
from blurgen.jit import njit
from blurgen.options import nearest
from blurgen.sparse import correlate_sparse


def _mirrored(index: np.ndarray, n: int, repeats: int) -> np.ndarray:
    """Fold indices into 0 … n - 1; the border pixel counts `repeats` times."""
    period = max(2 * (n - 2 + repeats), 1)
    return np.minimum(index % period, (1 - repeats - index) % period)


# How numpy.pad names what lies beyond an image -> index of the pixel that stands at an index beyond 0 … n - 1.
BORDERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "reflect": lambda index, n: _mirrored(index, n, 1),
    "symmetric": lambda index, n: _mirrored(index, n, 2),
    "edge": lambda index, n: np.clip(index, 0, n - 1),
    "wrap": lambda index, n: index % n,
}

# What one point of an FFT costs per doubling, in multiply-adds of the sparse back-end: `benchmarks/blur.py --fit`.
_TAPS_PER_FFT_STEP = 21.0


def blur(
    image: np.ndarray,
    kernel: np.ndarray,
    response: "str | float | Sequence[float] | imaging.Response" = "srgb",
    border: str = "reflect",
    backend: str = "auto",
) -> np.ndarray:
    """Return `image` as a camera sees it that moves along `kernel`: same shape and dtype.

    The image is decoded to linear light, convolved, clipped to [0, 1] and encoded again, rounded to the nearest.

    Parameters
    ----------
    image : (H, W), (H, W, 1), (H, W, 3), or with alpha (H, W, 2), (H, W, 4); uint8, uint16, float32 or float64
        Floats are encoded values in [0, 1]; highlights above 1 keep their light until they are blurred. An alpha
        channel stays as it is.
    kernel : (k, l) float, odd sides
        Non-negative, sums to 1. Its centre pixel is the origin.
    response : str, float, table or Response
        See `blurgen.imaging.response`.
    border : {"reflect", "symmetric", "edge", "wrap"}
        What lies beyond the image, in numpy's words; repeated where the kernel is larger than the image.
    backend : {"auto", "sparse", "dense"}
        See `convolve`.

    Raises
    ------
    ValueError
        The image or the kernel is of the wrong shape, dtype or range, or a name is unknown.

    Examples
    --------
    >>> blur(np.array([[0, 0, 255, 0, 0]], np.uint8), np.array([[0.25, 0.5, 0.25]]))
    array([[  0, 137, 188, 137,   0]], dtype=uint8)
    """
    image, kernel = np.asarray(image), _checked_kernel(kernel)
    _check_image(image)
    if kernel.min() < 0 or abs(kernel.sum(dtype=np.float64) - 1) > 1e-3:
        raise ValueError(
            f"a blur kernel must be non-negative and sum to 1, got a least value of {kernel.min():g} and a sum of "
            f"{kernel.sum():g}: divide it by its sum, or call convolve for other filters"
        )
    curve = imaging.response(response)
    if image.ndim == 3 and image.shape[2] in (2, 4):
        colours = blur(image[..., :-1], kernel, curve, border, backend)
        return np.concatenate((colours, image[..., -1:]), axis=2)
    taps, rows = _taps(kernel), _rows(image)
    channels = rows.shape[1] // image.shape[1]
    canvas = _canvas(lambda inside: curve.write_light(rows, inside), rows.shape, channels, taps, border)
    light = _correlate(canvas, 0, taps, channels, rows.shape, backend)
    return curve.from_linear(light, image.dtype).reshape(image.shape)


def convolve(linear: np.ndarray, kernel: np.ndarray, border: str = "reflect", backend: str = "auto") -> np.ndarray:
    """Return `linear` convolved with `kernel` (flipped, as a convolution does): float32.

    Parameters
    ----------
    linear : (H, W) or (H, W, C) float
        Any finite values.
    kernel : (k, l) float, odd sides
        Any finite values; its centre pixel is the origin.
    border : {"reflect", "symmetric", "edge", "wrap", "valid"}
        What lies beyond the image, in numpy's words, and the shape of `linear` comes back. ``"valid"`` needs nothing
        beyond it and gives (H - k + 1, W - l + 1[, C]).
    backend : {"auto", "sparse", "dense"}
        ``"sparse"`` adds a shifted copy of the image for each non-zero; a pixel depends on its neighbours alone, bit
        for bit. ``"dense"`` goes through the Fourier transform. ``"auto"`` takes the one that should be faster.

    Raises
    ------
    ValueError
        The image or the kernel is of the wrong shape or not finite, or a name is unknown.
    """
    linear, kernel = np.asarray(linear, np.float32), _checked_kernel(kernel)
    if linear.ndim not in (2, 3) or 0 in linear.shape:
        raise ValueError(f"an image must be (H, W) or (H, W, C) and not empty, got {linear.shape}")
    taps, rows = _taps(kernel), _rows(linear)
    channels = rows.shape[1] // linear.shape[1]
    if border != "valid":
        canvas = _canvas(lambda inside: np.copyto(inside, rows), rows.shape, channels, taps, border)
        return _correlate(canvas, 0, taps, channels, rows.shape, backend).reshape(linear.shape)
    height, width = (side - reach + 1 for side, reach in zip(linear.shape, kernel.shape, strict=False))
    if min(height, width) < 1:
        raise ValueError(f"border valid needs an image no smaller than the kernel, got {linear.shape}, {kernel.shape}")
    origin = (kernel.shape[0] // 2 - taps.row) * rows.shape[1] + (kernel.shape[1] // 2 - taps.column) * channels
    light = _correlate(np.ascontiguousarray(rows), origin, taps, channels, (height, width * channels), backend)
    return light.reshape(height, width, *linear.shape[2:])


def saturate(light: np.ndarray, context: np.ndarray, kernel: np.ndarray, gain: float) -> np.ndarray:
    """Return blurred light to which saturated pixels give back what the sensor had clipped.

    Parameters
    ----------
    light : (H - k + 1, W - l + 1, C) float32
        The blurred context, linear light.
    context : (H, W, C) uint8 or uint16
        What was blurred, with its border; saturated where a sample has the highest code.
    kernel : (k, l) float
    gain : float
        α, light beyond white of a saturated pixel.

    References
    ----------
    J. Rim et al., "Realistic Blur Synthesis for Learning Image Deblurring", ECCV 2022: B' = clip(B + α·M, 0, 1) with
    the mask M = K ⊛ 1[I = 1].
    """
    saturated = context == np.iinfo(context.dtype).max
    if saturated.any():
        light = light + np.float32(gain) * convolve(saturated, kernel, border="valid", backend="sparse")
    return np.clip(light, 0, 1)


class _Taps(NamedTuple):
    """A flipped kernel, cropped to its centre and its non-zeros, and where in it the centre lies."""

    values: np.ndarray
    row: int
    column: int


def _taps(kernel: np.ndarray) -> _Taps:
    rows, columns = kernel.shape
    top, bottom, left, right = _reach(kernel)
    values = kernel[rows // 2 - top : rows // 2 + bottom + 1, columns // 2 - left : columns // 2 + right + 1]
    return _Taps(np.ascontiguousarray(values[::-1, ::-1]), bottom, right)


@njit(nogil=True)
def _reach(kernel):
    """Return how many pixels up, down, left and right of the centre the non-zeros of a kernel reach."""
    row, column = kernel.shape[0] // 2, kernel.shape[1] // 2
    top = bottom = left = right = 0
    for y in range(kernel.shape[0]):
        for x in range(kernel.shape[1]):
            if kernel[y, x] != 0:
                top, bottom = max(top, row - y), max(bottom, y - row)
                left, right = max(left, column - x), max(right, x - column)
    return top, bottom, left, right


def _rows(image: np.ndarray) -> np.ndarray:
    """Return an image as (H, W * C) rows of interleaved samples."""
    return image.reshape(len(image), -1)


def _canvas(
    fill: Callable[[np.ndarray], object], shape: tuple[int, int], channels: int, taps: _Taps, border: str
) -> np.ndarray:
    """Return interleaved rows of float32 that `fill` has filled inside, with as much border as the taps reach."""
    if border not in BORDERS:
        raise ValueError(f"there is no border {border!r}: {nearest(border, BORDERS)}")
    beyond = BORDERS[border]
    height, width = shape[0], shape[1] // channels
    tall, wide = height + taps.values.shape[0] - 1, width + taps.values.shape[1] - 1
    canvas = np.empty((tall, wide * channels), np.float32)
    fill(canvas[taps.row : taps.row + height, taps.column * channels : taps.column * channels + shape[1]])
    rows = beyond(np.arange(tall) - taps.row, height) + taps.row
    columns = beyond(np.arange(wide) - taps.column, width) + taps.column
    _surround(canvas, rows, columns, taps.row, taps.column, height, width)
    return canvas


@njit(nogil=True)
def _surround(canvas, rows, columns, top, left, height, width):
    """Copy into the border of `canvas` around height x width pixels those that `rows` and `columns` point to."""
    channels = canvas.shape[1] // columns.size
    for y in range(top, top + height):
        for side in (range(left), range(left + width, columns.size)):
            for x in side:
                for c in range(channels):
                    canvas[y, x * channels + c] = canvas[y, columns[x] * channels + c]
    for side in (range(top), range(top + height, rows.size)):
        for y in side:
            canvas[y] = canvas[rows[y]]


def _correlate(
    source: np.ndarray, origin: int, taps: _Taps, channels: int, shape: tuple[int, int], backend: str
) -> np.ndarray:
    """Return the (height, width * channels) sums of taps times source; `origin` is the offset of the first tap."""
    if backend == "auto":
        backend = "sparse" if _sparse_is_faster(taps.values, shape, channels) else "dense"
    if backend not in BACKENDS:
        raise ValueError(f"there is no back-end {backend!r}: {nearest(backend, [*BACKENDS, 'auto'])}")
    out = np.empty(shape, np.float32)
    BACKENDS[backend](source, origin, taps.values, channels, out)
    return out


def _sparse_is_faster(taps: np.ndarray, shape: tuple[int, int], channels: int) -> bool:
    height, width = shape[0], shape[1] // channels
    points = np.prod(_fft_size(height + taps.shape[0] - 1, width + taps.shape[1] - 1), dtype=float)
    return np.count_nonzero(taps) * height * width < _TAPS_PER_FFT_STEP * points * np.log2(points)


def _fft_size(height: int, width: int) -> tuple[int, int]:
    return scipy.fft.next_fast_len(height), scipy.fft.next_fast_len(width, real=True)


def _correlate_dense(source: np.ndarray, origin: int, taps: np.ndarray, channels: int, out: np.ndarray) -> None:
    """Write the sums of taps times source by FFT; arguments as of `correlate_sparse`."""
    height, width = out.shape[0], out.shape[1] // channels
    tall, wide = height + taps.shape[0] - 1, width + taps.shape[1] - 1
    top, left = divmod(origin, source.shape[1])
    pixels = source[top : top + tall, left : left + wide * channels].reshape(tall, wide, channels)
    sums = out.reshape(height, width, channels)
    # Row by row first: rows of zeros below the kernel and rows of sums beyond the output are never transformed.
    rows, columns = _fft_size(tall, wide)
    factors = scipy.fft.fft(scipy.fft.rfft(taps, columns), rows, axis=0).conj()
    for channel in range(channels):
        spectrum = scipy.fft.fft(scipy.fft.rfft(pixels[..., channel], columns), rows, axis=0, overwrite_x=True)
        spectrum *= factors
        lines = scipy.fft.ifft(spectrum, axis=0, overwrite_x=True)[:height]
        sums[..., channel] = scipy.fft.irfft(lines, columns, overwrite_x=True)[:, :width]


BACKENDS = {"sparse": correlate_sparse, "dense": _correlate_dense}


def _checked_kernel(kernel: np.ndarray) -> np.ndarray:
    kernel = np.ascontiguousarray(kernel, np.float32)
    if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape):
        raise ValueError(f"a kernel must be two-dimensional with odd sides, got {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise ValueError("a kernel must be finite, got NaN or infinity in it")
    return kernel


def _check_image(image: np.ndarray) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] > 4):
        raise ValueError(f"an image must be (H, W) or (H, W, C) with 1 to 4 channels and not empty, got {image.shape}")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError("an image must be finite, got NaN or infinity in it")
