"""How the cost of `blurgen make` grows from a thousand samples to a hundred thousand, and what ten million would take.

    python benchmarks/scale.py [--runs 3] [--machines 64] [--workers 16]

Each sample is 64 px from an image of its own, made by one worker in the command as a user runs it. Time is that of the
processor, so that other work on the machine matters little. Slopes leave start-up out: they are differences between
counts.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
from make import print_machine, run_watched

from blurgen.make_options import MakeOptions
from blurgen.options import Chosen
from blurgen.pipeline import bytes_needed, index
from blurgen.plan import Plan, make_plan
from blurgen.shards import open_shards
from blurgen.sources.leaves import LeavesSource

COUNTS = (1_000, 10_000, 100_000)
ORIGINALS, SIDE = 200, 96
GOAL = 10_000_000
# Shards of one size at every count: small ones, which cost more, so that a thousand samples make several.
OPTIONS = ("--crop", "64", "--set", "kernel.length_px=12", "--shard-mib", "4", "--quiet")


class Cost(NamedTuple):
    """What a command took: seconds of the processor and of them the system's; peak memory of it and its worker, MiB."""

    cpu_s: float
    system_s: float
    command_mib: float
    worker_mib: float


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each count but the largest, whose median counts")
    parser.add_argument("--machines", type=int, default=64, help="machines of the estimate")
    parser.add_argument("--workers", type=int, default=16, help="workers on each of them")
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch)
        originals = draw_originals(folder / "originals")
        sources = [link_images(originals, folder / f"images{count}", count) for count in COUNTS]
        print("\none plain file:")
        growth(sources, folder, arguments.runs, keep="one.h5")
        print("\nshards kept apart, as on a cluster:")
        seconds, kib = growth(sources, folder, arguments.runs, "--sharded", keep="many.h5")
        print()
        for name in ("one.h5", "many.h5"):
            opening(folder / name)
        estimate(seconds, sources, folder, arguments.machines, arguments.workers)
        print(f"{'memory':>9}: {GOAL * kib / 2**20:7.1f} GiB = {GOAL:,} x {kib:.2f} KiB, for the list on each machine")


def draw_originals(folder: Path) -> list[Path]:
    """Return JPEG images of 96 px, made of dead leaves."""
    folder.mkdir()
    source, paths = LeavesSource(), []
    for number, entry in enumerate(source.entries(ORIGINALS)):
        pixels = source.read(entry.key).sharp[:SIDE, :SIDE]
        paths.append(folder / f"{number}.jpg")
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return paths


def link_images(originals: list[Path], folder: Path, count: int) -> Path:
    """Return a folder with `count` names for these images, which are images of their own to `blurgen`."""
    folder.mkdir()
    for number in range(count):
        os.link(originals[number % len(originals)], folder / f"{number:07d}.jpg")
    return folder


def growth(sources: list[Path], folder: Path, runs: int, *options: str, keep: str) -> tuple[float, float]:
    """Print time and memory at each count and their slopes, keep the largest result; return s and KiB a sample."""
    costs = []
    for count, source in zip(COUNTS, sources, strict=True):
        several = []
        for run in range(1 if count == max(COUNTS) else runs):
            out = folder / (keep if count == max(COUNTS) else f"{count}-{run}-{keep}")
            several.append(measured("make", "--src", source, "--out", out, "--workers", 1, *OPTIONS, *options))
            if out.name != keep:
                remove(out)
        cost = Cost(*(statistics.median(values) for values in zip(*several, strict=True)))
        costs.append(cost)
        memory = f"{cost.command_mib:.0f} MiB, of its worker {cost.worker_mib:.0f} MiB"
        print(f"{count:>9,} samples: {cost.cpu_s:7.2f} s of the processor, peak memory of the command {memory}")
    times, system, grown, worker = (slopes(costs, field) for field in Cost._fields)
    own = [all_of_it - kernel for all_of_it, kernel in zip(times, system, strict=True)]
    for name, (first, then) in {"time": times, "of which its own": own}.items():
        print(f"{name} a sample: {1e3 * first:.3f} ms, then {1e3 * then:.3f} ms, ratio {then / first:.2f}")
    print(f"memory a sample, command: {1024 * grown[0]:.2f} KiB, then {1024 * grown[1]:.2f} KiB; ", end="")
    print(f"worker: {1024 * worker[0]:.2f} KiB, then {1024 * worker[1]:.2f} KiB")
    return times[1], 1024 * grown[1]


