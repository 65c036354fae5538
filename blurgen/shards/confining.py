"""Functions called in a process that may be lost, within limits of time and memory that the kernel enforces."""

import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
from typing import Any

from blurgen.shards.layout import BadShard

_TIMEOUT_S, _MEMORY_MIB = 60, 3072
_inside = False


def python_child(code: str, **pipes: Any) -> subprocess.Popen:
    """Return a started Python process that finds the modules that this one finds."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, "-P", "-c", code], env=environment, **pipes)


def set_limits(timeout_s: float, memory_mib: int) -> None:
    """Limit this process; the default action of the alarm ends it even where it hangs inside of a C library."""
    global _inside
    _inside = True
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fate(status: int, timeout_s: float, memory_mib: int, act: str = "check") -> str:
    """Return in words how a process with limits ended, from its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM:
        return f"the {act} took longer than {timeout_s:.0f} s and was ended"
    if code == 2:
        return f"the {act} needed more than {memory_mib} MiB of memory and was ended"
    return f"the {act} crashed ({signal.Signals(-code).name if code < 0 else f'exit {code}'})"


def call_confined(function: str, *arguments: Any) -> Any:
    """Return what a function gives for these arguments, all of it plain data, from a process that may be lost.

    Within such a process the function is called as it is.

    Parameters
    ----------
    function : str
        As ``"blurgen.shards.structure:scan"``.

    Raises
    ------
    BadShard
        What the function raises, or how the process ended.
    """
    if _inside:
        return pkgutil.resolve_name(function)(*arguments)
    code = "from blurgen.shards.confining import answer; answer()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with python_child(code, **pipes) as child:
        output, _ = child.communicate(json.dumps([function, arguments]).encode())
    lines = output.splitlines()
    if not lines:
        status = -child.returncode if child.returncode < 0 else child.returncode << 8
        raise BadShard(f"HDF5 cannot read it ({fate(status, _TIMEOUT_S, _MEMORY_MIB, 'attempt')})")
    kind, value = json.loads(lines[-1])
    if kind == "bad":
        raise BadShard(value)
    return value


def answer() -> None:
    """Call the function that standard input names, and write what it gives to standard output."""
    function, arguments = json.loads(sys.stdin.buffer.read())
    set_limits(_TIMEOUT_S, _MEMORY_MIB)
    try:
        said = ["value", pkgutil.resolve_name(function)(*arguments)]
    except BadShard as error:
        said = ["bad", str(error)]
    except MemoryError:
        os._exit(2)
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
