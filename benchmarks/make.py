"""How fast `blurgen make` is, against the floor of reading, cropping and writing the same bytes.

    python benchmarks/make.py [--photos DIR ...] [--small DIR] [--memory]

Every figure is a median of several alternating runs in one process, start-up and compilation left out.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from blurgen.backends import build_all
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import Plan, make_plan
from blurgen.rng import stream
from blurgen.run import Run
from blurgen.sample import cut
from blurgen.shards import open_shards, pack, write_atomically
from blurgen.worker import Job, build

RUNS = 5


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="*", default=[], help="folders of large photographs")
    parser.add_argument("--small", help="a folder of small images, such as BSDS500")
    parser.add_argument("--memory", action="store_true", help="measure memory at 1,000 and 20,000 samples, too")
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch)
        if arguments.photos:
            against_ceiling("large photos", listed(arguments.photos, folder / "photos.txt"), 48, folder)
        small = arguments.small or drawn_images(folder / "leaves", 100)
        against_ceiling("small images", str(small), 200, folder)
        two_workers(str(small), folder)
        packing(str(small), folder)
        random_reads(str(small), folder)
        if arguments.memory:
            memory(str(small), folder)


def print_machine() -> None:
    """Print what the figures hold for."""
    about = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in about if line.startswith("model name")), "?")
    versions = f"Python {sys.version.split()[0]}, numpy {np.__version__}, cv2 {cv2.__version__}"
    print(f"{model}, {os.cpu_count()} cores, {versions}")


def listed(folders: list[str], path: Path) -> str:
    """Return a list file of all images below some folders."""
    images = [str(file.resolve()) for folder in folders for file in sorted(Path(folder).rglob("*"))]
    path.write_text("\n".join(name for name in images if name.lower().endswith((".jpg", ".jpeg"))))
    return str(path)


def drawn_images(folder: Path, count: int) -> Path:
    """Return a folder of JPEG images of 481x321 px, made of dead leaves."""
    from blurgen.sources.leaves import LeavesSource

    folder.mkdir()
    source = LeavesSource()
    for entry in source.entries(count):
        pixels = source.read(entry.key).sharp[:321, :481]
        cv2.imwrite(str(folder / f"{Path(entry.key).name}.jpg"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return folder


def plan_of(source: str, count: int, out: Path, **options: object) -> Plan:
    """Return the plan of the default options on a source."""
    return make_plan(MakeOptions(source=Chosen(source), count=count, out=out, **options))


def against_ceiling(title: str, source: str, count: int, folder: Path) -> None:
    """Print samples per second of one worker, beside decoding, cropping and writing the same bytes."""
    plan = plan_of(source, count, folder / "x.h5")
    run = Run(plan, folder / "x.h5", count)
    run.folder.mkdir(exist_ok=True)
    job = run.jobs()[0]
    ours, ceiling = alternate(lambda: build(job), lambda: unblurred(job))
    print(f"{title}: {count / ours:.0f} samples/s, ceiling {count / ceiling:.0f}, ratio {ceiling / ours:.2f}")
    shutil.rmtree(run.folder)


def unblurred(job: Job) -> None:
    """Read and crop what `job` does, and write as many bytes, without blurring."""
    cv2.setNumThreads(1)
    shapes = job.layout.arrays.items()
    arrays = {name: np.zeros((len(job.crops), *item.shape), item.dtype) for name, item in shapes}
    key, picture = "", None
    for number, crop in enumerate(job.crops):
        if crop.entry.key != key:
            key = crop.entry.key
            picture = job.source.read(key)
        box = job.look.rule.draw(*picture.sharp.shape[:2], stream(job.seed, key, crop.index, "crop"))
        arrays["sharp"][number] = arrays["blurred"][number] = cut(
            picture.sharp, box, job.look.rule.crop, 0, job.look.response
        )
    pieces, offset = [], 0
    for array in arrays.values():
        pieces.append((offset, memoryview(array).cast("B")))
        offset += array.nbytes
    write_atomically(job.path, pieces, offset)


def two_workers(source: str, folder: Path) -> None:
    """Print how much faster two workers are than one, from the second shard of each worker on."""
    ratios = []
    for number in range(3):
        rates = [rate(source, workers, folder / f"w{number}-{workers}.h5") for workers in (1, 2)]
        ratios.append(rates[1] / rates[0])
    print(f"two workers against one: {statistics.median(ratios):.2f} times the samples per second")


def rate(source: str, workers: int, out: Path) -> float:
    """Return samples per second while all workers are at work."""
    plan = plan_of(source, 2400, out)
    run = Run(plan, out, 40)
    run.folder.mkdir()
    jobs = run.jobs()
    stamps = [time.perf_counter() for _ in build_all(jobs, RunOptions(workers=workers), len(jobs))]
    shutil.rmtree(run.folder)
    first, last = 4 * workers, len(jobs) - workers
    return (last - first) * run.per_shard / (stamps[last] - stamps[first])


def packing(source: str, folder: Path) -> None:
    """Print how fast shards are packed, beside a plain copy of the same bytes to the disk."""
    out = folder / "pack.h5"
    make(plan_of(source, 1500, out), out, RunOptions(sharded=True))
    paths = sorted((folder / "pack.h5.d").glob("*.h5"))
    total = sum(path.stat().st_size for path in paths)
    ours, floor = alternate(
        lambda: pack(paths, folder / "packed.h5", {"bad": []}), lambda: copied(paths, folder / "copy")
    )
    print(
        f"pack: {total / ours / 2**20:.0f} MiB/s, copy and fsync {total / floor / 2**20:.0f}, ratio {floor / ours:.2f}"
    )


def copied(paths: list[Path], out: Path) -> None:
    """Copy files one after the other into one, down to the disk."""
    with open(out, "wb") as target:
        for path in paths:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())


def random_reads(source: str, folder: Path) -> None:
    """Print random reads per second from a finished file, beside a NumPy memmap of the same bytes."""
    out = folder / "reads.h5"
    make(plan_of(source, 1500, out), out, RunOptions())
    shards = open_shards(out)
    images = np.stack([shards.read("blurred", index) for index in range(len(shards))])
    images.tofile(folder / "reads.raw")
    mapped = np.memmap(folder / "reads.raw", np.uint8, "r", shape=images.shape)
    order = np.random.default_rng(0).permutation(len(shards)).tolist()
    batch = np.empty((32, *images.shape[1:]), np.uint8)

    def read_all(read: Callable[[int, np.ndarray], object]) -> None:
        for place, index in enumerate(order):
            read(index, batch[place % len(batch)])

    ours, floor = alternate(
        lambda: read_all(lambda index, out: shards.read("blurred", index, out)),
        lambda: read_all(lambda index, out: np.copyto(out, mapped[index])),
    )
    print(f"random reads: {len(order) / ours:.0f}/s, memmap {len(order) / floor:.0f}/s, ratio {floor / ours:.2f}")


def memory(source: str, folder: Path) -> None:
    """Print the peak resident memory of any worker, at two counts."""
    for count in (1000, 20000):
        out = folder / f"memory{count}.h5"
        command = [
            "blurgen",
            "make",
            "--src",
            source,
            "--count",
            str(count),
            "--out",
            str(out),
            "--quiet",
            "--workers",
            "2",
        ]
        started = time.perf_counter()
        _, peaks = run_watched(command)
        seconds = time.perf_counter() - started
        peak = max(peaks.values()) >> 10
        print(f"memory at {count} samples: peak {peak} MiB in any process, {count / seconds:.0f} samples/s")
        out.unlink()


def run_watched(command: list[str]) -> tuple[subprocess.Popen, dict[int, int]]:
    """Run a command to its end; return its process, and the peak resident memory, kB, of it and all below it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    watcher = threading.Thread(target=watch, args=(process, peaks))
    watcher.start()
    process.wait()
    watcher.join()
    return process, peaks


def watch(process: subprocess.Popen, peaks: dict[int, int]) -> None:
    """Keep the peak resident memory, kB, of a process and its descendants."""
    while process.poll() is None:
        for pid in descendants(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:  # it has just ended
                continue
            peak = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
            peaks[pid] = max(peaks.get(pid, 0), *peak, 0)
        time.sleep(0.1)


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [below for child in task.read_text().split() for below in descendants(int(child))]
        except OSError:  # it has just ended
            continue
    return found


def alternate(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of two functions, run in turn after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(RUNS + 1):
        for function, kept in zip((ours, peer), times, strict=True):
            started = time.perf_counter()
            function()
            if run:
                kept.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
