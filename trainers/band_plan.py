"""Which feature maps of a network must be kept whole while it is computed in bands of rows."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import fx
from torch.fx.passes.shape_prop import ShapeProp

from trainers.memory import meta_twin
from trainers.moments import NORMS
from trainers.rows import Layer, is_mean_over_pixels, is_pointwise, layer_of

BAND_BYTES = 256 << 20
FLOAT_BYTES = 4
MANY_USERS = 2


class Stage(NamedTuple):
    """One pass over a map in bands.

    Attributes
    ----------
    target : Node
        The map.
    order : tuple of Node
        What is computed for it, itself last, each after what it needs; and first of all `leaves`.
    leaves : frozenset of Node
        What is read: the image and maps that are kept.
    rows : int
        Rows of a band.
    cost : float
        Bytes that are computed; the share of the stage in the work.
    """

    target: fx.Node
    order: tuple[fx.Node, ...]
    leaves: frozenset[fx.Node]
    rows: int
    cost: float


class BandPlan:
    """What is kept and in which passes, for one network and one size of image.

    Parameters
    ----------
    graph : GraphModule
        From `trace_encoding` or `trace_restoring`.
    height, width : int
        Size of the padded image, px.
    latent : int
        Size of the code that the graph takes, if it takes one.
    band_bytes : int
        Bound for the feature maps of a band.
    channels : int
        Of the image.
    keep : bool
        False plans as if norms needed no statistics, to see what depends on what.

    Attributes
    ----------
    sizes : dict of Node to (channels, height, width)
        The maps.
    kept : set of Node
        Those that are kept whole.
    stages : dict of Node to Stage
        In the order in which they run, by target.
    kept_bytes : int
        What is kept at one time, at most, in float32.

    Raises
    ------
    ValueError
        The network has a layer that cannot be computed in bands.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        height: int,
        width: int,
        latent: int = 0,
        band_bytes: int = BAND_BYTES,
        keep: bool = True,
        channels: int = 3,
    ):
        self.graph, self._band_bytes = graph, band_bytes
        self.sizes = _map_sizes(graph, (channels, height, width), latent)
        self.layers: dict[fx.Node, Layer] = {}
        for node in self.sizes:
            if node.op == "call_module" and (layer := layer_of(self.module(node))) is not None:
                self.layers[node] = layer
        self.kept = self._find_kept() if keep else set()
        self.stages = {target: self._stage(target) for target in self._find_targets()}
        self.kept_bytes = max(map(sum, self._bytes_kept()), default=0)

    def module(self, node: fx.Node) -> torch.nn.Module:
        """Return the module that a node calls."""
        return self.graph.get_submodule(str(node.target))

    def is_measured(self, node: fx.Node) -> bool:
        """Return whether the moments of a map are needed: it is normalised, or the mean is taken over its pixels."""
        return any(self.is_norm(user) or user not in self.sizes for user in node.users if user.op != "output")

    def is_norm(self, node: fx.Node) -> bool:
        """Return whether a node is a normalisation over a whole map."""
        return node.op == "call_module" and isinstance(self.module(node), NORMS)

    def spans(self, stage: Stage, first: int, last: int) -> dict[fx.Node, tuple[int, int]]:
        """Return which rows of each map the rows `first` to `last` (excluded) of the stage's target need."""
        spans = {stage.target: (first, last)}
        for node in reversed(stage.order):
            if node in stage.leaves:
                continue
            for source in self.maps_into(node):
                low, high = spans[node]
                if node in self.layers:
                    low, high = self.layers[node].needs(low, high, self.sizes[source][1])
                before = spans.get(source, (low, high))
                spans[source] = min(low, before[0]), max(high, before[1])
        return spans

    def maps_into(self, node: fx.Node) -> list[fx.Node]:
        """Return the maps that a node takes."""
        return [source for source in node.all_input_nodes if source in self.sizes]

    def last_uses(self) -> dict[fx.Node, fx.Node]:
        """Return the target of the last stage that reads each kept map."""
        return {leaf: target for target, stage in self.stages.items() for leaf in stage.leaves}

    def bytes_of(self, node: fx.Node, rows: int | None = None) -> int:
        """Return the size of a map, or of some rows of it."""
        channels, height, width = self.sizes[node]
        return channels * width * (height if rows is None else rows) * FLOAT_BYTES

    def _find_kept(self) -> set[fx.Node]:
        """Return what norms normalise, and what it would cost too much to compute for each of its users anew.

        These are the sums of kept maps: of a chain of residual sums the n-th would read n maps. And maps that serve
        throughout a network, such as a condition.
        """
        kept: set[fx.Node] = set()
        reads: dict[fx.Node, set[fx.Node]] = {}
        for node in self.sizes:
            normalised = any(map(self.is_norm, node.users))
            reads[node] = set().union(*(reads[source] for source in self.maps_into(node)))
            if node.op == "placeholder":
                _refuse_norm_of_image(normalised)
                continue
            users = [user for user in node.users if user.op != "output"]
            if normalised or len(users) > MANY_USERS or (len(users) > 1 and len(reads[node]) > 1):
                kept.add(node)
                reads[node] = {node}
        return kept

    def _find_targets(self) -> Iterator[fx.Node]:
        """Yield what is computed over all rows: kept maps, maps whose mean is taken, and the image that comes out."""
        for node in self.graph.graph.nodes:
            if node in self.kept:
                yield node
            elif node not in self.sizes:
                yield from (source for source in self.maps_into(node) if source not in self.kept)

    def _stage(self, target: fx.Node) -> Stage:
        def is_leaf(node: fx.Node) -> bool:
            return node.op == "placeholder" or (node in self.kept and node is not target)

        wanted, leaves = {target}, set()
        for node in reversed(self.sizes):
            if node in wanted and is_leaf(node):
                leaves.add(node)
            elif node in wanted:
                wanted.update(self.maps_into(node))
        order = tuple(node for node in self.sizes if node in wanted)
        stage = Stage(target, order, frozenset(leaves), self.sizes[target][1], 0)
        while stage.rows > 1 and self._band_cost(stage) > self._band_bytes:
            stage = stage._replace(rows=(stage.rows + 1) // 2)
        return stage._replace(cost=self._band_cost(stage) * self.sizes[target][1] / stage.rows)

    def _band_cost(self, stage: Stage) -> int:
        """Return the bytes of all maps for a band in the middle of the target, as if they were kept until its end."""
        first = (self.sizes[stage.target][1] - stage.rows) // 2
        spans = self.spans(stage, first, first + stage.rows)
        return sum(self.bytes_of(node, high - low) for node, (low, high) in spans.items())

    def _bytes_kept(self) -> Iterator[list[int]]:
        """Yield the sizes of the maps that are kept in each stage."""
        last_uses, held = self.last_uses(), set()
        for target in self.stages:
            if target in self.kept:
                held.add(target)
            yield [self.bytes_of(node) for node in held]
            held -= {node for node, last in last_uses.items() if last is target}


def _refuse_norm_of_image(normalised: bool) -> None:
    if normalised:
        raise ValueError("a norm of the image itself cannot be computed in parts here: take --tiles whole")


def _map_sizes(graph: fx.GraphModule, image: tuple[int, int, int], latent: int) -> dict[fx.Node, tuple[int, int, int]]:
    """Return (channels, height, width) of all nodes that are maps, in the order in which they are computed."""
    images = [torch.empty(1, *image, device="meta"), torch.empty(1, latent, device="meta")]
    traced = meta_twin(graph)
    inputs = images[: sum(node.op == "placeholder" for node in graph.graph.nodes)]
    with torch.no_grad():
        ShapeProp(traced).propagate(*inputs)
    sizes: dict[fx.Node, tuple[int, int, int]] = {}
    for node, twin in zip(graph.graph.nodes, traced.graph.nodes, strict=True):
        from_map = any(source in sizes for source in node.all_input_nodes)
        shape = getattr(twin.meta.get("tensor_meta"), "shape", ())
        if not sizes or (from_map and len(shape) == 4 and (node.op == "call_module" or is_pointwise(node))):
            sizes[node] = tuple(shape[1:])
        elif from_map and node.op != "output" and not is_mean_over_pixels(node):
            what = graph.get_submodule(str(node.target)) if node.op == "call_module" else node.target
            raise ValueError(f"{what} cannot be computed in parts here: take --tiles whole")
    return sizes
