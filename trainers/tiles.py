"""A fast, approximate result of a network on an image whose feature maps do not fit in memory.

The statistics of all norms are taken once and then frozen; with them the image is computed in tiles that overlap, and
are blended where they do.

The statistics come from patches at the image's own resolution, spread evenly over it and normalised jointly, as if
they were one image. A pass over the reduced image, which sees all of it, is worse: reduction takes away the blur and
the noise that the first layers respond to, so that their statistics, and those of all that follow, are of another
kind of image. With networks of random weights and photographs of 0.9 megapixels, the mean error was 0.053 and 0.047 of
the range of values with the image reduced to 28 % of its pixels, 0.030 and 0.028 with patches of as many. What remains
is the error of sampling: it falls with the share of the image that the patches cover. Measuring once more under frozen
statistics, over all of the image, does not help but diverges: each norm is then set right for what the old norms
before it made.

With these statistics the tiles are exact, where they overlap by twice the receptive radius, and their seams vanish.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from trainers.band_plan import BandPlan
from trainers.method import Restorer
from trainers.moments import NORMS, Moments, Normalisation
from trainers.padding import PaddedImage
from trainers.rows import trace_restoring

# Smaller patches are more at the same cost, and spread better; larger ones have less border. Of 64 to 256, the best.
PATCH_PX = 128
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
    plan = BandPlan(trace_restoring(restorer), height, 64 * multiple, restorer.latent, keep=False)
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

    run(torch.cat(list(spread_patches(image, tiling.sampled, restorer.multiple))))
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


def spread_patches(image: PaddedImage, pixels: int, multiple: int) -> Iterator[Tensor]:
    """Yield patches of the image, evenly spread over it from border to border, of about `pixels` px together."""
    high, wide = (min(PATCH_PX // multiple * multiple, length) for length in (image.height, image.width))
    count = max(1, pixels // (high * wide))
    down = min(count, max(1, round((count * image.height * wide / (image.width * high)) ** 0.5)))
    across = count // down
    for top in _spread(image.height - high, min(down, -(-image.height // high))):
        for left in _spread(image.width - wide, min(across, -(-image.width // wide))):
            yield image.part(top, top + high, left, left + wide)


def _spread(last: int, count: int) -> list[int]:
    """Return `count` whole numbers from 0 to `last`; the middle for one."""
    return np.linspace(0, last, count).round().astype(int).tolist() if count > 1 else [last // 2]
