"""Parts of an image at another scale: bicubic, anti-aliased, at exact fractional positions.

The weights of an output pixel depend on where it lies in the source and on the scale alone, so that the same place
comes out the same, bit for bit, however large the part around it is.
"""

import numpy as np

from blurgen.jit import njit


def resample(
    light: np.ndarray, origin: tuple[int, int], corner: tuple[float, float], step: float, margin: int, side: int
) -> np.ndarray:
    """Return a square part of an image at another scale, (side, side, C) float32.

    Parameters
    ----------
    light : (H, W, C) float32
        Linear light of a window of the image, at least ``reach(step) + 1`` px larger than the part on all sides.
    origin : (y, x) int
        Where in the image the window begins, px.
    corner : (y, x) float
        Where in the image output pixel `margin` begins, px; may be fractional.
    step : float
        Source px per output px; above 1 the kernel widens with it, so that nothing aliases.
    margin : int
        Output pixels before `corner`.
    side : int
        Side of the output, px.

    References
    ----------
    R. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981, a = -1/2.
    """
    (first_row, row_weights), (first_column, column_weights) = (_weights(at, step, margin, side) for at in corner)
    rows = _mix_rows(light.reshape(len(light), -1), first_row - origin[0], row_weights)
    # The columns are the rows of the transposed image.
    turned = np.ascontiguousarray(rows.reshape(side, light.shape[1], -1).transpose(1, 0, 2))
    columns = _mix_rows(turned.reshape(light.shape[1], -1), first_column - origin[1], column_weights)
    return np.ascontiguousarray(columns.reshape(side, side, -1).transpose(1, 0, 2))


def reach(step: float) -> int:
    """Return how many source px beyond a part its output pixels read."""
    return int(np.ceil(2 * max(1.0, step)))


def _weights(corner: float, step: float, margin: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first source pixel (side,) and the weights (side, taps) float32 of each output pixel of an axis."""
    width = max(1.0, step)
    centres = corner + (np.arange(side) - margin + 0.5) * step - 0.5
    first = np.floor(centres).astype(np.int64) - reach(step) + 1
    distance = np.abs(first[:, None] + np.arange(2 * reach(step)) - centres[:, None]) / width
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@njit(nogil=True)
def _mix_rows(source, first, weights):
    """Return rows that are weighted sums of consecutive rows of the source."""
    out = np.zeros((first.size, source.shape[1]), np.float32)
    for y in range(first.size):
        for tap in range(weights.shape[1]):
            weight = weights[y, tap]
            if weight != 0:
                row = source[first[y] + tap]
                for x in range(row.size):
                    out[y, x] += weight * row[x]
    return out
