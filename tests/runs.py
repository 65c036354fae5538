"""Runs of `blurgen make` in processes that a test may kill, and images that are traps."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import Plan, make_plan
from blurgen.sources import Picture, Source

KERNEL = Chosen("deblurgan", {"length_px": 6.0, "side_px": 3})
ALONE = RunOptions(workers=1, backend="threading")


def planned(folder: Path, **fields) -> Plan:
    """Return the plan of tiny samples from a folder of photos."""
    return make_plan(MakeOptions(source=Chosen(str(folder)), **{"kernel": KERNEL, "crop": 16, **fields}))


def finished(plan: Plan, out: Path, **fields) -> bytes:
    """Make a file in this process, or finish it, and return its bytes."""
    make(plan, out, replace(ALONE, **fields))
    return out.read_bytes()


@contextmanager
def running(plan: Plan, out: Path, options: RunOptions) -> Iterator[int]:
    """Run `make` in a process group of its own; gives its number, and leaves no process of it behind."""
    pid = os.fork()
    if not pid:
        status = 70
        try:
            os.setsid()
            make(plan, out, options)
            status = 0
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        for number in [pid, *workers_of(pid)]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def ended(pid: int, patience_s: float = 120) -> int | None:
    """Return the exit code of a run once it has ended, or None if it does not end."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def workers_of(pid: int) -> list[int]:
    """Return the numbers of the processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task").glob("*/children") for word in word.read_text().split()]
    except FileNotFoundError:
        return []


def until(condition: Callable[[], bool], patience_s: float = 60) -> bool:
    """Wait until something holds; returns whether it does."""
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def lives(pid: int) -> bool:
    """Whether a process runs, and is more than the entry of one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def leftovers(folder: Path) -> list[str]:
    """Return the names of temporary files, locks and shards below a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name[0] == "." or ".d" in path.suffixes]


@dataclass(frozen=True)
class Trapped:
    """A source whose images are traps where `traps` says so: key -> what happens to the one who reads it.

    A file `sign` appears once somebody has fallen into one.
    """

    inner: Source
    traps: dict[str, str]
    sign: str = ""

    def __getattr__(self, name: str):
        """Return what the source inside has; dunder names are asked for while this is unpickled."""
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def read(self, key: str) -> Picture:
        """Return the picture, or fall into the trap."""
        if key in self.traps:
            if self.sign:
                Path(self.sign).touch()
            TRAPS[self.traps[key]]()
        return self.inner.read(key)


def _raise() -> None:
    raise LookupError("this image has a curse on it")


def _hang() -> None:
    while True:
        time.sleep(1)


TRAPS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "raise": _raise,
    "hang": _hang,
    # PyDLL keeps the interpreter locked, as a library written in C may do.
    "hang inside of a library": lambda: ctypes.PyDLL(None).sleep(1000),
}
