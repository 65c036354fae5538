"""How far a restored image is from the sharp one: functions of two (H, W, 3) uint8 RGB images of equal size.

A metric that is not defined for its images, such as the correlation with a blank page, is NaN.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import scipy.fft
import torch
from torch import Tensor

from blurgen.torch import to_unit
from trainers.vgg import VGG19

Metric = Callable[[np.ndarray, np.ndarray], float]

LEVELS = 255
SSIM_RADIUS_PX, SSIM_SIGMA_PX = 5, 1.5
_TAPS = cv2.getGaussianKernel(2 * SSIM_RADIUS_PX + 1, SSIM_SIGMA_PX, cv2.CV_32F)
_MIDDLE = LEVELS / 2
# Arrays of one strip: small enough for the cache and for the allocator to keep.
_STRIP_VALUES, _LEAST_STRIP_ROWS = 100_000, 8
_C1, _C2 = (0.01 * LEVELS) ** 2, (0.03 * LEVELS) ** 2
_LUMA = (0.299, 0.587, 0.114)
_FAINTEST = 1e-6


def psnr(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio over all pixels and channels, dB; infinite for equal images."""
    _check(image, sharp)
    squares = cv2.norm(image, sharp, cv2.NORM_L2SQR)
    return 10 * math.log10(LEVELS**2 * image.size / squares) if squares else math.inf


def ssim(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the structural similarity, at most 1, as the mean over the channels.

    Gaussian window of 11 x 11 px with a deviation of 1.5 px, variances of the population; windows that would reach
    over the border are left out, and images below 11 px a side have none: NaN.

    References
    ----------
    Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP 2004.
    """
    _check(image, sharp)
    height, width, channels = image.shape
    rows, columns = height - 2 * SSIM_RADIUS_PX, width - 2 * SSIM_RADIUS_PX
    if min(rows, columns) < 1:
        return math.nan
    total, at_once = 0.0, max(_STRIP_VALUES // (width * channels) - 2 * SSIM_RADIUS_PX, _LEAST_STRIP_ROWS)
    for top in range(0, rows, at_once):
        strip = slice(top, min(top + at_once, rows) + 2 * SSIM_RADIUS_PX)
        total += _strip_ssim(image[strip], sharp[strip]).sum(dtype=np.float64)
    return float(total / (rows * columns * channels))


def _strip_ssim(image: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    # About the middle of the range, so that float32 is enough for the variances.
    x, y = (values.astype(np.float32) - _MIDDLE for values in (image, sharp))
    # Only the sum of the variances is needed.
    mean_x, mean_y, energy, product = (_windowed(values) for values in (x, y, x * x + y * y, x * y))
    mean_xy, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance, variances = product - mean_xy, energy - mean_squares
    back = _MIDDLE * (mean_x + mean_y) + _MIDDLE**2
    mean_xy, mean_squares = mean_xy + back, mean_squares + 2 * back
    return (2 * mean_xy + _C1) * (2 * covariance + _C2) / ((mean_squares + _C1) * (variances + _C2))


def _windowed(values: np.ndarray) -> np.ndarray:
    inner = slice(SSIM_RADIUS_PX, -SSIM_RADIUS_PX)
    return cv2.sepFilter2D(values, -1, _TAPS, _TAPS)[inner, inner]


def correlation(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return Pearson's correlation over all pixels and channels, -1 to 1; NaN where an image is of one value."""
    _check(image, sharp)
    x, y = (values.astype(np.float64) - values.mean() for values in (image, sharp))
    spread = math.sqrt(np.vdot(x, x) * np.vdot(y, y))
    return float(np.vdot(x, y) / spread) if spread else math.nan


def fourier(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the mean square difference of log10(abs(F) + 1e-6), F the orthonormal spectrum of the gray image.

    Gray is in [0, 1], with the weights of BT.601.
    """
    return _spectral(image, sharp, lambda magnitude: np.log10(magnitude + _FAINTEST))


def fourier_mag(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the mean square difference of abs(F), F as in `fourier`; at most the mean square error of the gray."""
    return _spectral(image, sharp, lambda magnitude: magnitude)


def _spectral(image: np.ndarray, sharp: np.ndarray, scale: Callable[[np.ndarray], np.ndarray]) -> float:
    _check(image, sharp)
    height, width = image.shape[:2]
    squares = (scale(_magnitudes(image)) - scale(_magnitudes(sharp))) ** 2
    # The half that is not computed mirrors the other; the zero and the Nyquist column have no twin.
    twins = squares[:, 1 : (width + 1) // 2]
    return float((squares.sum() + twins.sum()) / (height * width))


def _magnitudes(image: np.ndarray) -> np.ndarray:
    return np.abs(scipy.fft.rfft2(image @ np.array(_LUMA) / LEVELS, norm="ortho"))


def _check(image: np.ndarray, sharp: np.ndarray) -> None:
    if image.shape != sharp.shape or image.ndim != 3 or image.dtype != np.uint8 or sharp.dtype != np.uint8:
        raise ValueError(
            f"images must be (H, W, C) uint8 and of equal size, got {image.shape} {image.dtype} and "
            f"{sharp.shape} {sharp.dtype}"
        )


METRICS: dict[str, Metric] = {
    "psnr": psnr,
    "ssim": ssim,
    "correlation": correlation,
    "fourier": fourier,
    "fourier_mag": fourier_mag,
}
"""Those that need no weights, by name."""

HIGHER_IS_BETTER = frozenset({"psnr", "ssim", "correlation"})


def d_vgg(features: VGG19) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the distance that is the mean square difference of the last layer: d_VGG for pool5, normalised."""
    return lambda images, sharp: (features(images) - features(sharp)).square().mean()


def learned(distance: Callable[[Tensor, Tensor], Tensor], device: torch.device | str, least_px: int) -> Metric:
    """Return the metric that gives `distance` both images as (1, 3, H, W) float32 in [-1, 1]; NaN below `least_px`."""

    @torch.inference_mode()
    def metric(image: np.ndarray, sharp: np.ndarray) -> float:
        _check(image, sharp)
        if min(image.shape[:2]) < least_px:
            return math.nan
        pair = (torch.from_numpy(values).permute(2, 0, 1)[None].to(device) for values in (image, sharp))
        return float(distance(*map(to_unit, pair)))

    return metric
