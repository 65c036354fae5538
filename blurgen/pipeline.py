"""From a plan to one finished file: shards in parallel, then packed.

The unit of work is a shard. It is built in memory and appears on the disk whole or not at all, so that the same call
continues a run that was stopped at any moment, and no two runs of one plan differ.
"""

import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from blurgen.lock import FolderLock
from blurgen.make_options import RunOptions
from blurgen.plan import Plan
from blurgen.run import BASE_NAME, Run, card, open_run, packed_samples, shard_folder, shard_size, structure_of
from blurgen.sample import TooSmall, render
from blurgen.shards import open_shards, pack, remove_drafts, shard_paths, write_master
from blurgen.sources import BadImage
from blurgen.worker import Bad, Job, build, is_done, streams

ATTEMPTS = 3
IDLE_WORKER_S = 10


@dataclass
class Progress:
    """How far a run is, in samples; images that made none are counted in `bad`."""

    total: int
    done: int = 0
    bad: list[Bad] = field(default_factory=list)

    @property
    def note(self) -> str:
        """What `blurgen.progress` shows beside the counts."""
        return f"{len(self.bad)} images left out"


def make(
    plan: Plan, out: Path, options: RunOptions, report: Callable[[Progress], None] = lambda progress: None
) -> Progress:
    """Make the file `out` of a plan, or continue to make it, and return what was done.

    Parameters
    ----------
    plan : Plan
    out : Path
    options : RunOptions
    report : callable
        Called with the `Progress` after every shard.

    Raises
    ------
    ValueError
        What lies at `out` belongs to another plan, and ``options.overwrite`` is off; or no image could be read.
    OSError
        The disk is full or cannot be written; the same call continues once it can.
    RuntimeError
        Another process makes the same file now, or workers die again and again.
    """
    if out.is_dir():
        raise ValueError(f"--out must name a file, got the folder {out}")
    folder = shard_folder(out)
    if not (folder.exists() or options.overwrite) and packed_samples(plan, out) >= plan.count:
        return Progress(plan.count, plan.count, read_bad(out))
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder):
        try:
            run = open_run(plan, out, options)
            return _continue(run, options, report) if run else Progress(plan.count, plan.count, read_bad(out))
        except BaseException:
            remove_drafts(folder)
            if not any(count_samples(path) for path in folder.glob("*.h5")):
                shutil.rmtree(folder)  # nothing is lost, and other options may be tried at once
            raise


def _continue(run: Run, options: RunOptions, report: Callable[[Progress], None]) -> Progress:
    """Build the shards that are missing, and finish; only for the one process that holds the folder."""
    progress = Progress(run.plan.count, run.first_sample)
    pending = []
    for job in run.jobs():
        if is_done(job):
            progress.done += job.last_sample - job.first_sample
        else:
            pending.append(job)
    if (
        not pending
        and options.sharded
        and run.out.exists()
        and structure_of(run.out).attrs["plan"] == run.plan.document
    ):
        return Progress(run.plan.count, run.plan.count, read_bad(run.out))
    check_space(run, len(pending), options)
    report(progress)
    for job in build_all(pending, options):
        progress.done += job.last_sample - job.first_sample
        progress.bad += read_bad(job.path)
        report(progress)
    progress.bad = finish(run, options)
    return progress


def bytes_needed(plan: Plan, pending_samples: int, sharded: bool) -> int:
    """Return the most bytes that a run still writes, the packed file counted beside its shards."""
    return plan.layout.sample_bytes * (min(pending_samples, plan.count) + (0 if sharded else plan.count))


