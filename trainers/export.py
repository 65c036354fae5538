"""Inference paths for other programs: networks of any system as one ONNX file, checked against PyTorch.

The file needs neither PyTorch nor this project. What a program must know to use it (range, padding, scale) is in the
file's metadata, under keys that begin with ``trainers.``.

References
----------
Open Neural Network Exchange, https://onnx.ai; operators of version 18.
"""

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from blurgen import __version__
from blurgen.options import as_values
from blurgen.shards import write_atomically
from trainers.method import Restorer
from trainers.padding import LEAST_SIDE_PX
from trainers.weights import Weights, load_weights

OPSET = 18
MOST_DIFFERENCE = 1e-4
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
IMAGE, CODE, RESULT = "blurred", "epsilon", "sharp"
# A batch of one would be taken for a constant.
_EXAMPLE_BATCH = 2
_CONFIG = "trainers.config"
_GUIDES = {
    "label": "the label map, the number of the class of each pixel",
    "prior": "the probability of each class, in [0, 1], each value of the map repeated over 4 x 4 pixels",
}
# Batches, and how many times the multiple the sides are above the least ones.
_CHECKED = ((1, 0, 0), (1, 5, 1), (2, 3, 16), (3, 17, 9))


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes
    ----------
    path : Path
        The file.
    metadata : dict
        What the file says of itself.
    difference : float
        Largest absolute difference between its results in ONNX Runtime and PyTorch's, of values in [-1, 1].
    sizes : tuple of (int, int, int)
        Batches, heights and widths that were compared.
    """

    path: Path
    metadata: dict[str, str]
    difference: float
    sizes: tuple[tuple[int, int, int], ...]

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        sizes = ", ".join(f"{batch}x{height}x{width}" for batch, height, width in self.sizes)
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            **{key.removeprefix("trainers."): value for key, value in self.metadata.items() if key != _CONFIG},
            "largest difference from pytorch": float(f"{self.difference:.2g}"),
            "compared at": sizes,
        }


def export(
    weights: str | os.PathLike | Weights,
    out: str | os.PathLike | None = None,
    to: str = "onnx",
    with_code: bool = False,
) -> Exported:
    """Write the inference path of a run for another program, and compare its results with PyTorch's.

    Parameters
    ----------
    weights : path or Weights
        A run (its best weights, else its last), or one file of weights.
    out : path, optional
        The file, which is replaced if it is there; beside the weights and named like them by default.
    to : str
        A key of `FORMATS`.
    with_code : bool
        Give the network a second input, ``epsilon`` (batch, latent), that draws the code of the blur: it is mean +
        epsilon times deviation. Without it the code is its mean.

    Raises
    ------
    ValueError
        An unknown format, a name that is not one of its files, or `with_code` of a system that has no code.
    RuntimeError
        A package of the extra ``export`` is missing, or the results differ by more than 1e-4.
    """
    if to not in FORMATS:
        raise ValueError(f"to must be one of {', '.join(FORMATS)}, got {to!r}")
    require_packages()
    loaded = weights if isinstance(weights, Weights) else load_weights(weights)
    if with_code and not loaded.restorer.latent:
        raise ValueError(f"{loaded.method.name} has no code of the blur: leave out --with-code")
    path = loaded.path.with_suffix(f".{to}") if out is None else Path(out)
    if path.suffix != f".{to}":
        raise ValueError(f"the name of the file must end in .{to}, got {path}")
    metadata = describe(loaded, with_code)
    encoded = FORMATS[to](loaded.restorer, metadata, with_code)
    sizes = checked_sizes(loaded.restorer)
    difference = largest_difference(encoded, loaded.restorer, sizes, with_code)
    if not difference <= MOST_DIFFERENCE:
        raise RuntimeError(
            f"the results of the exported network differ from PyTorch's by {difference:.2g}, more than "
            f"{MOST_DIFFERENCE:g}, so nothing was written: try other versions of {', '.join(PACKAGES)} or torch"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [(0, encoded)], len(encoded))
    return Exported(path, metadata, difference, sizes)


def require_packages() -> None:
    """Raise a RuntimeError where a package of the extra ``export`` is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f'trainers export needs {", ".join(missing)}, not installed here: run `pip install "blurgen[export]"`'
        )


