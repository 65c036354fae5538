"""Models of random camera motion, by name.

A model is a frozen dataclass in a file of its own and one line in `KERNELS`; a preset is a model with settings.
"""

from difflib import get_close_matches
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

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
        If no model or preset has the name, or the model has no such field, with the nearest name.

    Examples
    --------
    >>> kernel_model("linear", length_px=9).length_px
    9
    """
    model, settings = PRESETS.get(name, (name, {}))
    if model not in KERNELS:
        raise ValueError(_unknown("kernel", name, [*PRESETS, *KERNELS]))
    kind = resolve_name(KERNELS[model])
    for field in fields:
        if field not in kind.__dataclass_fields__:
            raise ValueError(_unknown(f"field of the kernel {name}", field, list(kind.__dataclass_fields__)))
    return kind(**{**settings, **fields})


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
        Seed of the streams.

    Examples
    --------
    >>> draw_kernels("deblurgan", 4, seed=1).shape
    (4, 65, 65)
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    model = kernel_model(model) if isinstance(model, str) else model
    return model.draw_many([stream(seed, i) for i in range(n)])


def _unknown(kind: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}" if near else f"it is one of {', '.join(known)}"
    return f"there is no {kind} {name!r}; {hint}{'?' if near else ''}"
