"""What is fuzzed of the readers of shards, in the child process of `confined.Confined`."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from blurgen.shards import BadShard, open_shards, scanning
from blurgen.shards.confining import set_limits

_KEPT = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
_FOLDER = Path(_KEPT.name)


def _forked(function, *arguments):
    """Stand in for `confining.call_confined`: a fork of this process costs less than a new one."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        set_limits(20, 3072)
        try:
            said = ["value", getattr(scanning, function.partition(":")[2])(*arguments)]
        except BadShard as error:
            said = ["bad", str(error)]
        with open(writer, "wb") as stream:
            stream.write(json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    kind, value = json.loads(text) if text else ("bad", "it crashed")
    if kind == "bad":
        raise BadShard(value)
    return value


scanning.call_confined = _forked


def read_shards(data: bytes) -> str:
    """Return the digest of all that `open_shards` gives of a file, or ``"refused"``."""
    path = _FOLDER / "a.h5"
    path.write_bytes(data)
    return read_path(bytes(path))


def read_path(path: bytes) -> str:
    """Return the digest of all that `open_shards` gives of a file with a path, or ``"refused"``."""
    try:
        return digest(Path(os.fsdecode(path)))
    except (BadShard, OSError):
        return "refused"


def digest(path: Path) -> str:
    """Return the SHA-256 of all that a reader can learn from a file."""
    shards = open_shards(path)
    hasher = hashlib.sha256(repr((shards.layout, shards.attrs)).encode())
    for name in shards.layout.arrays:
        for index in range(len(shards)):
            hasher.update(shards.read(name, index))
    hasher.update(shards.meta.tobytes() + shards.sources.tobytes())
    return hasher.hexdigest()
