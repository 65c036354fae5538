"""Regular files, read whole or where they are looked at, while others may change or cut them."""

import os
import stat
from collections.abc import Callable
from typing import TypeVar

from blurgen.sources import BadImage

MAX_FILE_BYTES = 400_000_000
_BLOCK = 1 << 16
_Result = TypeVar("_Result")


def with_regular_file(path: str, use: Callable[[int, int], _Result]) -> _Result:
    """Return ``use(descriptor, size in bytes)`` of a regular file; raises `BadImage` for anything else."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage("vanished", "there is no such file") from error
    except ValueError as error:
        raise BadImage("vanished", "no file has a NUL in its name") from error
    except OSError as error:
        raise BadImage("unreadable", f"the file cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not-a-file", "the path has the name of an image, but is a folder, a pipe or a device")
        if status.st_size > MAX_FILE_BYTES:
            raise BadImage("too-large", f"a file must have at most {MAX_FILE_BYTES} bytes, got {status.st_size}")
        return use(descriptor, status.st_size)
    except OSError as error:
        raise BadImage("unreadable", f"the file cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def read_whole(descriptor: int, size: int) -> bytes:
    """Return the bytes of a file; raises `BadImage` (``"changed"``) where it was written to meanwhile."""
    before = _state(descriptor)
    data = read_at(descriptor, size, 0)
    if _state(descriptor) != before:
        raise _changed()
    return data


def read_at(descriptor: int, size: int, at: int) -> bytes:
    """Return `size` bytes from `at` on; raises `BadImage` (``"changed"``) where the file has become too short."""
    pieces = []
    while size:
        piece = os.pread(descriptor, size, at)
        if not piece:
            raise _changed()
        pieces.append(piece)
        size, at = size - len(piece), at + len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _state(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _changed() -> BadImage:
    return BadImage("changed", "the file changed while it was read")


class OnDemand:
    """The bytes of an open file, read where they are looked at.

    Unlike a memory map, it does not end the process when the file is cut meanwhile.
    """

    def __init__(self, descriptor: int, size: int):
        self._descriptor, self._size = descriptor, size
        self._front = read_at(descriptor, min(size, _BLOCK), 0)

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return read_at(self._descriptor, self._size, 0)

    def __getitem__(self, where: int | slice):
        """Return a byte, or a run of bytes."""
        if not isinstance(where, slice):
            return self[where : where + 1][0]
        start, stop, _ = where.indices(self._size)
        if stop <= len(self._front):
            return self._front[start:stop]
        return read_at(self._descriptor, max(0, stop - start), start)

    def find(self, what: bytes, start: int = 0) -> int:
        """Return where a run of bytes is found from `start` on, or -1."""
        while start < self._size:
            block = self[start : start + _BLOCK]
            found = block.find(what)
            if found >= 0:
                return start + found
            start += max(1, len(block) - len(what) + 1)
        return -1
