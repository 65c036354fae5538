"""Kernels written for other projects: numbers with what was drawn for them, or a contact sheet."""

import json
from pathlib import Path

import h5py
import numpy as np

from blurgen.kernels import draw_kernels
from blurgen.kernels.model import KernelModel
from blurgen.options import as_values
from blurgen.preview import kernel_sheet, write_png
from blurgen.rng import stream


def write_kernels(path: Path, model: KernelModel, count: int, seed: int = 0) -> tuple[int, int, int]:
    """Write `count` kernels of a model to an .h5, .npz or .png file, and return their shape (n, k, k).

    The numbers come with ``params`` (n, p) float64, what the model drew for each kernel in the order of
    ``param_names``, and ``shift`` (n, 2) float64, the (x, y) px from the start of the path to its anchor.

    Raises
    ------
    ValueError
        A file name that ends otherwise.
    """
    if path.suffix not in (".png", ".npz", ".h5"):
        raise ValueError(f"kernels are written to .h5, .npz or .png files, got {str(path)!r}")
    kernels = draw_kernels(model, count, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        write_png(path, kernel_sheet(kernels))
        return kernels.shape
    drawn = [model.sample(stream(seed, number)) for number in range(count)]
    tables = {
        "kernels": kernels,
        "params": np.array([[one.params[name] for name in model.PARAMS] for one in drawn]).reshape(count, -1),
        "shift": np.array([one.shift for one in drawn]),
    }
    made_by = json.dumps({"model": type(model).__name__, **as_values(model), "seed": seed}, default=str)
    if path.suffix == ".npz":
        np.savez(path, **tables, param_names=np.array(model.PARAMS, str), made_by=made_by)
    else:
        with h5py.File(path, "w") as file:
            for name, table in tables.items():
                file[name] = table
            file.attrs["param_names"] = list(model.PARAMS)
            file.attrs["made_by"] = made_by
    return kernels.shape
