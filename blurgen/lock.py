"""One writer at a time for a folder."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

LOCK_NAME = ".lock"


class FolderLock:
    """Context that holds a folder; it ends with the process, however that ends.

    Raises
    ------
    RuntimeError
        Another process holds the folder.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def __enter__(self) -> None:
        self._descriptor = os.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 100, 0).decode(errors="replace") or "another process"
            os.close(self._descriptor)
            raise RuntimeError(
                f"{self._folder} is being written by {holder}: wait for it, or choose another --out"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)
