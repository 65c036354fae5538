"""Blurring: true convolution in linear light, tap by tap or by FFT, whichever is faster."""

from collections.abc import Sequence
from math import log2

import numpy as np
import scipy  # which loads scipy.fft when it is first used: workers start in a fifth less time

from blurgen import imaging
from blurgen.canvas import Layout, Scratch, Taps, lay_out, surround, taps_of
from blurgen.options import nearest
from blurgen.sparse import correlate_sparse

# What one point of an FFT costs per doubling, in multiply-adds of the sparse back-end: `benchmarks/blur.py --fit`.
_TAPS_PER_FFT_STEP = 21.0


# An encoded highlight of this value is some hundred times as bright as white; what is beyond is on another scale.
_BRIGHTEST = 16.0


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
    border, backend : str
        See `convolve`; the border ``"valid"`` cuts off alpha, too.

    Raises
    ------
    ValueError
        The image or the kernel is of the wrong shape, dtype or range, or a name is unknown.

    Examples
    --------
    >>> blur(np.array([[0, 0, 255, 0, 0]], np.uint8), np.array([[0.25, 0.5, 0.25]]))
    array([[  0, 137, 188, 137,   0]], dtype=uint8)
    """
    image = np.asarray(image)
    _check_image(image)
    if image.ndim == 3 and image.shape[2] in (2, 4):
        colours = blur(image[..., :-1], kernel, response, border, backend)
        return np.dstack((colours, _centre(image[..., -1], *colours.shape[:2])))
    taps = taps_of(kernel)
    if taps.least < 0 or abs(taps.total - 1) > 1e-3:
        raise ValueError(
            f"a blur kernel must be non-negative and sum to 1, got a least value of {taps.least:g} and a sum of "
            f"{taps.total:g}: divide it by its sum, or call convolve for other filters"
        )
    curve, layout = imaging.response(response), lay_out(image.shape, taps, border)
    canvas = _scratch.array("canvas", layout.shape)
    curve.write_light(image.reshape(len(image), -1), canvas[layout.image])
    surround(canvas, layout)
    light = _scratch.array("light", layout.out_shape)
    _correlate(canvas, taps, layout, backend, light)
    return curve.from_linear(light, image.dtype)


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
    linear = np.asarray(linear, np.float32)
    if linear.ndim not in (2, 3) or 0 in linear.shape:
        raise ValueError(f"an image must be (H, W) or (H, W, C) and not empty, got {linear.shape}")
    taps = taps_of(kernel)
    layout, rows = lay_out(linear.shape, taps, border), linear.reshape(len(linear), -1)
    if border == "valid":
        canvas = np.ascontiguousarray(rows)
    else:
        canvas = _scratch.array("canvas", layout.shape)
        canvas[layout.image] = rows
        surround(canvas, layout)
    out = np.empty(layout.out_shape, np.float32)
    _correlate(canvas, taps, layout, backend, out)
    return out


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


_scratch = Scratch()


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _correlate(canvas: np.ndarray, taps: Taps, layout: Layout, backend: str, out: np.ndarray) -> None:
    if backend == "auto":
        backend = "sparse" if _sparse_is_faster(taps, layout) else "dense"
    if backend not in BACKENDS:
        raise ValueError(f"there is no back-end {backend!r}: {nearest(backend, [*BACKENDS, 'auto'])}")
    BACKENDS[backend](canvas, layout.origin, taps.values, layout.channels, out.reshape(len(out), -1))


def _sparse_is_faster(taps: Taps, layout: Layout) -> bool:
    height, width = layout.out_shape[:2]
    rows, columns = _fft_size(height + taps.values.shape[0] - 1, width + taps.values.shape[1] - 1)
    return taps.count * height * width < _TAPS_PER_FFT_STEP * rows * columns * log2(rows * columns)


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


def _check_image(image: np.ndarray) -> None:
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] > 4):
        raise ValueError(f"an image must be (H, W) or (H, W, C) with 1 to 4 channels and not empty, got {image.shape}")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError("an image must be finite, got NaN or infinity in it")
    if image.dtype.kind == "f" and image.max() > _BRIGHTEST:
        raise ValueError(f"a float image holds encoded values in [0, 1], got {image.max():g}: divide it by its white")
