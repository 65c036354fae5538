"""A scheduler of dask and its workers, each a process of its own on the loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

from runs import until

from blurgen.make_options import RunOptions

TESTS = Path(__file__).parent


class Cluster:
    """Context with a scheduler and some workers of one thread; `workers` and `scheduler` are processes to be killed."""

    def __init__(self, folder: Path, workers: int = 2):
        self._file, self._count = folder / "scheduler.json", workers
        self.workers: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        self.scheduler = _start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self._file))
        try:
            assert until(lambda: self._file.exists() and self._file.read_text().rstrip().endswith("}"))
            self.address = json.loads(self._file.read_text())["address"]
            self.grow_to(self._count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in [self.scheduler, *self.workers]:
            process.kill()
            process.wait()

    def grow_to(self, count: int) -> None:
        """Start more workers."""
        while len(self.workers) < count:
            self.workers.append(_start("worker", self.address, "--nthreads", "1", "--no-nanny"))

    @property
    def options(self) -> RunOptions:
        """How `make` runs here."""
        return RunOptions(backend="dask", scheduler=self.address)


def _start(name: str, *words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *words, "--no-dashboard"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
