"""How fast training images reach a step, against copying the same crops out of a memory map.

    python benchmarks/feed.py [--data SHARDS] [--device cpu|cuda] [--crop N] [--batch N] [--widths N ...]

Both sides are fed, and an image of either counts as one. Figures are medians of alternating runs in one process. The
floor copies crops of as many bytes, in a random order, from a NumPy memory map of the same images into one array: it
mirrors nothing, and leaves them as levels on the CPU. Steps are those of `disentangled`, with its losses for text and
the generators trained in every second of them.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from blurgen.shards import META, SOURCE, Layout, source_row, write_shard
from trainers.data import Data, DataOptions, open_data
from trainers.method import Batch, Context, MethodConfig
from trainers.models import method_class
from trainers.noise import Noise

ROUNDS, STEPS, TIMED_STEPS = 7, 60, 6
FEEDS = {
    "read by 1 thread": {"workers": 1, "resident": "off"},
    "read by 2 threads": {"workers": 2, "resident": "off"},
    "held by the device": {"workers": 2, "resident": "on"},
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="shards to read; without, images of noise, 256 px wide")
    parser.add_argument("--samples", type=int, default=400, help="samples of noise to make")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--crop", type=int, default=128, help="side of the crops, px")
    parser.add_argument("--batch", type=int, default=16, help="images of each side in a step")
    parser.add_argument("--widths", type=int, nargs="*", default=[4, 8], help="widths of the systems to step")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(f"{machine(device)}; Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        path = arguments.data or noise(Path(scratch) / "noise.h5", arguments.samples)
        data = open_data(DataOptions(path), "unpaired", 0)
        config = MethodConfig(batch=arguments.batch, crop=arguments.crop)
        fastest = feeds(data, config, device, Path(scratch))
    for width in arguments.widths:
        ours = step_rate(width, arguments.crop, arguments.batch, device)
        print(f"step of width {width}: {ours:,.0f} images/s, the feed gives {fastest / ours:.0f} times as many")


def machine(device: torch.device) -> str:
    """Return the names of the processor and of the GPU."""
    about = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in about if line.startswith("model name")), platform.machine())
    cores = f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name(device)}, {cores}" if device.type == "cuda" else cores


def noise(path: Path, count: int) -> Path:
    """Write shards of noise and return their path."""
    rng, layout = np.random.default_rng(0), Layout(256)
    arrays = {name: rng.integers(0, 256, (count, *item.shape), np.uint8) for name, item in layout.arrays.items()}
    meta = np.zeros(count, META)
    meta["id"] = meta["source"] = np.arange(count)
    rows = [source_row(f"{number}.png", sha256(b"%d" % number).digest(), 256, 256) for number in range(count)]
    write_shard(path, layout, arrays, meta, np.array(rows, SOURCE), {})
    return path


def feeds(data: Data, config: MethodConfig, device: torch.device, scratch: Path) -> float:
    """Print images per second of each way to feed and of the floor; return the median of the fastest way."""
    opened = {name: data.feed(config, device, **settings) for name, settings in FEEDS.items()}
    steps = {name: feed.steps() for name, feed in opened.items()}
    rounds = {"copied from a memory map": floor(data, config, scratch)}
    rounds |= {name: lambda batches=batches: taken(batches, device) for name, batches in steps.items()}
    rates = alternate(rounds, 2 * config.batch * STEPS)
    for feed in opened.values():
        feed.close()
    base = rates["copied from a memory map"]
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} images/s, {rate / base:.2f} of the floor")
    return max(rates[name] for name in FEEDS)


def taken(batches, device: torch.device) -> None:
    """Take a round of batches and wait until the device has them."""
    for _ in islice(batches, STEPS):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def floor(data: Data, config: MethodConfig, scratch: Path) -> Callable[[], None]:
    """Return a function that copies as many crops as a round has out of a memory map."""
    sides = []
    for images in (data.sharp, data.blurred):
        shape = (len(images), images.side, images.side, 3)
        mapped = np.memmap(scratch / f"{images.array}.raw", np.uint8, "w+", shape=shape)
        for row in range(len(images)):
            images.read(row, mapped[row])
        sides.append(mapped)
    rng, batch = np.random.default_rng(0), np.empty((config.batch, config.crop, config.crop, 3), np.uint8)
    slack = data.sharp.side - config.crop

    def copy() -> None:
        for mapped in sides * STEPS:
            rows, corners = rng.integers(0, len(mapped), config.batch), rng.integers(0, slack + 1, (config.batch, 2))
            for place, row, (y, x) in zip(batch, rows.tolist(), corners.tolist(), strict=True):
                place[:] = mapped[row, y : y + config.crop, x : x + config.crop]

    return copy


def step_rate(width: int, crop: int, batch: int, device: torch.device) -> float:
    """Return images per second of the steps of `disentangled`, batches at hand."""
    kind = method_class("disentangled")
    method = kind(kind.Config(width=width, crop=crop, batch=batch, domain="text"), Context(device))
    images = torch.rand(2, batch, 3, crop, crop, device=device) * 2 - 1
    times = []
    for step in range(0, 2 + TIMED_STEPS, 2):
        started = time.perf_counter()
        for number in (step, step + 1):
            method.step(Batch(*images, Noise(0, number, range(batch), device)))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return 2 * 2 * batch / statistics.median(times[1:])


def alternate(rounds: dict[str, Callable[[], None]], images: int) -> dict[str, float]:
    """Return the median images per second of some functions, run in turn after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in rounds}
    for run in range(ROUNDS + 1):
        for name, function in rounds.items():
            started = time.perf_counter()
            function()
            if run:
                times[name].append(time.perf_counter() - started)
    return {name: images / statistics.median(kept) for name, kept in times.items()}


if __name__ == "__main__":
    main()
