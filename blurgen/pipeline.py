"""From a plan to one finished file: shards in parallel, then packed.

The unit of work is a shard. It is built in memory and appears on the disk whole or not at all, so that the same call
continues a run that was stopped at any moment, and no two runs of one plan differ.
"""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from blurgen import __version__
from blurgen.backends import build_all
from blurgen.card import check_card
from blurgen.lock import FolderLock
from blurgen.make_options import RunOptions
from blurgen.plan import Plan
from blurgen.run import (
    BASE_NAME,
    PLAN_NAME,
    Division,
    Run,
    card,
    open_run,
    packed_samples,
    read_state,
    shard_folder,
    shard_size,
    structure_of,
)
from blurgen.sample import TooSmall, render
from blurgen.shards import (
    MASTER,
    BadShard,
    naming_bytes,
    open_shards,
    pack,
    parse,
    remove_drafts,
    shard_paths,
    sync_folder,
    write_master,
)
from blurgen.sources import BadImage
from blurgen.words import TooMuchText
from blurgen.worker import DIED, RAISED, TOO_SLOW, Bad, streams

MOST_NAMED = 10
# What a file system takes, less what a draft beside it adds to a name.
MOST_NAME_BYTES = 255 - len(".." + 8 * "f" + ".tmp")


@dataclass
class Progress:
    """How far a run, or a slice of it, is, in samples; images that made none are counted in `bad`."""

    total: int
    done: int = 0
    bad: list[Bad] = field(default_factory=list)

    @property
    def note(self) -> str:
        """What `blurgen.progress` shows beside the counts."""
        # Each shard that wants an image tells of it.
        return f"{len({bad.key for bad in self.bad})} images left out"


def make(
    plan: Plan, out: Path, options: RunOptions, report: Callable[[Progress], None] = lambda progress: None
) -> Progress:
    """Make the file `out` of a plan, or continue to make it, and return what was done.

    Parameters
    ----------
    plan : Plan
    out : Path
    options : RunOptions
        With a slice, only its shards are made; `index` finishes.
    report : callable
        Called with the `Progress` after every shard.

    Raises
    ------
    ValueError
        What lies at `out` belongs to another plan, and ``options.overwrite`` is off; or no image could be used.
    OSError
        The disk is full or cannot be written; the same call continues once it can.
    RuntimeError
        Another process makes the same file now, or workers die again and again.
    """
    if out.is_dir():
        raise ValueError(f"--out must name a file, got the folder {out}")
    if (size := len(os.fsencode(out.name))) > MOST_NAME_BYTES:
        raise ValueError(f"--out must have a name of at most {MOST_NAME_BYTES} bytes, got {size}")
    folder = shard_folder(out)
    if not (folder.exists() or options.overwrite) and packed_samples(plan, out) >= plan.count:
        return Progress(plan.count, plan.count, read_bad(out))
    with ExitStack() as held:
        with naming_bytes(out, bytes_needed(plan, plan.count, options.sharded)):
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
            held.enter_context(FolderLock(folder, options.slice and options.slice.file_name))
        try:
            run = open_run(plan, out, options)
            return _continue(run, options, report) if run else Progress(plan.count, plan.count, read_bad(out))
        except BaseException:
            _tidy(folder, options)
            raise


def _tidy(folder: Path, options: RunOptions) -> None:
    """Leave nothing of a run that has failed but what another can go on from."""
    with suppress(OSError):  # what went wrong first is to be told
        remove_drafts(folder)
        if options.slice is None and not any(map(_has_samples, folder.glob("*.h5"))):
            shutil.rmtree(folder)  # nothing is lost, and other options may be tried at once


def _has_samples(path: Path) -> bool:
    with suppress(BadShard):
        return count_samples(path) > 0
    return True


