"""What a run tells of itself: averages of its scalars in metrics.jsonl, sheets of pictures, TensorBoard."""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from blurgen.preview import sample_sheet
from blurgen.shards import write_atomically
from trainers.method import average_over_processes

METRICS, SHEETS = "metrics.jsonl", "sheets"
MOST_VALUES = 256


class Averages:
    """Running averages of 0-d tensors by name; the device is waited for only when they are taken."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Take the scalars of one step; those of a side that was not due are missing."""
        for name, value in scalars.items():
            values = self._values.setdefault(name, [])
            values.append(value.detach())
            if len(values) >= MOST_VALUES:
                self._add_up(name)

    def take(self) -> dict[str, float]:
        """Return the averages since the last call, over all processes too, and begin anew."""
        for name in self._values:
            self._add_up(name)
        sums, self._values, self._sums = self._sums, {}, {}
        if not sums:
            return {}
        means = torch.stack([total / count for total, count in sums.values()])
        average_over_processes([means])
        return dict(zip(sums, means.tolist(), strict=True))

    def _add_up(self, name: str) -> None:
        values, self._values[name] = self._values[name], []
        if values:
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + torch.stack(values).double().sum(), count + len(values)


class Log:
    """``metrics.jsonl`` of a run, and TensorBoard's files where it is installed.

    Parameters
    ----------
    run : Path
        The folder of the run.
    offset : int
        Where the lines of the resumed step end, bytes; what stands behind was logged by steps that are done again.
    step : int
        The resumed step.
    """

    def __init__(self, run: Path, offset: int = 0, step: int = 0):
        self._file = (run / METRICS).open("ab")
        self._file.truncate(min(offset, self._file.seek(0, os.SEEK_END)))
        self._board = _tensorboard(run, step)

    def write(self, step: int, facts: Mapping[str, Any]) -> None:
        """Add one line; what is not finite has no place in JSON, and is left out."""
        facts = {name: value for name, value in facts.items() if not isinstance(value, float) or math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **facts}).encode() + b"\n")
        self._file.flush()
        for name, value in facts.items() if self._board else ():
            if isinstance(value, (int, float)):
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, sheet: np.ndarray) -> None:
        """Show TensorBoard a sheet, (H, W, 3) uint8."""
        if self._board:
            self._board.add_image("validation", sheet, step, dataformats="HWC")

    def offset(self) -> int:
        """Return where the next line will begin, bytes; all before is on the disk."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board:
            self._board.close()


def _tensorboard(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)


def write_sheet(run: Path, step: int, rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Write and return the sheet ``input | output | target`` of a step; `rows` holds (H, W, 3) uint8 images."""
    sheet = sample_sheet(rows)
    encoded = memoryview(cv2.imencode(".png", sheet[..., ::-1])[1]).cast("B")
    folder = run / SHEETS
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{step:08d}.png", [(0, encoded)], len(encoded))
    return sheet


class Rate:
    """How many images a second are trained on, pauses for measuring and saving left out."""

    def __init__(self) -> None:
        self.value = 0.0
        self.start()

    def start(self) -> None:
        """Count from here."""
        self._since, self._images = time.monotonic(), 0

    def count(self, images: int) -> None:
        """Take in the images of one step."""
        self._images += images

    def stop(self) -> None:
        """Set the rate to that since the last call."""
        self.value = self._images / max(time.monotonic() - self._since, 1e-9)
        self.start()

    @property
    def note(self) -> str:
        """The rate in words."""
        return f"{self.value:.{int(self.value < 10)}f} images a second" if self.value else ""
