"""Models of random camera motion, by name.

A model is a frozen dataclass in a file of its own and one line in `KERNELS`; a preset is a model with settings.
"""

from operator import index
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from blurgen.options import build, nearest
from blurgen.rng import stream

if TYPE_CHECKING:
    from blurgen.kernels.model import KernelModel

KERNELS = {
    "walk": "blurgen.kernels.walk:Walk",
    "smooth-walk": "blurgen.kernels.smooth_walk:SmoothWalk",
    "linear": "blurgen.kernels.linear:Linear",
    "gp": "blurgen.kernels.gp:GaussianProcess",
    "spline": "blurgen.kernels.spline:Spline",
    "file": "blurgen.kernels.motion_file:MotionFile",
}

_DEBLURGAN_ANXIETY = (0.01, 0.009, 0.008, 0.007, 0.005, 0.003)
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "boracchi-foi": ("walk", {}),
    "deblurgan": ("walk", {"anxiety": _DEBLURGAN_ANXIETY}),
    # canvases of 160, 320, 480 and 640 px instead of 64: the length grows with them and the anxiety shrinks
    "vegan": ("walk", {"anxiety": _DEBLURGAN_ANXIETY, "zoom": (2.5, 5.0, 7.5, 10.0)}),
    # medians of 1,000 draws inside the range of the eight measured kernels of Levin et al. 2009
    "levin-like": ("gp", {"length_px": 26.0, "nu": 1.5, "timescale": 0.6, "side_px": 33}),
}


def kernel_model(name: str, **fields: Any) -> "KernelModel":
    """Return the kernel model of that name, a preset or a model, with `fields` replaced.

    Raises
    ------
    ValueError
        If no model or preset has the name, or the model has no such field, with the nearest name; or if a value has
        the wrong type or is out of range.

    Examples
    --------
    >>> kernel_model("linear", length_px=9).length_px
    9.0
    """
    model, settings = PRESETS.get(name, (name, {}))
    if model not in KERNELS:
        raise ValueError(f"there is no kernel {name!r}: {nearest(name, [*PRESETS, *KERNELS])}")
    plain = {field: value.item() if isinstance(value, np.generic) else value for field, value in fields.items()}
    return build(resolve_name(KERNELS[model]), {**settings, **plain}, prefix="kernel.")


def draw_kernels(model: "KernelModel | str", n: int, seed: int = 0) -> np.ndarray:
    """Return n random kernels, float32 (n, k, k), kernel i equal to ``model.draw(stream(seed, i))`` bit for bit.

    Kernels that outgrow the model's side make all of them larger; the smaller ones get a margin of zeros.

    Parameters
    ----------
    model : KernelModel or str
        A model, or the name of a model or preset.
    n : int
        Number of kernels, at least 0.
    seed : int
        Seed of the streams, at least 0.

    Raises
    ------
    ValueError
        If n or the seed is negative, or the kernels need more memory than the machine has.

    Examples
    --------
    >>> draw_kernels("deblurgan", 4, seed=1).shape
    (4, 65, 65)
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    seed = index(seed)  # a numpy integer names the same stream as the int
    model = kernel_model(model) if isinstance(model, str) else model
    model.check_memory(n)
    return model.draw_many([stream(seed, i) for i in range(n)])
