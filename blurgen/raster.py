"""Turn the path of a camera into a blur kernel: the only splatting code.

A path is a polyline. While the camera crosses one cell of the pixel grid along a straight segment, the bilinear
weights of the cell's four corners are quadratic in time, so the time integral is exact from two end points.
Consecutive segments in the same cell share four running sums; only segments that leave a cell are split.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from blurgen.jit import njit

ANCHORS = ("barycentre", "mid-exposure", "start", "bbox")
MAX_SIDE_PX = 16385
_DUST = 1e-12  # rounding leaves up to 1e-15 of the mass on pixels that the path does not touch


class Taps(NamedTuple):
    """The pixels of a kernel that are not zero, in row-major order.

    Attributes
    ----------
    offsets : ndarray of int64, shape (m, 2)
        (dy, dx) in px relative to the centre pixel.
    values : ndarray of float32, shape (m,)
    """

    offsets: np.ndarray
    values: np.ndarray


def rasterize(
    path: np.ndarray,
    side_px: int | None = None,
    weights: np.ndarray | None = None,
    exposure: tuple[float, float] = (0.0, 1.0),
    anchor: str = "barycentre",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel that a camera moving along `path` draws, and the shift that centred it.

    Every segment of the path is integrated exactly against the bilinear (triangle) splat, so that no speed and no
    support makes the kernel dotted. No mass is lost: the support grows where `side_px` is too small.

    Parameters
    ----------
    path : array_like of float, shape (n, 2)
        Positions (x, y) in px, n >= 1. A single position gives a delta.
    side_px : int, optional
        Least side of the kernel in px, positive and odd. By default the smallest that holds the path.
    weights : array_like of float, shape (n - 1,), optional
        Time spent in each segment, non-negative, in any unit. By default all segments take the same time.
    exposure : (float, float)
        Start and end of the exposure as fractions of the whole time, 0 <= start < end <= 1. Segments that it
        cuts count in part.
    anchor : {"barycentre", "mid-exposure", "start", "bbox"}
        What lies on the centre pixel: the mean position during the exposure; the position at its middle; the first
        position of `path`, which is the same for every exposure, so that the kernels of one path add up; or the
        middle of the box around the path during the exposure.

    Returns
    -------
    kernel : ndarray of float32, shape (k, k)
        Non-negative, sum 1, k odd.
    shift : ndarray of float64, shape (2,)
        What was added to (x, y): ``path + shift`` is measured from the centre pixel.

    Raises
    ------
    ValueError
        If an argument is malformed or not finite, or the kernel would be wider than 16385 px.

    Examples
    --------
    >>> kernel, shift = rasterize([(0, 0), (2, 0)])
    >>> kernel[1].tolist(), shift.tolist()
    ([0.25, 0.5, 0.25], [-1.0, 0.0])
    """
    path, weights = _checked(path, weights)
    origin = path[0].copy()
    # a path far from the origin keeps its sub-pixel precision
    path = _relative(path, origin)
    clip = _exposed(path, weights, exposure)
    centre = np.array(_anchor_point(path, weights, clip, exposure, anchor))
    half = max(checked_side(side_px) // 2, half_side(clip[0], centre[0], centre[1]))
    return render(*clip, centre[0], centre[1], half), -(origin + centre)


def taps(kernel: np.ndarray) -> Taps:
    """Return the sparse form of a `kernel` of shape (k, k), k odd.

    Examples
    --------
    >>> taps(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)).offsets.tolist()
    [[0, 0]]
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"a kernel must be square with an odd side, got shape {kernel.shape}")
    rows, columns = np.nonzero(kernel)
    return Taps(np.stack((rows, columns), axis=1) - kernel.shape[0] // 2, kernel[rows, columns])


def checked_side(side_px: int | None) -> int:
    """Return `side_px` as an int, 1 for None; raise ValueError unless it is positive, odd and at most 16385."""
    if side_px is None:
        return 1
    if side_px != int(side_px) or side_px < 1 or side_px % 2 == 0:
        raise ValueError(f"side_px must be a positive odd number, got {side_px}")
    if side_px > MAX_SIDE_PX:
        raise ValueError(f"side_px must be at most {MAX_SIDE_PX}, got {side_px}")
    return int(side_px)


@lru_cache(maxsize=64)
def equal_weights(segments: int) -> np.ndarray:
    """Return float64 weights (segments,) that sum to 1. The array is shared: do not write to it."""
    return np.full(segments, 1.0 / segments)


def _checked(path: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return `path` as float64 (n, 2) with n >= 2, and `weights` as float64 (n - 1,) that sum to 1."""
    path = np.require(path, np.float64, ["C", "W"])
    if path.ndim != 2 or path.shape[1] != 2 or not path.shape[0]:
        raise ValueError(f"path must have the shape (n, 2) with n >= 1, got {path.shape}")
    if not np.isfinite(path).all():
        raise ValueError("path must be finite, got NaN or infinity; remove the bad positions")
    if weights is None:
        weights = equal_weights(max(path.shape[0] - 1, 1))
    else:
        weights = _checked_weights(weights, path.shape[0] - 1)
    return (np.repeat(path, 2, axis=0) if path.shape[0] == 1 else path), weights


def _checked_weights(weights: np.ndarray, segments: int) -> np.ndarray:
    weights = np.require(weights, np.float64, ["C", "W"])
    if weights.shape != (segments,):
        raise ValueError(f"weights must have one number per segment, the shape ({segments},), got {weights.shape}")
    if segments == 0:
        return equal_weights(1)
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
        raise ValueError("weights must be finite and non-negative with a positive sum, got NaN, infinity, "
                         "a negative number or nothing but zeros")  # fmt: skip
    weights = weights / weights.max()  # the sum of huge weights would overflow
    return weights / weights.sum()


def _relative(path: np.ndarray, origin: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        path = path - origin
    reach = max(-path.min(), path.max())
    if not reach < MAX_SIDE_PX:
        raise ValueError(f"path must stay within {MAX_SIDE_PX} px of its start, got {reach:g} px; scale it down")
    return path


def _exposed(path: np.ndarray, weights: np.ndarray, exposure: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a path that an exposure sees, and weights that sum to 1."""
    start, end = (float(edge) for edge in exposure)
    if not 0 <= start < end <= 1:
        raise ValueError(f"exposure must hold fractions with 0 <= start < end <= 1, got ({start:g}, {end:g})")
    if (start, end) == (0, 1):
        return path, weights
    times = _times(weights)
    first = np.searchsorted(times, start, side="right") - 1
    last = np.searchsorted(times, end, side="left")
    edges = np.concatenate(([start], times[first + 1 : last], [end]))
    seen = np.empty((edges.size, 2))
    seen[0], seen[1:-1], seen[-1] = _position(path, times, start), path[first + 1 : last], _position(path, times, end)
    return seen, np.diff(edges) / (end - start)


def _times(weights: np.ndarray) -> np.ndarray:
    times = np.concatenate(([0.0], np.cumsum(weights)))
    return times / times[-1]


def _position(path: np.ndarray, times: np.ndarray, time: float) -> np.ndarray:
    """Return the position (x, y) at a time in [0, 1]."""
    after = max(int(np.searchsorted(times, time, side="left")), 1)
    part = (time - times[after - 1]) / (times[after] - times[after - 1])
    return path[after - 1] + part * (path[after] - path[after - 1])


def _anchor_point(path, weights, clip, exposure, anchor) -> tuple[float, float]:
    """Return the position (x, y) that goes to the centre pixel."""
    if anchor == "barycentre":
        return barycentre(*clip)
    if anchor == "mid-exposure":
        return tuple(_position(path, _times(weights), sum(exposure) / 2))
    if anchor == "start":
        return tuple(path[0])
    if anchor == "bbox":
        return tuple((clip[0].min(axis=0) + clip[0].max(axis=0)) / 2)
    raise ValueError(f"anchor must be one of {', '.join(ANCHORS)}, got {anchor!r}")


@njit
def barycentre(path, weights):
    """Return the mean position (x, y) over time; `weights` (n - 1,) sum to 1."""
    x = y = 0.0
    for i in range(weights.shape[0]):
        x += weights[i] * (path[i, 0] + path[i + 1, 0])
        y += weights[i] * (path[i, 1] + path[i + 1, 1])
    return 0.5 * x, 0.5 * y


@njit
def half_side(path, centre_x, centre_y):
    """Return the least h such that pixels -h to h around the centre hold the splat of the path."""
    reach = 0.0
    for i in range(path.shape[0]):
        reach = max(reach, abs(path[i, 0] - centre_x), abs(path[i, 1] - centre_y))
    return int(np.ceil(reach))


@njit
def render(path, weights, centre_x, centre_y, half):
    """Return the float32 kernel (2 half + 1, 2 half + 1) of a path that stays within `half` px of the centre."""
    side = 2 * half + 1
    mass = np.zeros((side + 1, side + 1))  # a path on the last pixel's line touches one row beyond, with nothing
    _splat(path, weights, centre_x, centre_y, half, mass)
    total = 0.0
    for row in range(side):
        for column in range(side):
            if mass[row, column] < _DUST:
                mass[row, column] = 0.0
            total += mass[row, column]
    kernel = np.empty((side, side), np.float32)
    for row in range(side):
        for column in range(side):
            kernel[row, column] = mass[row, column] / total
    return kernel


@njit
def _splat(path, weights, centre_x, centre_y, half, mass):
    """Add the time integral of the bilinear splat of a path to `mass`.

    (cx, cy) is the cell, (x, y) the last position relative to the centre; w, u, v, uv are the integrals over the
    time spent in this cell of 1, x - cx, y - cy and their product.
    """
    x, y = path[0, 0] - centre_x, path[0, 1] - centre_y
    cx, cy = np.floor(x), np.floor(y)
    w = u = v = uv = 0.0
    for i in range(weights.shape[0]):
        end_x, end_y = path[i + 1, 0] - centre_x, path[i + 1, 1] - centre_y
        time = weights[i]
        while not (cx <= end_x <= cx + 1.0 and cy <= end_y <= cy + 1.0):
            part, step_x, step_y = _exit(x, y, end_x, end_y, cx, cy)
            border_x = cx + max(step_x, 0.0) if step_x != 0.0 else min(max(x + part * (end_x - x), cx), cx + 1.0)
            border_y = cy + max(step_y, 0.0) if step_y != 0.0 else min(max(y + part * (end_y - y), cy), cy + 1.0)
            w, u, v, uv = _along(x - cx, y - cy, border_x - cx, border_y - cy, time * part, w, u, v, uv)
            _deposit(mass, int(cy) + half, int(cx) + half, w, u, v, uv)
            w = u = v = uv = 0.0
            x, y, cx, cy, time = border_x, border_y, cx + step_x, cy + step_y, time * (1.0 - part)
        w, u, v, uv = _along(x - cx, y - cy, end_x - cx, end_y - cy, time, w, u, v, uv)
        x, y = end_x, end_y
    _deposit(mass, int(cy) + half, int(cx) + half, w, u, v, uv)


@njit
def _exit(x, y, end_x, end_y, cx, cy):
    """Return where a segment that ends outside the cell leaves it: the fraction of its length and the step (x, y)."""
    part_x = part_y = 2.0
    step_x = step_y = 0.0
    if end_x > cx + 1.0:
        part_x, step_x = (cx + 1.0 - x) / (end_x - x), 1.0
    elif end_x < cx:
        part_x, step_x = (cx - x) / (end_x - x), -1.0
    if end_y > cy + 1.0:
        part_y, step_y = (cy + 1.0 - y) / (end_y - y), 1.0
    elif end_y < cy:
        part_y, step_y = (cy - y) / (end_y - y), -1.0
    if part_x < part_y:
        return part_x, step_x, 0.0
    return part_y, 0.0, step_y


@njit
def _along(u0, v0, u1, v1, time, w, u, v, uv):
    """Return the four integrals (w, u, v, uv) after a straight piece from (u0, v0) to (u1, v1) inside the cell."""
    mid_u, mid_v = 0.5 * (u0 + u1), 0.5 * (v0 + v1)
    product = mid_u * mid_v + (u1 - u0) * (v1 - v0) / 12.0
    return w + time, u + time * mid_u, v + time * mid_v, uv + time * product


@njit
def _deposit(mass, row, column, w, u, v, uv):
    """Add what one cell gathered to its four corners."""
    mass[row, column] += w - u - v + uv
    mass[row, column + 1] += u - uv
    mass[row + 1, column] += v - uv
    mass[row + 1, column + 1] += uv
