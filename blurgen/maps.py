"""Maps that go with an image, cut in step with it: the class of each pixel, and probabilities of classes."""

from typing import NamedTuple

import numpy as np

# A probability map of a crop has a place for so many px, squared: where the networks that it steers work.
PRIOR_FACTOR = 4


class Cells(NamedTuple):
    """A row of cells along an axis: the first begins at `start`, each is `step` long; in px of a map."""

    start: float
    step: float
    count: int


def cut_label(label: np.ndarray, corner: tuple[float, float], side: float, crop: int) -> np.ndarray:
    """Return the ids (crop, crop) uint8 that lie nearest to the pixel centres of a crop.

    Parameters
    ----------
    label : (H, W) uint8
        Of the size of the image. Ids are never mixed.
    corner : (y, x)
        Upper left corner of the box in the image, px; may be fractional.
    side : float
        Of the box, px.
    crop : int
        Side of the output, px.

    Examples
    --------
    >>> cut_label(np.arange(16, dtype=np.uint8).reshape(4, 4), (1, 0), 3.0, 3)
    array([[ 4,  5,  6],
           [ 8,  9, 10],
           [12, 13, 14]], dtype=uint8)
    """
    rows, columns = (
        np.clip(np.floor(start + (np.arange(crop) + 0.5) * (side / crop)).astype(np.int64), 0, length - 1)
        for start, length in zip(corner, label.shape, strict=True)
    )
    return label[rows[:, None], columns]


def cut_prior(
    prior: np.ndarray, size: tuple[int, int], corner: tuple[float, float], side: float, crop: int
) -> np.ndarray:
    """Return the probabilities (K, crop/4, crop/4) float16 of a crop.

    Parameters
    ----------
    prior : (K, h, w) float
        Of any resolution: it covers the image whatever its size.
    size : (H, W)
        Of the image, px.
    corner, side, crop
        As for `cut_label`.
    """
    count = crop // PRIOR_FACTOR
    scales = [mine / whole for mine, whole in zip(prior.shape[1:], size, strict=True)]
    return mix(
        prior, *(Cells(at * scale, side * scale / count, count) for at, scale in zip(corner, scales, strict=True))
    )


def whole_prior(prior: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the probabilities (K, H/4, W/4) float16, sizes rounded up, of a whole image of `size` (H, W) px."""
    return mix(
        prior,
        *(
            Cells(0.0, PRIOR_FACTOR * mine / whole, -(-whole // PRIOR_FACTOR))
            for mine, whole in zip(prior.shape[1:], size, strict=True)
        ),
    )


def mix(prior: np.ndarray, rows: Cells, columns: Cells) -> np.ndarray:
    """Return the means of a map (K, h, w) over cells, (K, rows, columns) float16, whose classes sum to 1.

    A cell of at least a px takes the mean over its area; a smaller one the value on the straight line between the px
    around its middle.
    """
    mixed = _mixed(_mixed(prior.transpose(1, 0, 2), rows).transpose(2, 1, 0), columns).transpose(1, 2, 0)
    mixed = np.maximum(mixed, 0)
    return np.ascontiguousarray((mixed / mixed.sum(axis=0)).astype(np.float16))


def _mixed(values: np.ndarray, cells: Cells) -> np.ndarray:
    """Return the weighted sums (count, ...) float32 of values (n, ...) along their first axis."""
    first, weights = _area(cells, len(values)) if cells.step >= 1 else _line(cells)
    out = np.zeros((cells.count, *values.shape[1:]), np.float32)
    for tap in range(weights.shape[1]):
        rows = values[np.clip(first + tap, 0, len(values) - 1)]
        out += weights[:, tap].reshape(-1, *[1] * (values.ndim - 1)) * rows
    return out


def _area(cells: Cells, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first px (count,) and the share of each px (count, taps) float32 in the area of each cell."""
    begins = cells.start + np.arange(cells.count) * cells.step
    first = np.floor(begins).astype(np.int64)
    px = first[:, None] + np.arange(int(np.ceil(cells.step)) + 1)
    # The last cell of a whole image may reach beyond it.
    overlap = np.minimum(np.minimum(px + 1, length), begins[:, None] + cells.step) - np.maximum(px, begins[:, None])
    shares = np.maximum(overlap, 0)
    return first, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def _line(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Return the px (count,) before the middle of each cell, and the weights (count, 2) of it and the next."""
    middles = cells.start + (np.arange(cells.count) + 0.5) * cells.step - 0.5
    first = np.floor(middles).astype(np.int64)
    behind = middles - first
    return first, np.stack([1 - behind, behind], axis=1).astype(np.float32)
