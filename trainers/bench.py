"""What is done with each pair of an evaluation: restore, shift into place, measure, time."""

import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from trainers.arithmetic import set_precision
from trainers.data import Pair
from trainers.infer import Means, choose_mode, deblur_colors
from trainers.method import Restorer
from trainers.metrics import Metric
from trainers.ocr import character_error_rate
from trainers.padding import PaddedImage
from trainers.resizing import enlarged
from trainers.segment import SegmentationScore

INPUT, OUTPUT, WHITE, MEAN, SHARP = "input", "output", "white", "mean", "sharp"
COST, SHIFT = ("seconds", "peak_mib"), ("shift_y", "shift_x")
IOU, IOU_OF_IMAGE, CER = "iou", "iou_of_image", "cer"


@dataclass(frozen=True)
class Measured:
    """One pair.

    Attributes
    ----------
    key : str
    height, width : int
        In px.
    rows : dict
        "input", "output" and more -> name of a metric -> value. What was restored has `COST`, too; the row "sharp",
        where pages are read, nothing but ``cer``. Where images were aligned each has ``shift_y`` and ``shift_x``, the
        px by which the image lay below and right of the sharp one.
    """

    key: str
    height: int
    width: int
    rows: dict[str, dict[str, float]]

    @property
    def is_blurred(self) -> bool:
        """Whether the input differs from the sharp image; a blank page does not, and its PSNR is infinite."""
        return math.isfinite(self.rows[INPUT]["psnr"])

    @property
    def merit_db(self) -> float:
        """What images are ranked by: the gain of the output over the input in PSNR, or the PSNR of the input."""
        before, after = self.rows[INPUT]["psnr"], self.rows.get(OUTPUT, {}).get("psnr")
        if after is None:
            return before
        return 0.0 if after == before else after - before


class Deblurring:
    """A function from a blurred (H, W, 3) uint8 image to the restored one.

    Parameters
    ----------
    restorer : Restorer
    means : Means
    """

    def __init__(self, restorer: Restorer, means: Means):
        self._restorer, self._means = restorer, means
        self._prepared: dict[tuple[int, ...], Means] = {}

    def prepare(self, blurred: np.ndarray, guide: np.ndarray | None = None) -> None:
        """Do what is done once for each size: choose a mode, and let a GPU run once."""
        if blurred.shape in self._prepared:
            return
        image = PaddedImage(blurred, self._restorer.multiple, self._means.device)
        mode = choose_mode(self._restorer, image, self._means)
        self._prepared[blurred.shape] = replace(self._means, tiles=mode)
        if self._means.device.type == "cuda":
            self(blurred, guide)

    def __call__(self, blurred: np.ndarray, guide: np.ndarray | None = None) -> np.ndarray:
        """Return the restored image; `guide` is the map that a system asks for."""
        return deblur_colors(self._restorer, blurred, self._prepared.get(blurred.shape, self._means), guide=guide)


class Enlarging:
    """A function from a blurred image to one restored by a system that does not enlarge, bicubically enlarged.

    Parameters
    ----------
    deblurring : Deblurring
    factor : int
        How many times larger the result is.
    first : bool
        Enlarge what is given to the system, not what it makes.
    """

    def __init__(self, deblurring: Deblurring, factor: int, first: bool):
        self._deblurring, self._factor, self._first = deblurring, factor, first

    def prepare(self, blurred: np.ndarray) -> None:
        """Do what is done once for each size."""
        self._deblurring.prepare(self._given(blurred))

    def __call__(self, blurred: np.ndarray) -> np.ndarray:
        """Return the restored image."""
        restored = self._deblurring(self._given(blurred))
        return restored if self._first else enlarged(restored, self._factor)

    def _given(self, blurred: np.ndarray) -> np.ndarray:
        return enlarged(blurred, self._factor) if self._first else blurred


Restorations = Mapping[str, Deblurring | Enlarging]
"""Row -> what makes its image of a blurred one; "output" is the system that is measured."""


@dataclass(frozen=True)
class Bench:
    """What is done with each pair.

    Parameters
    ----------
    metrics : mapping
        Name -> function of an image and the sharp one.
    restorations : mapping
    meter : Meter
    align : int
        Largest shift, px.
    blank : bool
        Measure blank pages, too.
    scale : int
        How many times larger sharp images are than blurred ones, which are bicubically enlarged to be measured.
    segmentation : SegmentationScore, optional
        Takes in every image but blank pages.
    read : callable, optional
        (H, W, 3) uint8 RGB -> the text in it; pairs need a transcript then.
    """

    metrics: Mapping[str, Metric]
    restorations: Restorations
    meter: "Meter"
    align: int = 0
    blank: bool = False
    scale: int = 1
    segmentation: SegmentationScore | None = None
    read: Callable[[np.ndarray], str] | None = None

    def measure(self, pair: Pair) -> Measured:
        """Return all values of a pair."""
        images, cost = {INPUT: enlarged(pair.blurred, self.scale)}, {}
        for row, restoration in self.restorations.items():
            restoration.prepare(pair.blurred, **pair.guiding)
            images[row], cost[row] = self.meter.run(partial(restoration, **pair.guiding), pair.blurred)
        # Whatever the arithmetic of the networks, that of the metrics stays.
        set_precision("fp32", self.meter.device)
        if self.blank:
            images[WHITE] = np.full_like(pair.sharp, 255)
            images[MEAN] = np.full_like(pair.sharp, np.rint(pair.sharp.mean((0, 1))))
        placed = {row: self._placed(image, pair.sharp) for row, image in images.items()}
        rows = {row: self._values(*placed[row]) | cost.get(row, {}) for row in images}
        measured = Measured(pair.key, *pair.sharp.shape[:2], rows)
        if self.segmentation:
            for row in (INPUT, *self.restorations):
                rows[row][IOU_OF_IMAGE] = self.segmentation.add(row, *placed[row][:2], measured.is_blurred)
        if self.read:
            for row, image in {**images, SHARP: pair.sharp}.items():
                rows.setdefault(row, {})[CER] = character_error_rate(self.read(image), pair.transcript)
        return measured

    def _placed(self, image: np.ndarray, sharp: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """Return an image and the sharp one as they are compared, and the shift between them where one was sought."""
        return aligned(image, sharp, self.align) if self.align else (image, sharp, ())

    def _values(self, image: np.ndarray, sharp: np.ndarray, offsets: tuple[int, ...]) -> dict[str, float]:
        values = {name: metric(image, sharp) for name, metric in self.metrics.items()}
        return values | dict(zip(SHIFT[: len(offsets)], offsets, strict=True))


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

    def run(
        self, function: Callable[[np.ndarray], np.ndarray], image: np.ndarray
    ) -> tuple[np.ndarray, dict[str, float]]:
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
