"""Pictures for human eyes: contact sheets of kernels and of samples, and how far the blur reaches."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

GAP_PX = 4
# Gaps are grey: pages and kernels are white at their ends.
PAPER, GAP = 255, 160


def kernel_sheet(kernels: Iterable[np.ndarray], columns: int | None = None, tile_px: int = 128) -> np.ndarray:
    """Return a contact sheet of kernels, each stretched to its own maximum, dark on white.

    Parameters
    ----------
    kernels : iterable of (k, k) float
    columns : int, optional
        Kernels in a row; a sheet about as wide as high without it.
    tile_px : int
        Least side of a kernel's picture, px; kernels are enlarged by a whole factor.

    Returns
    -------
    (H, W) uint8
    """
    tiles = [kernel_tile(kernel, tile_px) for kernel in kernels]
    return _grid(tiles, columns or int(np.ceil(len(tiles) ** 0.5)))


def kernel_tile(kernel: np.ndarray, tile_px: int) -> np.ndarray:
    """Return one kernel as a (t, t) uint8 picture, dark on white; its square root, so that faint parts are seen."""
    shown = PAPER - np.rint(PAPER * np.sqrt(kernel / kernel.max())).astype(np.uint8)
    factor = max(1, round(tile_px / len(kernel)))
    return np.kron(shown, np.ones((factor, factor), np.uint8))


def sample_sheet(rows: Sequence[Sequence[np.ndarray]], tile_px: int = 256) -> np.ndarray:
    """Return a sheet with a row per sample and a column per picture, such as sharp | blurred | kernel.

    Parameters
    ----------
    rows : sequence of sequences
        Images (H, W, 3) uint8 RGB; a (k, k) float array is shown as a kernel.
    tile_px : int
        Side of a picture on the sheet, px.

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    tiles = [_fit(kernel_tile(item, tile_px) if item.ndim == 2 else item, tile_px) for row in rows for item in row]
    return _grid(tiles, len(rows[0]))


def label_overlay(label: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 RGB tinted by its label map (H, W) uint8: a colour of its own for each id.

    The image shows as gray levels at half the contrast below colours of equal strength.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint((gray + _label_colours()[label]) / 2).astype(np.uint8)


def class_map(prior: np.ndarray, side: int) -> np.ndarray:
    """Return the likeliest class (side, side) uint8 of probabilities (K, h, w), each place enlarged."""
    rows = np.arange(side) * prior.shape[1] // side
    return prior.argmax(axis=0).astype(np.uint8)[rows[:, None], rows]


def _label_colours() -> np.ndarray:
    """Return 256 colours (256, 3) uint8 RGB, of which those with near ids differ most."""
    # Hues a golden section of the circle apart; OpenCV counts them to 180.
    hues = (np.arange(256) * 0.618034 * 180 % 180).astype(np.uint8)
    strength = 200 - 60 * (np.arange(256) // 8 % 2).astype(np.uint8)
    hsv = np.stack([hues, np.full(256, 190, np.uint8), strength], axis=-1)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]


def extent_px(kernel: np.ndarray) -> int:
    """Return the longer side, px, of the box around the values above 2 % of the kernel's maximum."""
    marked = kernel > 0.02 * kernel.max()
    return 1 + max(int(np.ptp(np.flatnonzero(marked.any(axis=axis)))) for axis in (0, 1))


def extent_histogram(extents_px: Sequence[int], width_px: int, height_px: int = 220) -> np.ndarray:
    """Return a plot of blur extents, (height_px, width_px, 3) uint8 RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_px / 100, height_px / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    bin_px = -(-max(extents_px) // 40)
    axes.hist(extents_px, bins=np.arange(0.5, max(extents_px) + bin_px + 0.5, bin_px), color="0.35")
    axes.set(xlabel="extent of the kernel, px", ylabel="samples")
    axes.set_title(f"{len(extents_px)} kernels, median {np.median(extents_px):g} px", fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def stack(*pictures: np.ndarray) -> np.ndarray:
    """Return RGB pictures one below the other on white, as wide as the widest."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, GAP_PX), (0, width - p.shape[1]), (0, 0)), constant_values=PAPER) for p in pictures]
    return np.concatenate(padded)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a gray or RGB uint8 image; raises OSError where the file cannot be written."""
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    smaller = max(image.shape) > side
    return cv2.resize(colour, (side, side), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)


def _grid(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    height = GAP_PX + max(tile.shape[0] for tile in tiles)
    width = GAP_PX + max(tile.shape[1] for tile in tiles)
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height + GAP_PX, columns * width + GAP_PX, *tiles[0].shape[2:]), GAP, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = GAP_PX + height * (number // columns), GAP_PX + width * (number % columns)
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet
