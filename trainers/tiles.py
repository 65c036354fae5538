"""A fast, approximate result of a network on an image whose feature maps do not fit in memory.

The statistics of all norms are taken once and then frozen; with them the image is computed in tiles that overlap, and
are blended where they do.

The statistics come from small patches at the image's own resolution, normalised jointly, as if they were one image.
They are drawn by strata: dark and bright, flat and detailed parts of the image each have their share. A pass over the
reduced image sees all of it, but reduction takes away the blur and the noise that the first layers respond to. Mean
errors, in shares of the range of values, of a network for text (width 16) on images of 0.3 to 0.9 megapixels:

    pixels used                              page     sign     two streets
    a quarter, patches of 48 px              0.001    0.007    0.009   0.006
    a quarter, reduced image                 0.008    0.014    0.011   0.007
    a sixteenth, patches of 48 px            0.002    0.011    0.012   0.007
    a sixteenth, reduced image               0.008    0.031    0.029   0.018

Few large patches in a regular grid miss much of a street: of 128 px, with a quarter of the pixels, 0.031 and 0.062.
Measuring once more under frozen statistics, over all of the image, does not help but diverges: each norm is then set
right for what the old norms before it made.

With these statistics the tiles are exact, where they overlap by twice the receptive radius, and their seams vanish.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from trainers.band_plan import BandPlan
from trainers.method import Restorer
from trainers.moments import NORMS, Moments, Normalisation
from trainers.padding import PaddedImage
from trainers.rows import trace_restoring

# Many patches miss nothing, and large ones have little border: so large that there are about a hundred, within limits.
LEAST_PATCH_PX, MOST_PATCH_PX, PATCHES = 48, 256, 100
MARGIN = 0.375
# A tile in the middle of a map this high sees no border of it.
AMPLE_PX = 4096


class FrozenNorms(fx.Interpreter):
    """A network whose norms keep the statistics that they had at their first call, over all images of the batch.

    Parameters
    ----------
    graph : GraphModule
        From `trace_restoring`.
    """

    def __init__(self, graph: fx.GraphModule):
        super().__init__(graph)
        self._norms: dict[fx.Node, Normalisation] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Return what a node gives."""
        module = self.module.get_submodule(n.target) if n.op == "call_module" else None
        if not isinstance(module, NORMS):
            return super().run_node(n)
        (x,), _ = self.fetch_args_kwargs_from_env(n)
        if n not in self._norms:
            moments = Moments()
            moments.add(x)
            self._norms[n] = moments.normalisation(module)
        return self._norms[n](x)


def receptive_radius(restorer: Restorer) -> int:
    """Return how far from an output pixel an input pixel may lie that it depends on, norms apart, in input px."""
    multiple = restorer.multiple
    height = AMPLE_PX // multiple * multiple
    plan = BandPlan(
        trace_restoring(restorer), height, 64 * multiple, restorer.latent, keep=False, channels=restorer.channels
    )
    (stage,) = plan.stages.values()
    middle = height // multiple // 2 * multiple
    spans = plan.spans(stage, middle * restorer.scale, (middle + multiple) * restorer.scale)
    low, high = spans[stage.order[0]]
    return max(middle - low, high - (middle + multiple))


class Tile(NamedTuple):
    """Where a tile lies along one axis, and the share that it has in each of its pixels of the result."""

    first: int
    last: int
    shares: np.ndarray


def cut_axis(length: int, side: int, overlap: int, multiple: int, scale: int = 1) -> list[Tile]:
    """Return tiles of `side` px that cover an axis of `length` px and overlap by `overlap` px, or more at its end.

    Shares rise and fall along a straight line in the middle of where tiles overlap; of each pixel they add up to 1.

    Examples
    --------
    >>> [(tile.first, tile.last) for tile in cut_axis(20, 12, 4, 4)]
    [(0, 12), (8, 20)]
    """
    side = min(side // multiple * multiple, length)
    step = max(multiple, (side - overlap) // multiple * multiple)
    firsts = [*range(0, length - side, step), length - side]
    weights = []
    for first in firsts:
        before = np.arange(side * scale) + 0.5
        shared = max(1, side - step) * scale
        # Nothing of the margin, which lacks what lies beyond the tile, and a ramp in the middle of what is shared.
        rising = (before / shared - MARGIN) / (1 - 2 * MARGIN) if first else np.ones(side * scale)
        falling = (
            (before[::-1] / shared - MARGIN) / (1 - 2 * MARGIN) if first + side < length else np.ones(side * scale)
        )
        weights.append(np.minimum(rising, falling).clip(0, 1))
    total = np.zeros(length * scale)
    for first, weight in zip(firsts, weights, strict=True):
        total[first * scale : (first + side) * scale] += weight
    return [
        Tile(first, first + side, weight / total[first * scale : (first + side) * scale])
        for first, weight in zip(firsts, weights, strict=True)
    ]


class Tiling(NamedTuple):
    """How an image is divided, px.

    Parameters
    ----------
    side : int
        Side of the tiles.
    overlap : int
        Of neighbouring tiles; with twice the receptive radius there are no seams.
    sampled : int
        How many pixels the patches have together that the statistics are taken from.
    """

    side: int
    overlap: int
    sampled: int


def run_in_tiles(
    restorer: Restorer,
    image: PaddedImage,
    z: Tensor | None,
    tiling: Tiling,
    fill: Callable[[int, Tensor], None],
    progress: Callable[[float], None] = lambda done: None,
) -> None:
    """Restore an image in tiles; call it without gradients.

    Parameters
    ----------
    z : Tensor, optional
        (1, latent), the code of the blur.
    fill : callable
        Takes rows of the image that comes out: the number of the first row, and rows (1, 3, n, W).
    progress : callable
        Is told how much of the work is done, 0 to 1.
    """
    network, scale = FrozenNorms(trace_restoring(restorer)), restorer.scale

    def run(part: Tensor) -> Tensor:
        return network.run(part) if z is None else network.run(part, z.expand(len(part), -1))

    run(sample_patches(image, tiling.sampled, restorer.multiple))
    rows, columns = (
        cut_axis(length, tiling.side, tiling.overlap, restorer.multiple, scale)
        for length in (image.height, image.width)
    )
    # Rows that the next row of tiles has a share in.
    waiting = torch.zeros(1, 3, 0, image.width * scale, device=image.device)
    for number, row in enumerate(rows):
        strip = torch.zeros(1, 3, (row.last - row.first) * scale, image.width * scale, device=image.device)
        strip[:, :, : waiting.shape[2]] = waiting
        for at, column in enumerate(columns):
            result = run(image.part(row.first, row.last, column.first, column.last)).float()
            shares = torch.from_numpy(np.outer(row.shares, column.shares).astype(np.float32)).to(result.device)
            strip[..., column.first * scale : column.last * scale] += result * shares
            progress((number + (at + 1) / len(columns)) / len(rows))
        following = rows[number + 1].first if number + 1 < len(rows) else row.last
        finished = (following - row.first) * scale
        fill(row.first * scale, strip[:, :, :finished])
        waiting = strip[:, :, finished:]


def sample_patches(image: PaddedImage, pixels: int, multiple: int) -> Tensor:
    """Return patches (n, C, side, side) of about `pixels` px together, as bright and as detailed as the image."""
    side = min(max(math.isqrt(pixels // PATCHES), LEAST_PATCH_PX), MOST_PATCH_PX, image.height, image.width)
    side = side // multiple * multiple
    places, brightness, detail = _survey(image, side)
    chosen = draw_by_strata(brightness, detail, min(len(places), max(1, pixels // side**2)))
    return torch.cat([image.part(top, top + side, left, left + side) for top, left in places[chosen]])


def _survey(image: PaddedImage, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the corners (n, 2) of all patches of a grid, their mean values, and the mean size of their slopes."""
    places, brightness, detail = [], [], []
    across = image.width // side
    for top in range(0, image.height - side + 1, side):
        gray = image.part(top, top + side, 0, across * side)[0, :3].mean(0).reshape(side, across, side)
        places += [(top, column * side) for column in range(across)]
        brightness.append(gray.mean((0, 2)))
        detail.append(gray.diff(dim=0).abs().mean((0, 2)) + gray.diff(dim=2).abs().mean((0, 2)))
    return np.array(places), torch.cat(brightness).cpu().numpy(), torch.cat(detail).cpu().numpy()


def draw_by_strata(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Return `count` positions: as many from each range of `first`, and evenly from low to high `second` within it."""
    groups = np.array_split(np.argsort(first, kind="stable"), max(1, round(count**0.5)))
    chosen = []
    for group, share in zip(groups, np.array_split(np.arange(count), len(groups)), strict=True):
        ordered = group[np.argsort(second[group], kind="stable")]
        chosen.append(ordered[((np.arange(len(share)) + 0.5) * len(group) / len(share)).astype(int)])
    return np.concatenate(chosen)
