"""Turn the path of a camera into a blur kernel: the only splatting code.

A path is a polyline. While the camera crosses one cell of the pixel grid along a straight segment, the bilinear
weights of the cell's four corners are quadratic in time, so the time integral is exact from two end points.
Consecutive segments in the same cell share four running sums; only segments that leave a cell are split.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from blurgen.jit import njit

ANCHORS = ("barycentre", "mid-exposure", "start", "bbox")
MAX_SIDE_PX = 16385
TOO_WIDE = f"the kernel of a path must be at most {MAX_SIDE_PX} px wide, got a longer motion; scale the path down"
_REACH_PX = 4.0 * MAX_SIDE_PX  # farther from the centre, no path is splatted
_LEAST = math.ulp(0.0)
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
    >>> kernel[1].tolist(), float(shift[0])
    ([0.25, 0.5, 0.25], -1.0)
    """
    half = checked_side(side_px) // 2
    rows, weights = _checked(path, weights)
    # measured from its start, a path far from the origin keeps its sub-pixel precision
    start, rows = rows[:, 0], _from_start(rows)
    seen, seen_weights = _exposed(rows, weights, exposure)
    x, y = _anchor_point(rows, weights, seen, seen_weights, exposure, anchor)
    return render(seen, seen_weights, x, y, half), -np.add(start, (x, y))


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
    """Return x and y as rows, float64 (2, n) with n >= 2, and `weights` as float64 (n - 1,) that sum to 1."""
    rows = np.require(np.asarray(path, np.float64).T, requirements=["C", "W"])
    if rows.ndim != 2 or rows.shape[0] != 2 or not rows.shape[1]:
        raise ValueError(f"path must have the shape (n, 2) with n >= 1, got {rows.shape[::-1]}")
    segments = rows.shape[1] - 1
    weights = equal_weights(max(segments, 1)) if weights is None else _checked_weights(weights, segments)
    return (rows if segments else np.repeat(rows, 2, axis=1)), weights


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


def _from_start(path: np.ndarray) -> np.ndarray:
    """Return the rows x and y of a path measured from its first position."""
    with np.errstate(over="ignore", invalid="ignore"):
        offsets = path - path[:, :1]
    farthest = max(offsets.max(), -offsets.min())
    if farthest < MAX_SIDE_PX:
        return offsets
    if np.isfinite(path).all():
        raise ValueError(f"path must stay within {MAX_SIDE_PX} px of its start, got {farthest:g} px; scale it down")
    raise ValueError("path must be finite, got NaN or infinity; remove the bad positions")