def describe(weights: Weights, with_code: bool) -> dict[str, str]:
    """Return what a program must know that uses the network, and where the network is from."""
    restorer, scale = weights.restorer, weights.restorer.scale
    sides = "height, width" if scale == 1 else f"{scale} height, {scale} width"
    facts = {
        "system": weights.method.name,
        "input": f"(batch, {restorer.channels}, height, width) float32; RGB, sRGB values in [-1, 1]: level / 127.5 - 1",
        "output": f"(batch, 3, {sides}) float32, RGB, of the same range; "
        "level = round(clip((value + 1) * 127.5, 0, 255))",
        "multiple": restorer.multiple,
        "least_side_px": least_side(restorer),
        "padding": "mirror the image at its right and lower end (the end pixels not repeated) up to a multiple and the "
        "least side, and cut the result back",
        "scale": scale,
        "opset": OPSET,
        _CONFIG.removeprefix("trainers."): json.dumps(as_values(weights.config)),
        "step": weights.facts.get("step", "not stated"),
        "version": __version__,
    }
    if way := getattr(restorer, "way", None):
        facts["way"] = repr(way)
    if restorer.guide:
        facts["guide"] = f"channels 3 to {restorer.channels - 1} of the input: {_GUIDES[restorer.guide]}"
    if restorer.caveat:
        facts["caveat"] = restorer.caveat
    if restorer.latent:
        drawn = f"mean + {CODE} * deviation, {CODE} (batch, {restorer.latent}) float32 drawn from N(0, 1)"
        facts["code"] = drawn if with_code else "its mean"
    return {f"trainers.{name}": str(value) for name, value in facts.items()}


def least_side(restorer: Restorer) -> int:
    """Return the smallest side of an image that the network takes, px."""
    return -(-LEAST_SIDE_PX // restorer.multiple) * restorer.multiple


def checked_sizes(restorer: Restorer) -> tuple[tuple[int, int, int], ...]:
    """Return batches, heights and widths at which results are compared: odd multiples of what the network needs."""
    least, multiple = least_side(restorer), restorer.multiple
    return tuple((batch, least + rows * multiple, least + columns * multiple) for batch, rows, columns in _CHECKED)


def to_onnx(restorer: Restorer, metadata: dict[str, str], with_code: bool) -> bytes:
    """Return an ONNX file of the inference path, on the CPU, whose batch, height and width are free."""
    least, multiple = least_side(restorer), restorer.multiple
    example = _images(restorer, _EXAMPLE_BATCH, least, least + multiple)
    batch = Dim("batch")
    # No multiple of a side may be taken for the side itself.
    sides = [multiple * Dim(name, min=least // multiple) if multiple > 1 else Dim(name, min=least) for name in "hw"]
    shapes: tuple[dict[int, Any], ...] = ({0: batch, 2: sides[0], 3: sides[1]},)
    inputs: tuple[Tensor, ...] = (example,)
    if with_code:
        inputs, shapes = (*inputs, torch.zeros(_EXAMPLE_BATCH, restorer.latent)), (*shapes, {0: batch})
    with _quietly():
        program = torch.onnx.export(
            _Path(restorer).eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGE, CODE][: len(inputs)],
            output_names=[RESULT],
            dynamic_shapes={"arguments": shapes},
            verbose=False,
        )
    return _encoded(program.model_proto, metadata)


FORMATS: dict[str, Callable[[Restorer, dict[str, str], bool], bytes]] = {"onnx": to_onnx}


class _Path(nn.Module):
    """The inference path with as many inputs as it is called with."""

    def __init__(self, restorer: Restorer):
        super().__init__()
        self.restorer = restorer

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.restorer(*arguments)


def _encoded(model: Any, metadata: dict[str, str]) -> bytes:
    """Return an ONNX model as bytes, with `metadata`, without the file names of the machine that made it."""
    for node in model.graph.node:
        del node.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


@contextmanager
def _quietly() -> Iterator[None]:
    """Context in which the exporter does not speak of what concerns its authors."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@torch.inference_mode()
def largest_difference(
    encoded: bytes, restorer: Restorer, sizes: tuple[tuple[int, int, int], ...], with_code: bool
) -> float:
    """Return the largest absolute difference between the results of ONNX Runtime and PyTorch, on images of `sizes`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    rng, found = np.random.default_rng(0), []
    for batch, height, width in sizes:
        inputs = {IMAGE: _images(restorer, batch, height, width)}
        if with_code:
            inputs[CODE] = torch.from_numpy(rng.standard_normal((batch, restorer.latent), np.float32))
        (result,) = session.run([RESULT], {name: tensor.numpy() for name, tensor in inputs.items()})
        expected = restorer(*inputs.values()).numpy()
        if result.shape != expected.shape:
            return float("inf")
        found.append(np.abs(result - expected).max())
    return float(np.max(found))


def _images(restorer: Restorer, batch: int, height: int, width: int) -> Tensor:
    """Return (batch, channels, height, width): noise, and behind it what a guide has of 0 and 1."""
    rng = np.random.default_rng(height * width)
    colors = rng.uniform(-1, 1, (batch, 3, height, width))
    guide = rng.integers(0, 2, (batch, restorer.channels - 3, height, width))
    return torch.from_numpy(np.concatenate((colors, guide), 1, dtype=np.float32))
