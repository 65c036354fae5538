"""Checks of an installation, each with what was found."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

LIBRARIES = ("numpy", "numba", "scipy", "opencv-python", "h5py", "joblib", "matplotlib", "pillow")


def checks() -> Iterator[tuple[str, bool, str]]:
    """Yield (what is checked, whether it failed, what was found) for every check."""
    for name, check in CHECKS.items():
        try:
            yield name, False, check()
        except (ImportError, OSError, ValueError, RuntimeError, AssertionError) as error:
            yield name, True, str(error).splitlines()[0] if str(error) else type(error).__name__


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _libraries() -> str:
    return ", ".join(f"{name} {version(name)}" for name in LIBRARIES)


def _opencv() -> str:
    import cv2

    return f"loads, {cv2.getNumThreads()} threads"


def _compiler() -> str:
    from blurgen.jit import njit

    add = njit(_add)
    if add(1, 2) != 3:
        raise RuntimeError("compiled code gives a wrong result")
    cache_path = getattr(getattr(add, "_cache", None), "cache_path", None)
    if cache_path is None:
        return "compiles anew in every process, as no folder can be written: NUMBA_CACHE_DIR may name one"
    return f"compiles, and keeps the result in {cache_path}"


def _add(a: int, b: int) -> int:
    return a + b


def _recipes() -> str:
    from blurgen.recipes import list_sources

    return f"{len(list_sources())} sources"


def _sample() -> str:
    from blurgen import blur, kernel_model
    from blurgen.rng import stream

    image = stream(0, "doctor").integers(0, 256, (64, 64, 3), dtype=np.uint8)
    kernel = kernel_model("deblurgan").draw(stream(0, "doctor", "kernel"))
    if not np.array_equal(blur(image, kernel), blur(image, kernel)):
        raise RuntimeError("the same blur gave two results")
    return f"a {len(kernel)} px kernel blurs an image, the same way twice"


def _disk() -> str:
    folder = Path.cwd()
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
    from blurgen.pipeline import bytes_free

    return f"{folder} can be written, {bytes_free(folder / 'x') >> 20:,} MiB free"


def _data() -> str:
    root = os.environ.get("BLURGEN_DATA")
    if root and not Path(root).is_dir():
        raise ValueError(f"BLURGEN_DATA names {root}, which is no folder")
    return root or "BLURGEN_DATA is not set: datasets are looked for in ./data"


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "not installed: `pip install torch` brings what blurgen.torch needs"


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "libraries": _libraries,
    "opencv": _opencv,
    "compiler": _compiler,
    "recipes": _recipes,
    "data": _data,
    "disk": _disk,
    "blur": _sample,
    "torch": _torch,
}
