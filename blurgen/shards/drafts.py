"""Bytes to a file that is whole or absent, whatever fails and whenever the process dies."""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

# Nothing interrupts the sync of a file. Where this many bytes are synced at a time, Ctrl-C does not wait long.
SYNC_BYTES = 1 << 26
_LONGEST_WRITE = 1 << 30

Piece = tuple[int, memoryview]


class Draft(NamedTuple):
    """A file that has not got its name yet."""

    path: Path
    descriptor: int


def write_atomically(path: str | os.PathLike, pieces: Iterable[Piece], size: int, anew: bool = False) -> None:
    """Write `size` bytes, whole or not at all; gaps between pieces are zeros. Raises as `atomic_file` does."""
    with atomic_file(path, size, anew) as draft:
        for offset, piece in pieces:
            write_all(draft.descriptor, piece, offset)


def write_text(path: str | os.PathLike, text: str, anew: bool = False) -> None:
    """Write a file of UTF-8 text, whole or not at all. Raises as `atomic_file` does."""
    data = memoryview(text.encode())
    write_atomically(path, [(0, data)], len(data), anew)


@contextmanager
def atomic_file(path: str | os.PathLike, size: int, anew: bool = False) -> Iterator[Draft]:
    """Open a new file of `size` bytes that becomes `path` when the block ends well, and is removed when not.

    The draft lies in the folder of `path`; its space is reserved first, so that a full disk is known before the work.
    It is synced before it gets its name, and the folder is synced after.

    Raises
    ------
    OSError
        One sentence in ``strerror``; ``errno`` tells a full disk from a missing right.
    FileExistsError
        With `anew`: `path` exists, and so keeps what another process has written.
    """
    path = Path(path)
    with naming_bytes(path, size):
        draft = _open_draft(path)
        try:
            with closing_descriptor(draft.descriptor):
                _reserve(draft.descriptor, size)
                yield draft
                os.fsync(draft.descriptor)
                # Named while its lock is held, so that nobody takes it for the draft of a dead writer.
                (_link if anew else os.replace)(draft.path, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft.path)
            raise
        sync_folder(path.parent)


@contextmanager
def naming_bytes(path: Path, size: int) -> Iterator[None]:
    """Turn an OSError of the block into one sentence with `path`, the bytes it needs, and the way out."""
    try:
        yield
    except OSError as error:
        needed = f"{path} ({size / 2**20:.1f} MiB)"
        raise OSError(error.errno, f"cannot write {needed}: {error.strerror or error}; {_way_out(error)}") from error


def _link(draft: Path, path: Path) -> None:
    """Give a draft its name, unless the name is taken already."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS) or path.exists():
            raise
        os.replace(draft, path)  # a file system without links
    else:
        os.unlink(draft)


def _open_draft(path: Path) -> Draft:
    """Open a new file beside `path`, locked for as long as its writer lives."""
    while True:
        # Process ids repeat, in containers above all, and a killed run leaves its draft behind.
        name = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(name):
            return Draft(name, descriptor)
        os.close(descriptor)  # removed by `remove_drafts` before the lock was there


def remove_drafts(path: str | os.PathLike) -> int:
    """Remove the drafts of `path`, or all in it where it is a folder, that killed runs left; return their number.

    The draft of a writer that lives is locked, and stays. Where the file system has no locks, this is only for the one
    who holds the run.
    """
    path = Path(path)
    drafts = list(path.glob(".*.tmp") if path.is_dir() else path.parent.glob(f".{escape(path.name)}.*.tmp"))
    return sum(_remove_dead(draft) for draft in drafts)


def _remove_dead(draft: Path) -> bool:
    try:
        with closing_descriptor(os.open(draft, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:  # a file system without locks
                pass
            draft.unlink()
    except (FileNotFoundError, PermissionError):
        return False
    return True


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """Close `descriptor` when the block ends."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, however many calls it takes."""
    while data:
        written = os.pwrite(descriptor, data[:_LONGEST_WRITE], offset)
        data, offset = data[written:], offset + written


def _reserve(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    with closing_descriptor(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
        os.fsync(descriptor)


def _way_out(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room and run the same command again"
    return "choose a folder that exists and may be written to"
