"""Networks as graphs of layers of which single rows can be asked for, so that no feature map need exist as a whole."""

import operator
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from trainers.blocks import LAYERS, with_code
from trainers.method import Restorer
from trainers.padding import reflected

POINTWISE_MODULES = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Hardtanh)
POINTWISE_FUNCTIONS = frozenset(
    {operator.add, operator.sub, operator.mul, torch.add, torch.sub, torch.mul, torch.tanh, torch.clamp, torch.relu}
    | {F.relu, F.leaky_relu, F.tanh, with_code}
)
POINTWISE_METHODS = frozenset({"add", "sub", "mul", "tanh", "clamp", "relu"})
PIXEL_AXES = ({2, 3}, {-2, -1})


class Rows(NamedTuple):
    """Rows of a feature map, from `first` on: values (1, C, n, W)."""

    first: int
    values: Tensor

    def cut(self, first: int, last: int) -> Tensor:
        """Return the rows `first` to `last` (excluded) of the map."""
        return self.values[:, :, first - self.first : last - self.first]


class Layer(Protocol):
    """What makes rows of a map from rows of another."""

    def needs(self, first: int, last: int, height: int) -> tuple[int, int]:
        """Return which rows of an input of `height` rows the output's rows `first` to `last` (excluded) need."""

    def make(self, rows: Rows, first: int, last: int, height: int) -> Tensor:
        """Return the output's rows from (at least) the rows needed."""


class Window:
    """A convolution or a mean over a window, with zeros around the map."""

    def __init__(self, module: nn.Conv2d | nn.AvgPool2d):
        kernel, stride, padding = (_pair(getattr(module, name)) for name in ("kernel_size", "stride", "padding"))
        self._stride, self._padding = stride[0], padding[0]
        if isinstance(module, nn.AvgPool2d):
            _require(not module.ceil_mode and padding == (0, 0), module)
            self._reach, self._apply = kernel[0], module
            return
        _require(module.padding_mode == "zeros", module)
        self._reach = (kernel[0] - 1) * module.dilation[0] + 1
        across = (0, padding[1])
        self._apply = lambda values: F.conv2d(
            values, module.weight, module.bias, stride, across, module.dilation, module.groups
        )

    def needs(self, first: int, last: int, height: int) -> tuple[int, int]:
        """Return the rows below the windows that lie in the map."""
        top, bottom = self._span(first, last)
        return max(0, top), min(height, bottom)

    def make(self, rows: Rows, first: int, last: int, height: int) -> Tensor:
        """Return the rows of the output."""
        top, bottom = self._span(first, last)
        values = rows.cut(max(0, top), min(height, bottom))
        if top < 0 or bottom > height:
            values = F.pad(values, (0, 0, max(0, -top), max(0, bottom - height)))
        return self._apply(values)

    def _span(self, first: int, last: int) -> tuple[int, int]:
        return first * self._stride - self._padding, (last - 1) * self._stride - self._padding + self._reach


