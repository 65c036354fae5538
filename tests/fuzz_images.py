"""What is fuzzed of the source reader, in the child process of `confined.Confined`."""

import ctypes
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

from blurgen.sources import BadImage
from blurgen.sources.folder import FolderSource
from blurgen.sources.full_depth import decode_full_depth

warnings.simplefilter("ignore")
_M_PERTURB = -6
_KEPT = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
_FOLDER = Path(_KEPT.name)


def _read(data, fill):
    """Return the pixels that the reader gives, or the reason, with fresh memory filled with a value."""
    ctypes.CDLL(None).mallopt(_M_PERTURB, fill)
    (_FOLDER / "a.png").write_bytes(data)
    source = FolderSource(str(_FOLDER))
    try:
        return source.read("a.png").sharp
    except BadImage as error:
        return error.reason


def read_image(data: bytes) -> str | None:
    """Return the reason why an image is refused, or None; what `read` and `size` claim of it must agree."""
    first, second = _read(data, 0x11), _read(data, 0xEE)
    ctypes.CDLL(None).mallopt(_M_PERTURB, 0)
    try:
        size = FolderSource(str(_FOLDER)).size("a.png")
    except BadImage as error:
        size = error.reason
    try:
        deep = decode_full_depth(data).colors.shape
    except BadImage as error:
        deep = error.reason
    if isinstance(first, str):
        assert first == second, "another reason on the second try"
        assert isinstance(deep, str), f"refused for {first}, but read at full depth"
        return first
    assert np.array_equal(first, second), "pixels that were never written"
    assert (first.dtype, first.ndim, first.shape[2], first.flags.c_contiguous) == (np.uint8, 3, 3, True)
    assert size == first.shape[1::-1], f"size {size} for pixels {first.shape}"
    assert deep == first.shape, f"full depth: {deep}"
    return None
