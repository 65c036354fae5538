"""What is done with each pair of an evaluation: restore, shift into place, measure, time."""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from trainers.data import Pair
from trainers.metrics import Metric

INPUT, OUTPUT, WHITE, MEAN = "input", "output", "white", "mean"
COST, SHIFT = ("seconds", "peak_mib"), ("shift_y", "shift_x")
Restore = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 blurred to restored."""


@dataclass(frozen=True)
class Measured:
    """One pair.

    Attributes
    ----------
    key : str
    height, width : int
        In px.
    rows : dict
        "input", "output" and more -> name of a metric -> value. "output" has `COST`, too; where images were aligned
        each has ``shift_y`` and ``shift_x``, the px by which the image lay below and right of the sharp one.
    """

    key: str
    height: int
    width: int
    rows: dict[str, dict[str, float]]

    @property
    def merit_db(self) -> float:
        """What images are ranked by: the gain of the output over the input in PSNR, or the PSNR of the input."""
        before, after = self.rows[INPUT]["psnr"], self.rows.get(OUTPUT, {}).get("psnr")
        if after is None:
            return before
        return 0.0 if after == before else after - before


@dataclass(frozen=True)
class Bench:
    """What is done with each pair.

    Parameters
    ----------
    metrics : mapping
        Name -> function of an image and the sharp one.
    output : callable or None
        (H, W, 3) uint8 blurred -> restored.
    meter : Meter
    align : int
        Largest shift, px.
    blank : bool
        Measure blank pages, too.
    """

    metrics: Mapping[str, Metric]
    output: Restore | None
    meter: "Meter"
    align: int = 0
    blank: bool = False

    def warm_up(self, pair: Pair) -> None:
        """Restore once unmeasured, so that no image pays for what a GPU does only once."""
        if self.output and self.meter.device.type == "cuda":
            self.output(pair.blurred)

    def measure(self, pair: Pair) -> Measured:
        """Return all values of a pair."""
        images, cost = {INPUT: pair.blurred}, {}
        if self.output:
            images[OUTPUT], cost[OUTPUT] = self.meter.run(self.output, pair.blurred)
        if self.blank:
            images[WHITE] = np.full_like(pair.sharp, 255)
            images[MEAN] = np.full_like(pair.sharp, np.rint(pair.sharp.mean((0, 1))))
        rows = {row: self._values(image, pair.sharp) | cost.get(row, {}) for row, image in images.items()}
        return Measured(pair.key, *pair.sharp.shape[:2], rows)

    def _values(self, image: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
        shift = {}
        if self.align:
            image, sharp, offsets = aligned(image, sharp, self.align)
            shift = dict(zip(SHIFT, offsets, strict=True))
        return {name: metric(image, sharp) for name, metric in self.metrics.items()} | shift


def aligned(image: np.ndarray, sharp: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return the part of `image` that fits the middle of `sharp` best, that middle, and the shift (y, x) in px.

    The middle is all of `sharp` but `reach` px at each border, so that every shift is judged on the same pixels; the
    best has the least mean square error.

    Raises
    ------
    ValueError
        Images without a middle.
    """
    height, width = sharp.shape[:2]
    if min(height, width) <= 2 * reach:
        raise ValueError(f"--align {reach} needs images above {2 * reach} px a side, got {width}x{height}")
    middle = sharp[reach : height - reach, reach : width - reach]
    errors = cv2.matchTemplate(image, middle, cv2.TM_SQDIFF)
    y, x = divmod(int(errors.argmin()), errors.shape[1])
    part = image[y : y + middle.shape[0], x : x + middle.shape[1]]
    return np.ascontiguousarray(part), np.ascontiguousarray(middle), (y - reach, x - reach)


@dataclass(frozen=True)
class Meter:
    """How long a function runs, and the memory in use at its worst.

    Parameters
    ----------
    device : torch.device
        Memory is that of the GPU, or on the CPU that of the whole process.
    """

    device: torch.device

    def run(self, function: Restore, image: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        """Return ``function(image)``, and its `COST`."""
        self._reset_peak()
        start = time.perf_counter()
        result = function(image)
        seconds = time.perf_counter() - start
        return result, {"seconds": seconds, "peak_mib": self._peak_bytes() / 2**20}

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        # Where this is forbidden, the peak is that since the start of the process.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def _peak_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