class Transposed:
    """A transposed convolution: row i of the output takes from the rows j with i = stride j - padding + tap."""

    def __init__(self, module: nn.ConvTranspose2d):
        self._module, self._stride, self._padding = module, module.stride[0], module.padding[0]
        self._reach = (module.kernel_size[0] - 1) * module.dilation[0] + 1

    def needs(self, first: int, last: int, height: int) -> tuple[int, int]:
        """Return the rows whose taps fall on the output's, one at least."""
        # A row that no tap falls on still needs one to start from.
        start = (first + self._padding) // self._stride
        lowest = min(start, -((self._reach - 1 - first - self._padding) // self._stride))
        highest = min(height - 1, (last - 1 + self._padding) // self._stride)
        return min(max(0, lowest), highest), highest + 1

    def make(self, rows: Rows, first: int, last: int, height: int) -> Tensor:
        """Return the rows of the output."""
        module, (lowest, end) = self._module, self.needs(first, last, height)
        values = F.conv_transpose2d(
            rows.cut(lowest, end),
            module.weight,
            module.bias,
            module.stride,
            (0, module.padding[1]),
            (self._stride - 1, module.output_padding[1]),
            module.groups,
            module.dilation,
        )
        start = lowest * self._stride - self._padding
        return values[:, :, first - start : last - start]


class Reflected:
    """Reflection padding, at the true ends of the map only."""

    def __init__(self, module: nn.ReflectionPad2d):
        left, right, self._top, _ = module.padding
        self._across = (left, right, 0, 0)

    def needs(self, first: int, last: int, height: int) -> tuple[int, int]:
        """Return the rows that the output's fall on."""
        sources = self._sources(first, last, height)
        return int(sources.min()), int(sources.max()) + 1

    def make(self, rows: Rows, first: int, last: int, height: int) -> Tensor:
        """Return the rows of the output."""
        sources = self._sources(first, last, height)
        values = rows.values
        if np.array_equal(sources, np.arange(sources[0], sources[0] + len(sources))):
            values = rows.cut(int(sources[0]), int(sources[-1]) + 1)
        else:
            values = values.index_select(2, torch.from_numpy(sources - rows.first).to(values.device))
        return F.pad(values, self._across, mode="reflect")

    def _sources(self, first: int, last: int, height: int) -> np.ndarray:
        return reflected(np.arange(first - self._top, last - self._top), height)


def layer_of(module: nn.Module) -> Layer | None:
    """Return how a module makes rows from other rows; None where each of its rows takes from the same row alone.

    Raises
    ------
    ValueError
        A module that is not known here.
    """
    if isinstance(module, (nn.Conv2d, nn.AvgPool2d)):
        return Window(module)
    if isinstance(module, nn.ConvTranspose2d):
        return Transposed(module)
    if isinstance(module, nn.ReflectionPad2d):
        return Reflected(module)
    _require(isinstance(module, (*POINTWISE_MODULES, *LAYERS)), module)
    return None


def is_pointwise(node: fx.Node) -> bool:
    """Return whether a call of a function or method makes each row from the same row of its inputs."""
    if node.target in (torch.cat, torch.concat):
        return (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")) == 1
    return node.target in (POINTWISE_METHODS if node.op == "call_method" else POINTWISE_FUNCTIONS)


def is_mean_over_pixels(node: fx.Node) -> bool:
    """Return whether a call takes the mean of each channel."""
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    of_pixels = isinstance(axes, (tuple, list)) and set(axes) in PIXEL_AXES
    return node.target in ("mean", torch.mean) and of_pixels and not node.kwargs.get("keepdim", len(node.args) > 2)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _require(known: bool, module: nn.Module) -> None:
    if not known:
        raise ValueError(f"{module} cannot be computed in parts here: take --tiles whole")


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__(autowrap_functions=(with_code,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LAYERS) or super().is_leaf_module(m, module_qualified_name)


class _Path(nn.Module):
    """One of the functions of a Restorer as a module of its own."""

    def __init__(self, restorer: Restorer):
        super().__init__()
        self.restorer = restorer


class _Encoding(_Path):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.restorer.encode(image)


class _Restoring(_Path):
    def forward(self, image: Tensor) -> Tensor:
        return self.restorer.restore(image)


class _RestoringWithCode(_Path):
    def forward(self, image: Tensor, z: Tensor) -> Tensor:
        return self.restorer.restore(image, z)


def trace_encoding(restorer: Restorer) -> fx.GraphModule:
    """Return the graph image -> (mean, log variance) of a Restorer with a code."""
    return _trace(_Encoding(restorer))


def trace_restoring(restorer: Restorer) -> fx.GraphModule:
    """Return the graph image -> image of a Restorer, or (image, z) -> image where it has a code."""
    return _trace(_RestoringWithCode(restorer) if restorer.latent else _Restoring(restorer))


def _trace(path: _Path) -> fx.GraphModule:
    try:
        return fx.GraphModule(path, _Tracer().trace(path))
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"this network cannot be computed in parts ({error}): take --tiles whole") from error
