"""Motion-blurred training data from sharp images.

Names resolve on first use, so that importing the package loads neither numba, h5py nor torch.
"""

import pkgutil
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Walk": "blurgen.kernels.walk:Walk",
    "SmoothWalk": "blurgen.kernels.smooth_walk:SmoothWalk",
    "Linear": "blurgen.kernels.linear:Linear",
    "GaussianProcess": "blurgen.kernels.gp:GaussianProcess",
    "Spline": "blurgen.kernels.spline:Spline",
    "MotionFile": "blurgen.kernels.motion_file:MotionFile",
    "Drawn": "blurgen.kernels.model:Drawn",
    "draw_kernels": "blurgen.kernels:draw_kernels",
    "kernel_model": "blurgen.kernels:kernel_model",
    "rasterize": "blurgen.raster:rasterize",
    "blur": "blurgen.convolve:blur",
    "open_shards": "blurgen.shards:open_shards",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'blurgen' has no attribute {name!r}")
    value = globals()[name] = pkgutil.resolve_name(_PUBLIC[name])
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