def bytes_free(path: Path) -> int:
    """Return the free bytes of the disk that `path` is to lie on."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(run: Run, pending_shards: int, options: RunOptions) -> None:
    """Raise OSError where the disk has no room for the shards to come and for packing them."""
    needed = bytes_needed(run.plan, run.per_shard * pending_shards, options.sharded)
    free = bytes_free(run.out)
    if needed > free:
        raise OSError(f"{run.out} needs {needed:,} bytes while it is made, and its disk has {free:,} free")


def build_all(jobs: list[Job], options: RunOptions) -> Iterator[Job]:
    """Build shards in parallel, and yield the job of each when it is done.

    A worker that dies takes its pool down; a new one tries what is missing then.

    Raises
    ------
    RuntimeError
        Workers died in `ATTEMPTS` pools one after the other without a single shard.
    """
    waiting = {job.path: job for job in jobs}
    workers = min(options.workers or joblib.cpu_count(), max(1, len(jobs)))
    failures = 0
    while waiting:
        own: dict[str, Any] = {}
        if options.backend == "loky":  # workers whose parent was killed end when they have been idle
            own = {"initializer": _prepare_worker, "initargs": (os.getcwd(),), "idle_worker_timeout": IDLE_WORKER_S}
        parallel = joblib.Parallel(workers, options.backend, return_as="generator_unordered", batch_size=1, **own)
        try:
            with _interrupts_ignored():
                results = parallel(joblib.delayed(build)(job) for job in list(waiting.values()))
            for path in results:
                failures = 0
                yield waiting.pop(path)
        except TerminatedWorkerError as error:
            failures += 1
            if failures == ATTEMPTS:
                raise RuntimeError(
                    f"worker processes died {ATTEMPTS} times in a row: where memory is short, fewer --workers help; "
                    "the same command continues"
                ) from error


def _prepare_worker(folder: str) -> None:
    """Make paths mean what they mean to the parent, and leave Ctrl-C, which a terminal sends to workers, too, to it."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C while worker processes start, which inherit that and so stay silent before they are initialised."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change a handler
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def finish(run: Run, options: RunOptions) -> list[Bad]:
    """Pack the shards into the output, or write the master file beside them; return the images left out."""
    paths = [job.path for job in run.jobs()]
    bad = {entry.key: entry for path in paths for entry in read_bad(path)}
    if run.first_sample:
        base = run.folder / BASE_NAME
        if options.sharded and not base.exists():
            run.out.rename(base)
        paths.insert(0, base if base.exists() else run.out)
        bad |= {entry.key: entry for entry in read_bad(paths[0])}
    left_out = [bad[key] for key in sorted(bad)]
    if not any(count_samples(path) for path in paths):
        raise ValueError(f"no image could be read: {left_out[0].key}: {left_out[0].message}")
    attrs = card(run.plan) | {"range": [0, run.plan.count], "bad": left_out}
    if options.sharded:
        write_master(paths, run.out, attrs)
    else:
        pack(paths, run.out, attrs)
        shutil.rmtree(run.folder)
    return left_out


def read_bad(path: Path) -> list[Bad]:
    """Return the images that a shard, or a finished file, had to leave out."""
    return [Bad(*entry) for entry in open_shards(path).attrs["bad"]]


def count_samples(path: Path) -> int:
    """Return how many samples a file of shards holds."""
    return len(open_shards(path))


def pack_shards(path: Path, out: Path) -> int:
    """Pack a folder of shards, or a master file with its shards, into the new plain file `out`; return its samples."""
    if out.exists():
        raise ValueError(f"{out} exists: name another --out, or remove it first")
    paths = shard_paths(path)
    bad = {entry.key: entry for shard in paths for entry in read_bad(shard)}
    made = open_shards(path).attrs
    attrs = {name: made[name] for name in ("plan", "licence", "blurgen")}
    attrs |= {"range": [0, made["plan"]["count"]], "bad": [bad[key] for key in sorted(bad)]}
    pack(paths, out, attrs)
    return count_samples(out)


def estimate(plan: Plan, out: Path, options: RunOptions) -> dict[str, Any]:
    """Return what a run would do: samples, bytes needed and free, and the time, measured on the first few crops."""
    per_shard = shard_size(plan, options)
    workers = options.workers or joblib.cpu_count()
    seconds = seconds_per_sample(plan) * plan.count / min(workers, -(-plan.count // per_shard))
    return {
        "out": str(out),
        "images": len(plan.entries),
        "samples": plan.count,
        "shards": -(-plan.count // per_shard),
        "kernel_side": plan.look.kernel_side,
        "bytes_needed": bytes_needed(plan, plan.count, options.sharded),
        "bytes_free": bytes_free(out),
        "seconds": round(seconds, 2),
        "plan": plan.document,
    }


def seconds_per_sample(plan: Plan, crops: int = 16) -> float:
    """Return the mean time to make one sample, s, over a few crops of the plan, compilation left out."""
    times = []
    for number in range(min(crops, -(-plan.count // plan.samples_per_crop)) + 1):
        started = time.perf_counter()
        with suppress(BadImage, TooSmall):
            crop = plan.crop(number)
            picture = plan.source.read(crop.entry.key)
            render(picture.sharp, picture.blurred, plan.look, streams(plan.seed, crop.entry.key, crop.index))
            times.append((time.perf_counter() - started) / plan.samples_per_crop)
    return statistics.fmean(times[1:] or times or [0.0])