def _continue(run: Run, options: RunOptions, report: Callable[[Progress], None]) -> Progress:
    """Build the shards that are missing, and finish; only for the one process that holds the folder or the slice."""
    division = run.division
    numbers = options.slice.of(division.shards) if options.slice else range(division.shards)
    total = sum(last - first for first, last in map(division.span, numbers))
    progress = Progress(total if options.slice else run.plan.count)
    left_out: dict[str, Bad] = {}
    pending, bad = _pending(run, numbers, left_out)
    if not pending and options.slice is None and options.sharded and _is_master_of(run):
        return Progress(run.plan.count, run.plan.count, read_bad(run.out))
    check_space(run, len(pending), options)
    while pending:
        known, spans = len(left_out), map(division.span, pending)
        progress.done, progress.bad = progress.total - sum(last - first for first, last in spans), bad
        report(progress)
        for job in build_all((run.job(number, left_out) for number in pending), options, len(pending)):
            progress.done += job.last_sample - job.first_sample
            found = _bad_of_new(job.path)
            progress.bad += found
            left_out |= _found_out(found)
            report(progress)
        if len(left_out) == known:
            break
        pending, bad = _pending(run, numbers, left_out)
    progress.bad, progress.done = _by_key(bad), progress.total
    if options.slice is None:
        progress.bad = finish(division, card(run.plan), options.sharded)
    return progress


def _pending(run: Run, numbers: Iterable[int], left_out: dict[str, Bad]) -> tuple[list[int], list[Bad]]:
    """Return which shards are still to be made, and the bad images of the others; put those found out in `left_out`.

    An image that is left out of one shard is left out of all: whether its samples are there must not depend on how
    they are divided into shards.
    """
    found = {number: _bad_of(attrs) for number in numbers if (attrs := run.division.made(number)) is not None}
    for several in found.values():
        left_out |= _found_out(several)
    if left_out:
        missing = {number: left_out.keys() & run.keys(number) for number in found}
        found = {
            number: bad for number, bad in found.items() if missing[number] <= {one.key for one in bad if one.whole}
        }
    return [number for number in numbers if number not in found], [bad for several in found.values() for bad in several]


def _bad_of_new(path: Path) -> list[Bad]:
    try:
        return read_bad(path)
    except FileNotFoundError as error:
        raise RuntimeError(
            f"{path.parent} does not keep what was written: shard {path.name} is gone; the same command makes it again"
        ) from error


def _found_out(bad: Iterable[Bad]) -> dict[str, Bad]:
    return {entry.key: entry for entry in bad if entry.reason in (RAISED, DIED, TOO_SLOW)}


def _is_master_of(run: Run) -> bool:
    return run.out.exists() and structure_of(run.out).attrs["plan"] == run.plan.document


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
    needed = bytes_needed(run.plan, run.per_shard * pending_shards, options.sharded or options.slice is not None)
    free = bytes_free(run.out)
    if needed > free:
        raise OSError(
            f"{run.out} needs {needed:,} bytes while it is made, and its disk has {free:,} free: "
            "make room and run the same command again"
        )


def finish(division: Division, attrs: dict[str, Any], sharded: bool) -> list[Bad]:
    """Pack the shards into the output, or write the master file beside them; return the images left out.

    Raises
    ------
    ValueError
        There is no sample at all, or a shard is damaged.
    OSError
        The output cannot be written; the shards stay.
    """
    out, paths = division.out, [division.path(number) for number in range(division.shards)]
    if division.first_sample:
        base = division.folder / BASE_NAME
        if sharded and not base.exists():
            out.rename(base)
            sync_folder(division.folder)
        paths.insert(0, base if base.exists() else out)
    left_out = _by_key(entry for path in paths for entry in read_bad(path))
    if not any(count_samples(path) for path in paths):
        raise ValueError(f"no image could be used: {left_out[0].key}: {left_out[0].message}")
    attrs = attrs | {"range": [0, division.document["count"]], "bad": left_out}
    try:
        (write_master if sharded else pack)(paths, out, attrs)
    except BadShard as error:
        raise BadShard(f"{error}; remove that shard, and the same command makes it again") from error
    if sharded:
        remove_drafts(division.folder)
    else:
        shutil.rmtree(division.folder)
    return left_out


def _by_key(bad: Iterable[Bad]) -> list[Bad]:
    by_key = {entry.key: entry for entry in bad}
    return [by_key[key] for key in sorted(by_key)]


