"""What is fuzzed of the reader of archives, in the child process of `confined.Confined`."""

import os
import tempfile
from pathlib import Path

from blurgen.sources import BadImage
from blurgen.sources.archive import ArchiveSource

_KEPT = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
_FOLDER = Path(_KEPT.name)


def read_archive(data: bytes) -> list[str] | str:
    """Return the digest or the reason of each image in an archive, or ``"refused"``; its name stands in front."""
    name, _, content = data.partition(b"\n")
    path = _FOLDER / name.decode()
    # A new file each time: archives stay open.
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    source = ArchiveSource(str(path))
    try:
        keys = [entry.key for entry in source.entries()]
    except (ValueError, OSError) as error:
        if isinstance(error, UnicodeError):
            raise
        return "refused"
    assert all(key.isascii() and key.isprintable() and len(key) <= 512 for key in keys)
    return [_outcome(source, key) for key in keys]


def _outcome(source: ArchiveSource, key: str) -> str:
    try:
        return source.read(key).sha256.hex()
    except BadImage as error:
        return error.reason
