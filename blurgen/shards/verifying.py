"""Checks in a process that may be lost: a damaged file can crash or hang the library that parses it."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

from blurgen.shards.checking import problems
from blurgen.shards.confining import fate, python_child, set_limits

_LISTED = 100
_DEFAULT_MEMORY_MIB = 3072
_SLOWEST_DISK = 20e6
_START_S = 60


def verify(path: str | os.PathLike, timeout_s: float | None = None, memory_mib: int = _DEFAULT_MEMORY_MIB) -> list[str]:
    """Return a sentence for everything that is wrong with a file, a master or a folder of shards: [] if it is sound.

    Every checksum, id, kernel and row is checked, in a child process with limits on its memory and time; if it
    crashes or has to be ended, that is one of the sentences.

    Parameters
    ----------
    path : path
        A packed file, a master with its shards, a folder of shards, or one shard.
    timeout_s : float, optional
        Limit in seconds; by default 60 and as long as a disk of 20 MB/s takes.
    memory_mib : int
        Limit of the child's address space in MiB.
    """
    return next(verify_each([path], timeout_s, memory_mib))


def verify_each(
    paths: Iterable[str | os.PathLike], timeout_s: float | None = None, memory_mib: int = _DEFAULT_MEMORY_MIB
) -> Iterator[list[str]]:
    """Yield for each path what `verify` returns for it, faster than one call each."""
    code = "from blurgen.shards.verifying import serve; serve()"
    with python_child(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        for path in paths:
            task = [os.fsdecode(path), timeout_s or _patience(path), memory_mib]
            child.stdin.write(json.dumps(task).encode() + b"\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            yield json.loads(answer) if answer else [f"{task[0]}: the process that should check it did not start"]
        child.stdin.close()


def serve() -> None:
    """Check what standard input asks for, each in a fork of this process, and answer on standard output."""
    for line in sys.stdin.buffer:
        answer = _confined(*json.loads(line))
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _confined(path: str, timeout_s: float, memory_mib: int) -> list[str]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _check_and_exit(path, timeout_s, memory_mib, writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        found = [json.loads(line) for line in stream if line.endswith(b"\n")]
    _, status = os.waitpid(child, 0)
    return found if not status else [*found, f"{path}: {fate(status, timeout_s, memory_mib)}"]


def _check_and_exit(path: str, timeout_s: float, memory_mib: int, writer: int) -> None:
    """Report on `path` as lines of JSON, within limits that the kernel enforces; never returns."""
    status = 1
    try:
        set_limits(timeout_s, memory_mib)
        with open(writer, "wb") as stream:
            for sentence in islice(problems(path), _LISTED):
                stream.write(json.dumps(sentence).encode() + b"\n")
        status = 0
    except MemoryError:
        status = 2
    finally:
        os._exit(status)


def _patience(path: str | os.PathLike) -> float:
    try:
        names = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
        size = sum(os.path.getsize(name) for name in names)
    except OSError:
        size = 0
    return _START_S + math.ceil(size / _SLOWEST_DISK)