def _exposed(path: np.ndarray, weights: np.ndarray, exposure: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the part (2, m) of a path (2, n) that an exposure sees, and weights (m - 1,) that sum to 1."""
    start, end = (float(edge) for edge in exposure)
    if not 0 <= start < end <= 1:
        raise ValueError(f"exposure must hold fractions with 0 <= start < end <= 1, got ({start:g}, {end:g})")
    if (start, end) == (0, 1):
        return path, weights
    times = _times(weights)
    first = np.searchsorted(times, start, side="right") - 1
    last = np.searchsorted(times, end, side="left")
    edges = np.concatenate(([start], times[first + 1 : last], [end]))
    seen = np.empty((2, edges.size))
    # a rest of no duration, at which the path jumps, lies outside an exposure that starts or ends there
    seen[:, 0], seen[:, -1] = _position(path, times, start, first + 1), _position(path, times, end, last)
    seen[:, 1:-1] = path[:, first + 1 : last]
    return seen, np.diff(edges) / (end - start)


def _times(weights: np.ndarray) -> np.ndarray:
    times = np.concatenate(([0.0], np.cumsum(weights)))
    return times / times[-1]


def _position(path: np.ndarray, times: np.ndarray, time: float, after: int) -> np.ndarray:
    """Return the position (x, y) at a time in a segment that takes time, which ends at the vertex `after`."""
    part = (time - times[after - 1]) / (times[after] - times[after - 1])
    return path[:, after - 1] + part * (path[:, after] - path[:, after - 1])


def _mid_exposure(path: np.ndarray, times: np.ndarray, exposure: tuple[float, float]) -> np.ndarray:
    """Return the position (x, y) at the middle of an exposure, before the jump if the path jumps then."""
    time = sum(exposure) / 2
    after = np.searchsorted(times, max(time, _LEAST), side="left")  # half the least float is 0
    return _position(path, times, time, after)


def _anchor_point(path, weights, seen, seen_weights, exposure, anchor) -> tuple[float, float]:
    """Return the position (x, y) that goes to the centre pixel."""
    if anchor == "barycentre":
        return barycentre(seen, seen_weights)
    if anchor == "mid-exposure":
        return tuple(_mid_exposure(path, _times(weights), exposure))
    if anchor == "start":
        return tuple(path[:, 0])
    if anchor == "bbox":
        return tuple((seen.min(axis=1) + seen.max(axis=1)) / 2)
    raise ValueError(f"anchor must be one of {', '.join(ANCHORS)}, got {anchor!r}")


@njit
def barycentre(path, weights):
    """Return the mean position (x, y) over time of a path (2, n); `weights` (n - 1,) sum to 1."""
    x = y = 0.0
    for i in range(weights.shape[0]):
        x += weights[i] * (path[0, i] + path[0, i + 1])
        y += weights[i] * (path[1, i] + path[1, i + 1])
    return 0.5 * x, 0.5 * y


@njit
def render(path, weights, centre_x, centre_y, half):
    """Return the float32 kernel (k, k) of a path (2, n); `weights` sum to 1, k >= 2 half + 1 holds all its mass."""
    kernel = np.empty((2 * half + 1, 2 * half + 1), np.float32)
    needed = _render_into(path, weights, centre_x, centre_y, kernel)
    if needed > MAX_SIDE_PX // 2:
        raise ValueError(TOO_WIDE)
    if needed > half:
        kernel = np.empty((2 * needed + 1, 2 * needed + 1), np.float32)
        _render_into(path, weights, centre_x, centre_y, kernel)
    return kernel


@njit
def render_paths(paths, weights, kernels):
    """Fill `kernels` (lanes, k, k) with those of the barycentred `paths` (lanes, 2, n).

    Returns half the side that they need; if it is more than k // 2, some kernels lack mass.
    """
    needed = 0
    for lane in range(paths.shape[0]):
        x, y = barycentre(paths[lane], weights)
        needed = max(needed, _render_into(paths[lane], weights, x, y, kernels[lane]))
    return needed


@njit
def _render_into(path, weights, centre_x, centre_y, kernel):
    """Fill `kernel` with what it can hold of a path, and return half the side that holds all."""
    side = kernel.shape[0]
    mass, needed = _splat(path, weights, centre_x, centre_y, side // 2)
    for row in range(side):
        for column in range(side):
            here = mass[row, column]
            kernel[row, column] = here if here > _DUST else 0.0
    return needed


@njit
def _splat(path, weights, centre_x, centre_y, half):
    """Return the time integral of the bilinear splat of a path as far as `half` holds it, and the half that it needs.

    The mass has one row and one column more than the kernel: a path on the last pixel's line touches them with 0.
    A path that is not finite needs more than the widest kernel: on it the search for the next cell would never end.
    (cx, cy) is the cell, (u0, v0) to (u1, v1) a segment relative to the cell; w, u, v and uv sum up the time spent in
    the cell and the time integrals of 2 u, 2 v and 4 u v.
    """
    mass = np.zeros((2 * half + 2, 2 * half + 2))
    needed = 0
    x, y = path[0, 0] - centre_x, path[1, 0] - centre_y
    if not _is_near(x, y):
        return mass, MAX_SIDE_PX
    cx, cy = np.floor(x), np.floor(y)
    u0, v0 = x - cx, y - cy
    w = u = v = uv = 0.0
    for i in range(weights.shape[0]):
        time = weights[i]
        x, y = path[0, i + 1] - centre_x, path[1, i + 1] - centre_y
        if not _is_near(x, y):
            return mass, MAX_SIDE_PX
        u1, v1 = x - cx, y - cy
        while not (0.0 <= u1 <= 1.0 and 0.0 <= v1 <= 1.0):
            part, step_x, step_y = _exit(u0, v0, u1, v1)
            edge_u = max(step_x, 0.0) if step_x != 0.0 else _unit(u0 + part * (u1 - u0))
            edge_v = max(step_y, 0.0) if step_y != 0.0 else _unit(v0 + part * (v1 - v0))
            w, u, v, uv = _along(u0, v0, edge_u, edge_v, time * part, w, u, v, uv)
            needed = max(needed, _deposit(mass, half, int(cx), int(cy), w, u, v, uv))
            w = u = v = uv = 0.0
            time *= 1.0 - part
            cx, cy = cx + step_x, cy + step_y
            u0, v0 = edge_u - step_x, edge_v - step_y
            u1, v1 = x - cx, y - cy  # exact comparisons: they cannot send the path to and fro
        w, u, v, uv = _along(u0, v0, u1, v1, time, w, u, v, uv)
        u0, v0 = u1, v1
    return mass, max(needed, _deposit(mass, half, int(cx), int(cy), w, u, v, uv))


@njit
def _is_near(x, y):
    """Return whether a position is finite and in reach, so that a segment to it crosses a bounded number of cells."""
    return abs(x) < _REACH_PX and abs(y) < _REACH_PX


@njit
def _unit(u):
    return min(max(u, 0.0), 1.0)


@njit
def _exit(u0, v0, u1, v1):
    """Return where a segment leaves the unit cell: the fraction of its length, and the step (x, y) to the next cell."""
    part_x = part_y = 2.0
    step_x = step_y = 0.0
    if u1 > 1.0:
        part_x, step_x = (1.0 - u0) / (u1 - u0), 1.0
    elif u1 < 0.0:
        part_x, step_x = u0 / (u0 - u1), -1.0
    if v1 > 1.0:
        part_y, step_y = (1.0 - v0) / (v1 - v0), 1.0
    elif v1 < 0.0:
        part_y, step_y = v0 / (v0 - v1), -1.0
    if part_x < part_y:
        return part_x, step_x, 0.0
    return part_y, 0.0, step_y


@njit
def _along(u0, v0, u1, v1, time, w, u, v, uv):
    """Return the sums (w, u, v, uv) after a straight piece from (u0, v0) to (u1, v1) inside the cell."""
    twice_u, twice_v = u0 + u1, v0 + v1
    product = twice_u * twice_v + (u1 - u0) * (v1 - v0) * (1.0 / 3.0)
    return w + time, u + time * twice_u, v + time * twice_v, uv + time * product


@njit
def _deposit(mass, half, cx, cy, w, u, v, uv):
    """Add what one cell gathered to its four corners if all lie within `half`; return the half that they need."""
    needed = max(-cx, -cy, cx + 1 if u > 0.0 else cx, cy + 1 if v > 0.0 else cy) if w > 0.0 else 0
    if w > 0.0 and needed <= half:
        row, column = cy + half, cx + half
        u, v, uv = 0.5 * u, 0.5 * v, 0.25 * uv
        mass[row, column] += w - u - v + uv
        mass[row, column + 1] += u - uv
        mass[row + 1, column] += v - uv
        mass[row + 1, column + 1] += uv
    return needed
