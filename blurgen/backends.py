"""Jobs to shards, many at a time: in processes of their own, in threads, or on a cluster."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import joblib

from blurgen.make_options import RunOptions
from blurgen.worker import DIED, TOO_SLOW, TRIES, Bad, Job, build
from blurgen.worker_process import WorkerDied, WorkerProcess

# Deaths in the work on one shard before the machine is to blame and not an image: without an image in hand, and in all.
MOST_DEATHS_IDLE, MOST_DEATHS = 3, 20
_PATIENCE_S = 1.5


def build_all(jobs: Iterable[Job], options: RunOptions, most: int) -> Iterator[Job]:
    """Build shards in parallel, and yield the job of each when it is done; `most` at a time where there are no more.

    Raises
    ------
    RuntimeError
        Workers died again and again without an image to blame, or the cluster is gone.
    OSError
        A shard could not be written.
    """
    if options.backend == "dask":
        from blurgen.cluster import build_on_cluster

        yield from build_on_cluster(jobs, options)
        return
    workers = max(1, min(options.workers or joblib.cpu_count(), most))
    if options.backend == "threading":
        stopped = threading.Event()
        yield from _in_threads(lambda job: build(job, _stopping(stopped)), jobs, workers, stopped.set)
        return
    crew = Crew()
    folder = os.getcwd()
    yield from _in_threads(lambda job: crew.build(job, folder, options.image_timeout_s), jobs, workers, crew.close)


class Stopped(BaseException):
    """The run is over before this shard is done."""


def _stopping(stopped: threading.Event) -> Callable[[str], None]:
    """Return what `build` calls before each crop: it ends the work once the run is over."""

    def take_up(key: str) -> None:
        if stopped.is_set():
            raise Stopped

    return take_up


def _in_threads(
    build_one: Callable[[Job], Path], jobs: Iterable[Job], count: int, stop: Callable[[], None]
) -> Iterator[Job]:
    """Call `build_one` with every job in `count` threads, and yield each job when it is done.

    Jobs are taken when a thread is free for them. `stop` is called at the end, whatever it was; the threads are given
    a moment then, and after that do not keep the process alive.
    """
    waiting, taking = iter(jobs), threading.Lock()
    done: queue.SimpleQueue[tuple[Job | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            while True:
                with taking:
                    job = next(waiting, None)
                if job is None:
                    break
                build_one(job)
                done.put((job, None))
            done.put((None, None))
        except BaseException as error:
            done.put((None, error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        running = count
        while running:
            job, error = done.get()
            if error:
                raise error
            if job is None:
                running -= 1
            else:
                yield job
    finally:
        stop()
        deadline = time.monotonic() + _PATIENCE_S
        for thread in threads:
            if thread.ident:
                thread.join(max(0.0, deadline - time.monotonic()))


class Crew:
    """Worker processes that are lent to one shard at a time, and replaced when they die."""

    def __init__(self):
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._closed = False

    def build(self, job: Job, folder: str, image_timeout_s: float) -> Path:
        """Build a shard in a worker process, and return its path; images that end workers are left out.

        Parameters
        ----------
        job : Job
        folder : str
            What the paths of the job are relative to.
        image_timeout_s : float
            How long a crop of an image may take, s.

        Raises
        ------
        RuntimeError
            Workers die, and no image is to blame.
        """
        deaths: dict[str, int] = {}
        while True:
            worker = self._take()
            try:
                return worker.build(job, folder, image_timeout_s)
            except WorkerDied as death:
                if self._closed:
                    raise Stopped from None
                deaths[death.key] = deaths.get(death.key, 0) + 1
                self._check(deaths, death)
                if death.key and deaths[death.key] == TRIES:
                    job = replace(job, left_out={**job.left_out, death.key: _left_out(death)})
            finally:
                self._give_back(worker)

    @staticmethod
    def _check(deaths: dict[str, int], death: WorkerDied) -> None:
        if deaths.get("") == MOST_DEATHS_IDLE or sum(deaths.values()) == MOST_DEATHS:
            raise RuntimeError(
                f"worker processes died {sum(deaths.values())} times over one shard, and the last {death}: "
                "where memory is short, fewer --workers help; the same command continues"
            ) from None

    def _take(self) -> WorkerProcess:
        with self._lock:
            if self._closed:
                raise Stopped
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive():
                    break
                worker.close()
            else:
                worker = WorkerProcess()
            self._busy.add(worker)
            return worker

    def _give_back(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._closed and worker.is_alive():
                self._idle.append(worker)
                return
        worker.close()

    def close(self) -> None:
        """End all workers at once; what they had in hand is dropped."""
        with self._lock:
            self._closed = True
            for worker in self._busy:
                worker.kill()
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()


def _left_out(death: WorkerDied) -> Bad:
    if death.timed_out:
        return Bad(death.key, TOO_SLOW, f"it took longer than --image-timeout allows, {TRIES} times")
    return Bad(death.key, DIED, f"its worker process {death}, {TRIES} times")
