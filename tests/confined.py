"""A child process for what may crash, hang or swallow memory: one for many calls, each loss put down to its call."""

import contextlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_COMMAND = "import sys; from tests.confined import serve; serve(*sys.argv[1:])"


class Confined:
    """Calls a function of bytes in a child process that has limits of memory and time for each call.

    Parameters
    ----------
    target : str
        The function, ``"module:name"``; it takes bytes and returns what JSON can say.
    timeout_s : float
        Limit of a call, s of its CPU time; ten times as much on the clock.
    memory_mib : int
        Limit of the address space.
    """

    def __init__(self, target: str, timeout_s: float = 10, memory_mib: int = 3072):
        self._target, self._limits = target, (str(timeout_s), str(memory_mib))
        self._child: subprocess.Popen | None = None
        self.peak_mib = 0

    def __enter__(self) -> "Confined":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def __call__(self, data: bytes) -> Any:
        """Return what the function returns; raise AssertionError with what it let escape, or how the child died."""
        child = self._child = self._child or self._start()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(len(data).to_bytes(8, "little") + data)
            child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            code = child.wait()
            self._end()
            raise AssertionError(f"the child died: {signal.Signals(-code).name if code < 0 else f'exit {code}'}")
        answer = json.loads(line)
        self.peak_mib = max(self.peak_mib, answer["peak_mib"])
        if "escaped" in answer:
            raise AssertionError(answer["escaped"])
        return answer["value"]

    def _start(self) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _COMMAND, self._target, *self._limits]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=environment, **pipes)

    def _end(self) -> None:
        if self._child:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
            self._child.stdout.close()
            self._child.wait()
            self._child = None


def serve(target: str, timeout_s: str, memory_mib: str) -> None:
    """Answer on standard output what standard input asks for."""
    function = pkgutil.resolve_name(target)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit = int(memory_mib) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The default action of both signals ends the process, even where it hangs inside of a C library.
    while size := sys.stdin.buffer.read(8):
        data = sys.stdin.buffer.read(int.from_bytes(size, "little"))
        signal.setitimer(signal.ITIMER_PROF, float(timeout_s))
        signal.setitimer(signal.ITIMER_REAL, 10 * float(timeout_s))
        try:
            answer = {"value": function(data)}
        except Exception:
            answer = {"escaped": traceback.format_exc()}
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer["peak_mib"] = _peak_mib()
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _peak_mib() -> int:
    """Return the most memory that this process has had; what `resource` knows includes its parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10