def index(out: Path, packed: bool = False) -> Progress:
    """Finish what the slices of a run have made: a master file beside the shards, or, `packed`, one plain file.

    Raises
    ------
    ValueError
        There is nothing to finish, shards are missing (the message names them), or no image could be used.
    OSError
        The output cannot be written; the shards stay.
    RuntimeError
        A slice is still being made.
    """
    folder = shard_folder(out)
    if not folder.is_dir() and not out.exists():
        raise ValueError(
            f"there are no shards in {folder}: `blurgen make --out {out} --shard 1/8` and so on makes some"
        )
    with FolderLock(folder) if folder.is_dir() else nullcontext():
        remove_drafts(folder)
        remove_drafts(out)
        division = read_state(out)
        before = structure_of(out) if out.exists() else None
        if before and before.kind != MASTER and (not division or before.attrs["plan"] == division.document):
            shutil.rmtree(folder, ignore_errors=True)  # left by a run that was stopped right after packing
            count = before.attrs["plan"]["count"]
            return Progress(count, count, read_bad(out))
        if division is None:
            raise ValueError(f"{folder} has no {PLAN_NAME}, and so no shards of a run: is --out another file?")
        return _finish_slices(division, packed)


def _finish_slices(division: Division, packed: bool) -> Progress:
    found = [division.made(number) for number in range(division.shards)]
    missing = [number for number, attrs in enumerate(found) if attrs is None]
    if missing:
        raise ValueError(_missing(division, missing))
    _require_agreement(division, found)
    attrs = {"plan": division.document, "licence": found[0]["licence"], "blurgen": __version__}
    count = division.document["count"]
    progress = Progress(count, count, finish(division, attrs, not packed))
    for lock in division.folder.glob(".slice-*.lock"):
        lock.unlink()
    return progress


def _require_agreement(division: Division, found: list[dict[str, Any]]) -> None:
    """Raise ValueError where an image that was left out of one slice made samples in another."""
    shard_without: dict[str, int] = {}
    for number, attrs in enumerate(found):
        for key in _found_out(_bad_of(attrs)):
            shard_without.setdefault(key, number)
    for number in range(len(found)) if shard_without else ():
        keys = {key.decode() for key in open_shards(division.path(number)).sources["key"].tolist()}
        for key in sorted(shard_without.keys() & keys):
            without, having = (division.path(one).name for one in (shard_without[key], number))
            raise ValueError(
                f"{key} was left out of {without}, but not of {having}: "
                "the same `blurgen make` without --shard makes these shards again, alike"
            )


def _missing(division: Division, missing: list[int]) -> str:
    """Return the sentence on shards that are missing, with their slices where all were cut alike."""
    names = [division.path(number).name for number in missing[:MOST_NAMED]]
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    cuts = {int(path.name.split("-of-")[1].split(".")[0]) for path in division.folder.glob(".slice-*-of-*.lock")}
    again = "make them by `blurgen make`, with --shard or without"
    if len(cuts) == 1:
        (count,) = cuts
        slices = sorted({number % count + 1 for number in missing})
        again = f"run again --shard {', '.join(f'{number}/{count}' for number in slices[:MOST_NAMED])}"
        again += " and more" if len(slices) > MOST_NAMED else ""
    return f"{len(missing)} of {division.shards} shards are missing, {', '.join(names)}{more}: {again}"


def read_bad(path: Path) -> list[Bad]:
    """Return the images that a shard, or a finished file, had to leave out."""
    return _bad_of(check_card(parse(path).attrs, path))


def _bad_of(attrs: dict[str, Any]) -> list[Bad]:
    return [Bad(*entry) for entry in attrs["bad"]]


def count_samples(path: Path) -> int:
    """Return how many samples a file of shards holds."""
    return len(open_shards(path))


def pack_shards(path: Path, out: Path) -> int:
    """Pack a folder of shards, or a master file with its shards, into the new plain file `out`; return its samples."""
    if out.exists():
        raise ValueError(f"{out} exists: name another --out, or remove it first")
    remove_drafts(out)
    paths = shard_paths(path)
    bad = {entry.key: entry for shard in paths for entry in read_bad(shard)}
    made = check_card(open_shards(path).attrs, path)
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
        with suppress(BadImage, TooSmall, TooMuchText):
            crop = plan.crop(number)
            picture = plan.source.read(crop.entry.key)
            drawn = streams(plan.seed, crop.entry.key, crop.index)
            render(picture.sharp, picture.blurred, plan.look, drawn, picture.maps, picture.words)
            times.append((time.perf_counter() - started) / plan.samples_per_crop)
    return statistics.fmean(times[1:] or times or [0.0])
