"""How fast kernels are drawn, against the time that their random numbers alone would take.

    python benchmarks/kernels.py [--repeat 9]

Nothing here uses more than one thread. Every figure is the median of repeated runs, interleaved so that all see the
same machine.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import numba
import numpy as np

from blurgen import draw_kernels, kernel_model
from blurgen.kernels import KERNELS, PRESETS
from blurgen.kernels.chain import fill_paths
from blurgen.kernels.noise import fill_normals
from blurgen.raster import equal_weights, rasterize, render_paths
from blurgen.rng import stream

COUNT = 512  # kernels a run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9, help="runs of each figure")
    repeat = parser.parse_args().repeat
    print_machine()
    walk = kernel_model("deblurgan")
    print(f"\n{walk}\nµs a kernel, median of {repeat} runs of {COUNT} kernels\n")
    figures = medians(walk_jobs(walk), repeat)
    floor = figures["random numbers alone, numpy SFC64"]
    for name, seconds in figures.items():
        print(f"{name:44s} {1e6 * seconds:8.1f} µs {1 / seconds:10,.0f} /s {seconds / floor:7.2f} of the floor")
    print("\nevery model and preset by draw_kernels\n")
    for name, seconds in medians(model_jobs(), repeat).items():
        print(f"{name:44s} {1e6 * seconds:8.1f} µs {1 / seconds:10,.0f} /s")


def walk_jobs(walk) -> dict[str, Callable[[], None]]:
    """Return what is timed: each job draws, or does its share of drawing, COUNT kernels."""
    rngs = [stream(1, i) for i in range(COUNT)]
    chains = np.array([walk.draw_chain(rng)[0] for rng in rngs])
    steps = walk.samples - 1
    paths = np.empty((COUNT, 2, walk.samples))
    fill_paths(chains, paths)
    kernels = np.empty((COUNT, walk.side_px, walk.side_px), np.float32)
    rng = stream(2)
    first, second = np.empty(steps), np.empty(steps)

    def numpy_numbers():
        for _ in range(COUNT):
            rng.standard_normal(2 * steps)
            rng.random(steps)

    def own_numbers():
        for key in range(COUNT):
            fill_normals(np.uint64(key), 1.0, first, second)

    def one_by_one():
        for i in range(COUNT):
            walk.draw(stream(5, i))

    def rasterize_each():
        for path in paths:
            rasterize(path.T, walk.side_px)

    def trajectories():
        for start in range(0, COUNT, 32):
            fill_paths(chains[start : start + 32], paths[start : start + 32])

    return {
        "random numbers alone, numpy SFC64": numpy_numbers,
        "random numbers alone, own sampler": own_numbers,
        "trajectories with their random numbers": trajectories,
        "raster of the trajectories": lambda: render_paths(paths, equal_weights(steps), kernels),
        "generators: stream(seed, i)": lambda: [stream(3, i) for i in range(COUNT)],
        "draw_kernels(model, n, seed)": lambda: draw_kernels(walk, COUNT, seed=4),
        "loop of model.draw(stream(seed, i))": one_by_one,
        "loop of rasterize(path, side)": rasterize_each,
    }


def model_jobs() -> dict[str, Callable[[], None]]:
    """Return a job for every name that needs no file."""
    models = {name: kernel_model(name) for name in (*PRESETS, *KERNELS) if name != "file"}
    return {name: lambda model=model: draw_kernels(model, COUNT, seed=6) for name, model in models.items()}


def medians(jobs: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """Return the median seconds a kernel of every job; the first run compiles and warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for run in range(repeat + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if run:
                seconds[name].append((time.perf_counter() - start) / COUNT)
    return {name: statistics.median(times) for name, times in seconds.items()}


def print_machine() -> None:
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            model = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    print(f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}")


if __name__ == "__main__":
    main()
