"""One writer at a time for a folder, or for each slice of the work in it."""

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

LOCK_NAME = ".lock"
# Some network file systems have no locks. There the caller has to see to it that there is one writer.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class FolderLock:
    """Context that holds a folder; it ends with the process, however that ends.

    Parameters
    ----------
    folder : Path
    part : str, optional
        Hold this part of the work alone: other parts may be held beside it, and the whole folder may not.

    Raises
    ------
    RuntimeError
        Another process holds the folder, or the part.
    """

    def __init__(self, folder: Path, part: str | None = None):
        self._folder, self._part = folder, part

    def __enter__(self) -> None:
        with ExitStack() as held:
            self._acquire(held, LOCK_NAME, fcntl.LOCK_SH if self._part else fcntl.LOCK_EX)
            if self._part:
                self._acquire(held, f".{self._part}.lock", fcntl.LOCK_EX)
            self._held = held.pop_all()

    def _acquire(self, held: ExitStack, name: str, kind: int) -> None:
        path = self._folder / name
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            held.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 100, 0).decode(errors="replace") or "another process"
                raise RuntimeError(
                    f"{self._folder} is being written by {holder}: wait for it, or choose another --out"
                ) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            # The one who held it before may have removed the folder, and the lock with it.
            if path.exists() and os.path.samestat(os.stat(path), os.fstat(descriptor)):
                break
        part = f" ({self._part})" if self._part else ""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}{part}".encode(), 0)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()
