"""Jobs to shards on the workers of a dask cluster, which share the folder of the output and that of the images.

The tasks of dask hand their job to a worker process of their own, as a local run does: an image that ends processes
never ends a worker of the cluster.
"""

import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from blurgen import __version__
from blurgen.backends import Crew
from blurgen.make_options import RunOptions
from blurgen.worker import Job

_CONNECT_S, _NO_WORKER_S, _LOOK_S = 10, 60, 10
_RETRIES = 2
# Each thread of the cluster has the next job waiting beside it; not many are sent at once, since jobs are not small.
_JOBS_A_THREAD, _AT_ONCE = 2, 8
_CREW = Crew()


def build_on_cluster(jobs: Iterable[Job], options: RunOptions) -> Iterator[Job]:
    """Build shards on the cluster of ``options.scheduler``, and yield the job of each when it is done.

    Raises
    ------
    RuntimeError
        dask is not installed, the scheduler or all workers are gone, or a task has ended its workers again and again.
    Exception
        What a job raised on its worker, three times.
    """
    distributed = _distributed()
    with _connected(distributed, str(options.scheduler)) as client:
        yield from _build(distributed, client, iter(jobs), options.image_timeout_s)


def build_here(job: Job, folder: str, image_timeout_s: float) -> str:
    """Build a shard beside this worker of a cluster; called by dask."""
    if job.attrs["blurgen"] != __version__:
        raise RuntimeError(
            f"a worker on {os.uname().nodename} has blurgen {__version__}, and the run {job.attrs['blurgen']}: "
            "install the same version everywhere"
        )
    if not os.path.isdir(folder):
        raise RuntimeError(
            f"a worker on {os.uname().nodename} does not see {folder}: "
            "all machines have to share the folder that blurgen is started in, and those of --out and of the images"
        )
    return str(_CREW.build(job, folder, image_timeout_s))


def _distributed() -> ModuleType:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise RuntimeError('--backend dask needs dask: pip install "blurgen[dask]"') from error
    return distributed


@contextmanager
def _connected(distributed: ModuleType, address: str) -> Iterator[Any]:
    """Connect to a scheduler that has workers; on leaving, what is not done yet is called off."""
    log = logging.getLogger("distributed.client")
    before, log.level = log.level, logging.CRITICAL  # what goes wrong is said in one sentence instead
    try:
        try:
            client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"no scheduler of dask answers at {address}: `dask scheduler` starts one, and "
                f"`dask worker {address}` its workers; the same command continues"
            ) from error
        try:
            yield client
        finally:
            client.close(timeout=0.5)
    finally:
        log.level = before


def _build(distributed: ModuleType, client: Any, jobs: Iterator[Job], image_timeout_s: float) -> Iterator[Job]:
    lost = _lost(client)
    threads = _wait_for_workers(client)
    running: dict[Any, Job] = {}
    finished = distributed.as_completed(loop=client.loop, raise_errors=False)
    seen = time.monotonic()
    while True:
        for batch in _batches(jobs, _JOBS_A_THREAD * threads - len(running)):
            columns = batch, itertools.repeat(os.getcwd(), len(batch)), itertools.repeat(image_timeout_s, len(batch))
            futures = client.map(build_here, *map(list, columns), retries=_RETRIES, pure=False)
            running.update(zip(futures, batch, strict=True))
            finished.update(futures)
        if not running:
            return
        if not finished.has_ready():
            time.sleep(0.05)
            if client.status != "running":
                raise lost
            if time.monotonic() - seen > _LOOK_S:
                threads, seen = _wait_for_workers(client), time.monotonic()
            continue
        future = next(finished)
        if future.status == "cancelled":
            raise lost
        if future.status == "error":
            raise _explained(distributed, future.exception())
        yield running.pop(future)


def _batches(jobs: Iterator[Job], room: int) -> Iterator[list[Job]]:
    """Yield the next jobs, a few at a time, at most `room` in all."""
    while room > 0 and (batch := list(itertools.islice(jobs, min(room, _AT_ONCE)))):
        room -= len(batch)
        yield batch


def _wait_for_workers(client: Any) -> int:
    """Return how many threads the cluster has, once it has some."""
    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=_NO_WORKER_S)
        return max(1, sum(client.nthreads().values()))
    except TimeoutError as error:
        raise RuntimeError(
            f"the scheduler of dask at {address} has no worker: `dask worker {address}` starts some; "
            "the same command continues"
        ) from error
    except OSError as error:
        raise _lost(client) from error


def _lost(client: Any) -> RuntimeError:
    return RuntimeError(f"the scheduler of dask at {client.scheduler.address} is gone; the same command continues")


def _explained(distributed: ModuleType, error: BaseException) -> BaseException:
    if isinstance(error, distributed.KilledWorker):
        return RuntimeError(
            "workers of the cluster died again and again over one shard: where memory is short, fewer threads a worker "
            "help; the same command continues"
        )
    return error