def slopes(costs: list[Cost], field: str) -> list[float]:
    """Return how much a cost grows with a sample, between each count and the next."""
    values = [getattr(cost, field) for cost in costs]
    return [(values[i + 1] - values[i]) / (COUNTS[i + 1] - COUNTS[i]) for i in range(len(COUNTS) - 1)]


def remove(out: Path) -> None:
    """Remove a result with its shards."""
    out.unlink()
    shutil.rmtree(f"{out}.d", ignore_errors=True)


def measured(*words: object) -> Cost:
    """Run `blurgen` with words, and return what it took."""
    command = [sys.executable, "-m", "blurgen", *map(str, words)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process, peaks = run_watched(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    command_kb, system_s = peaks.pop(process.pid, 0), after.ru_stime - before.ru_stime
    cpu_s = after.ru_utime - before.ru_utime + system_s
    return Cost(cpu_s, system_s, command_kb / 1024, max(peaks.values(), default=0) / 1024)


def opening(path: Path) -> None:
    """Print how long it takes to open a finished set, and to read a sample from its middle."""
    times, reads = [], []
    for _ in range(9):
        started = time.perf_counter()
        shards = open_shards(path)
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
        shards.read("blurred", len(shards) // 2)
        reads.append(time.perf_counter() - started)
    opened, read = (1e3 * statistics.median(values) for values in (times, reads))
    print(f"{path.name}, {len(shards):,} samples: opened in {opened:.1f} ms, first image read in {read:.1f} ms")


def estimate(seconds: float, sources: list[Path], folder: Path, machines: int, workers: int) -> None:
    """Print what the samples of the goal would take on many machines, and how that follows from what was measured."""
    grown = COUNTS[2] - COUNTS[1]
    listing = (seconds_of(lambda: plan_of(sources[2])) - seconds_of(lambda: plan_of(sources[1]))) / grown
    out, plan = folder / "many.h5", plan_of(sources[0])
    shards = len(list(Path(f"{out}.d").glob("*.h5")))
    indexing = seconds_of(lambda: reindexed(out)) / shards
    terms = {
        "listing": (GOAL * listing, f"{GOAL:,} images x {1e6 * listing:.1f} us, on every machine"),
        "samples": (GOAL * seconds / machines / workers, f"{GOAL:,} x {1e3 * seconds:.3f} ms / {machines} / {workers}"),
        "index": (
            GOAL / COUNTS[2] * shards * indexing,
            f"{GOAL // COUNTS[2] * shards:,} shards x {1e3 * indexing:.2f} ms",
        ),
    }
    print(f"\n{GOAL:,} samples, an image each, on {machines} machines of {workers} cores like these:")
    for name, (term, arithmetic) in terms.items():
        print(f"{name:>9}: {term:7.1f} s = {arithmetic}")
    print(f"{'in all':>9}: {sum(term for term, _ in terms.values()) / 60:7.1f} min")
    size = bytes_needed(plan, plan.count, sharded=True) / plan.count
    print(f"{'shards':>9}: {GOAL * size / 2**30:7.0f} GiB = {GOAL:,} x {size:,.0f} bytes")


def plan_of(source: Path) -> Plan:
    """Return the plan of the benchmark's options on a source."""
    return make_plan(MakeOptions(source=Chosen(str(source)), crop=64, kernel=Chosen("deblurgan", {"length_px": 12.0})))


def reindexed(out: Path) -> None:
    """Write the master file of a finished set anew."""
    out.unlink()
    index(out)


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes, the least of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
