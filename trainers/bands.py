"""The exact result of a network on an image whose feature maps do not fit in memory.

Instance and layer norms need statistics of whole maps. What they normalise is computed in bands of rows, kept as it
comes, and measured on the way; so is each sum of two such maps that is used more than once. All other layers
(convolutions, paddings, activations) are never kept: what comes next asks for a band of rows, and they are computed
for the rows that this needs, with the true neighbours of the band at its edges. The statistics, and the mean over the
pixels that a code of the blur is read from, are joined in float64. So the result is that of the whole image but for
the order of sums: in float32 to about 1e-5.

What is kept takes `BandPlan.kept_bytes` at worst, in memory or in temporary files. With files, resident are the
weights, the image, its result, and about `band_bytes` of feature maps. The files are read and written, not mapped:
mapped pages would count as memory in use.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from blurgen.shards.drafts import write_all
from trainers.band_plan import BandPlan, Stage
from trainers.moments import Moments, Normalisation
from trainers.padding import PaddedImage
from trainers.rows import Rows


class MapInMemory:
    """A feature map on a device."""

    def __init__(self, size: tuple[int, int, int], device: torch.device):
        self._size, self._device = size, device
        self._values: Tensor | None = None

    def write(self, first: int, rows: Tensor) -> None:
        """Write rows (1, C, n, W) from row `first` on."""
        if self._values is None:
            self._values = torch.empty(1, *self._size, dtype=rows.dtype, device=self._device)
        self._values[:, :, first : first + rows.shape[2]] = rows

    def read(self, first: int, last: int) -> Tensor:
        """Return the rows `first` to `last` (excluded), (1, C, n, W)."""
        return self._values[:, :, first:last]

    def close(self) -> None:
        """Give the memory back."""
        self._values = None


class MapOnDisk:
    """A feature map in a temporary file, which no name leads to: it is gone when it is closed, or its process dies."""

    def __init__(self, size: tuple[int, int, int], folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._channels, _, self._width = size
        self._dtype = torch.float32

    def write(self, first: int, rows: Tensor) -> None:
        """Write rows (1, C, n, W) from row `first` on."""
        # A row of all channels lies together, so that a band is one piece of the file.
        values = rows[0].permute(1, 0, 2).contiguous().cpu()
        self._dtype = values.dtype
        write_all(self._file.fileno(), memoryview(values.view(torch.uint8).numpy()).cast("B"), first * self._row_bytes)

    def read(self, first: int, last: int) -> Tensor:
        """Return the rows `first` to `last` (excluded), (1, C, n, W)."""
        values = torch.empty(last - first, self._channels, self._width, dtype=self._dtype)
        buffer = memoryview(values.view(torch.uint8).numpy()).cast("B")
        at = 0
        while at < len(buffer):
            count = os.preadv(self._file.fileno(), [buffer[at:]], first * self._row_bytes + at)
            if not count:
                raise OSError("a temporary file ended before what was written to it: the disk has lost data")
            at += count
        return values.permute(1, 0, 2)[None]

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    @property
    def _row_bytes(self) -> int:
        return self._channels * self._width * self._dtype.itemsize


def run_in_bands(
    plan: BandPlan,
    image: PaddedImage,
    z: Tensor | None = None,
    fill: Callable[[int, Tensor], None] = lambda first, rows: None,
    keep_in: Path | torch.device | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Any:
    """Run a network on a whole image, and return what is no map of its output; call it without gradients.

    Parameters
    ----------
    image : PaddedImage
        Of the size that was planned for.
    z : Tensor, optional
        (1, latent), the code that the network takes.
    fill : callable
        Takes the bands of the image that comes out: the number of the first row, and rows (1, C, n, W).
    keep_in : Path or torch.device
        Where maps are kept: in temporary files in a folder, or in the memory of a device, by default the image's.
    progress : callable
        Is told how much of the work is done, 0 to 1.
    """
    run = _Run(plan, image, z, keep_in or image.device)
    try:
        return run.finish(fill, progress)
    finally:
        run.close()


class _Run:
    """What is known while a plan is carried out: values, moments and stored maps by node."""

    def __init__(self, plan: BandPlan, image: PaddedImage, z: Tensor | None, keep_in: Path | torch.device):
        self._plan, self._image, self._keep_in = plan, image, keep_in
        self._code = z
        self._values: dict[fx.Node, Any] = {}
        self._moments: dict[fx.Node, Moments] = {}
        self._norms: dict[fx.Node, Normalisation] = {}
        self._maps: dict[fx.Node, MapInMemory | MapOnDisk] = {}

    def close(self) -> None:
        for kept in self._maps.values():
            kept.close()

    def finish(self, fill: Callable[[int, Tensor], None], progress: Callable[[float], None]) -> Any:
        plan, done = self._plan, 0.0
        total = sum(stage.cost for stage in plan.stages.values())
        last_uses = plan.last_uses()
        for node in plan.graph.graph.nodes:
            if node in plan.stages:
                stage = plan.stages[node]
                goes_out = any(user.op == "output" for user in node.users)
                for last, rows in self._bands(stage):
                    self._take(node, last, rows, fill if goes_out else None)
                    progress((done + stage.cost * last / plan.sizes[node][1]) / total)
                done += stage.cost
                for kept in [one for one, target in last_uses.items() if target is node and one in self._maps]:
                    self._maps.pop(kept).close()
            elif node.op == "output":
                return None if plan.maps_into(node) else fx.node.map_arg(node.args[0], self._values.__getitem__)
            elif node not in plan.sizes:
                self._values[node] = self._value(node)
        raise AssertionError("a graph ends with its output")

    def _bands(self, stage: Stage) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of the row behind each band, and the band."""
        height = self._plan.sizes[stage.target][1]
        for first in range(0, height, stage.rows):
            last = min(first + stage.rows, height)
            yield last, self._rows(stage, first, last)

    def _take(self, node: fx.Node, last: int, rows: Tensor, fill: Callable[[int, Tensor], None] | None) -> None:
        first = last - rows.shape[2]
        if fill is not None:
            fill(first, rows)
        if self._plan.is_measured(node):
            self._moments.setdefault(node, Moments()).add(rows)
        if node in self._plan.kept:
            if node not in self._maps:
                kind = MapOnDisk if isinstance(self._keep_in, Path) else MapInMemory
                self._maps[node] = kind(self._plan.sizes[node], self._keep_in)
            self._maps[node].write(first, rows)

    def _rows(self, stage: Stage, first: int, last: int) -> Tensor:
        """Return rows of the stage's target; what comes before them is dropped as soon as it is used up."""
        plan, made = self._plan, {}
        spans = plan.spans(stage, first, last)
        uses = Counter(source for node in stage.order if node not in stage.leaves for source in plan.maps_into(node))
        for node in stage.order:
            low, high = spans[node]
            if node in self._maps and node in stage.leaves:
                values = self._maps[node].read(low, high)
                made[node] = Rows(low, values.to(self._image.device))
                continue
            if node in stage.leaves:
                made[node] = Rows(low, self._image.part(low, high))
                continue
            made[node] = Rows(low, self._make(node, low, high, made))
            for source in plan.maps_into(node):
                uses[source] -= 1
                if not uses[source]:
                    del made[source]
        return made[stage.target].values

    def _make(self, node: fx.Node, first: int, last: int, made: dict[fx.Node, Rows]) -> Tensor:
        """Return rows of a map from those of the maps that it is made from."""
        plan = self._plan
        if node in plan.layers:
            (source,) = plan.maps_into(node)
            return plan.layers[node].make(made[source], first, last, plan.sizes[source][1])
        if plan.is_norm(node):
            (source,) = plan.maps_into(node)
            if node not in self._norms:
                self._norms[node] = self._moments[source].normalisation(plan.module(node))
            return self._norms[node](made[source].cut(first, last))
        return self._call(node, lambda one: made[one].cut(first, last) if one in made else self._values[one])

    def _value(self, node: fx.Node) -> Any:
        """Return what a node gives that is no map."""
        if node.op == "placeholder":
            return self._code
        if maps := self._plan.maps_into(node):
            return self._moments[maps[0]].mean()[None]
        return self._call(node, self._values.__getitem__)

    def _call(self, node: fx.Node, value_of: Callable[[fx.Node], Any]) -> Any:
        """Return what the call of a node gives."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value_of)
        if node.op == "get_attr":
            return fx.graph_module._get_attr(self._plan.graph, node.target)
        if node.op == "call_module":
            module = self._plan.module(node)
            # What works in place would change rows that others still need.
            return module(args[0].clone()) if getattr(module, "inplace", False) else module(*args, **kwargs)
        return (
            getattr(args[0], node.target)(*args[1:], **kwargs)
            if node.op == "call_method"
            else node.target(*args, **kwargs)
        )
