"""A child process whose environment a test chooses, without the rights that let root ignore permissions."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ("--crop", "32", "--set", "kernel.length_px=8", "--set", "kernel.side_px=3", "--backend", "threading")
# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER: with these, root may write where nobody may.
_RIGHTS_OF_ROOT = (1, 2, 3)
_PR_CAPBSET_DROP = 24


def without_rights():
    """Give up what lets root ignore permissions, in a child before it starts."""
    for right in _RIGHTS_OF_ROOT:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)


def child(*words, cwd, code=None, **changes):
    """Run `blurgen` with words, or Python code, in an environment with some variables changed, None meaning absent."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, *(("-c", code) if code else ("-m", "blurgen")), *map(os.fspath, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, preexec_fn=without_rights)
