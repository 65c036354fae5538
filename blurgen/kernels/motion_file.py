"""Trajectories from a file: positions, angles, or the log of a gyroscope."""

import math
import re
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from blurgen.kernels.model import KernelModel, Trajectory

KINDS = ("auto", "positions", "angles", "rates")
_SHUTTER_LAG_S = 0.08
_MOST_BYTES = 1 << 26


class Motion(NamedTuple):
    """A recorded motion: float64 times (n,) in s from 0 up, positions (n, 2) in px, roll (n,) in rad."""

    times: np.ndarray
    positions: np.ndarray
    roll: np.ndarray


@dataclass(frozen=True, kw_only=True)
class MotionFile(KernelModel):
    """The motion recorded in a file, or a part of it.

    The file is a text with one position a line, numbers separated by commas, semicolons or blanks; lines that begin
    with "#" and a first line of names are skipped. By kind, the columns are

    - positions: x, y in px [, time in s]
    - angles: rotation about x, y [, z] in rad, time in s
    - rates: angular velocity about x, y [, z] in rad/s, time in s; with seven columns, three accelerations come
      first, as in the logs of Lai et al. 2016.

    The default "auto" takes two or three columns for positions and more for rates. Rates are integrated by the
    trapezoidal rule. For small angles, a rotation about y moves the image by focal_px times the angle in x, one about
    x does so in y. The rotation about z (roll) moves each part of an image differently, which one kernel cannot
    show: it is left out, and its range is reported in the params.

    Parameters
    ----------
    file : str or Path
        The file, or the folder of a log ``gyro.txt``.
    kind : {"auto", "positions", "angles", "rates"}
        What the columns are.
    focal_px : float, optional
        Focal length in px of the source image, positive; angles and rates need it.
    exposure_s : float, optional
        Duration of the part that is used. By default that of an ``info.txt`` beside a log of rates, else all.
    start_s : float, optional
        Start of that part in s after the first time of the file. By default it is drawn wherever `exposure_s` is
        given, so that the part lies inside the file; without `exposure_s` every draw is the same: the exposure
        that an ``info.txt`` beside a log of rates tells, or else the whole file.
    zoom : float
        Factor on all positions, positive.
    side_px : int
        Least side of the kernels in px.

    Raises
    ------
    ValueError
        If the file is malformed (too few columns, NaN, times that do not grow), or the part lies outside it.

    Notes
    -----
    In an ``info.txt`` of Lai et al. 2016 the second number is the exposure in s and the third a time at which the
    image was delivered; the authors let the exposure end 80 ms before it.

    References
    ----------
    Lai, Huang, Hu, Ahuja, Yang: A comparative study for single image blind deblurring, CVPR 2016.
    """

    PARAMS: ClassVar[tuple[str, ...]] = ("start_s", "exposure_s", "roll_left_out_deg")

    file: str | Path = ""
    kind: str = "auto"
    focal_px: float | None = None
    exposure_s: float | None = None
    start_s: float | None = None
    zoom: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("focal_px", 1e-3, 1e9)
        self._check("exposure_s", 1e-9, 1e9)
        self._check("start_s", 0.0, 1e12)
        self._check("zoom", 0.0, 1e6)
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not self.file:
            raise ValueError("file must name a file of positions, angles or rates, got nothing; give file=PATH")
        start_s, exposure_s = self._window()
        span_s = self._motion().times[-1]
        if exposure_s <= 0 or (start_s or 0.0) + exposure_s > span_s * (1 + 1e-12):
            raise ValueError(
                f"start_s + exposure_s must lie inside the {span_s:g} s of {self.file}, "
                f"got {start_s or 0.0:g} + {exposure_s:g}"
            )

    def trajectory(self, rng: np.random.Generator) -> Trajectory:
        times, positions, roll = self._motion()
        start_s, exposure_s = self._window()
        start_of_drawn = rng.random() * max(times[-1] - exposure_s, 0.0)
        start_s = start_of_drawn if start_s is None else start_s
        end_s = min(start_s + exposure_s, times[-1])
        inside = times[(times > start_s) & (times < end_s)]
        at = np.concatenate(([start_s], inside, [end_s]))
        path = np.stack([np.interp(at, times, axis) for axis in positions.T], axis=1)
        left_out_deg = math.degrees(np.ptp(np.interp(at, times, roll)))
        return Trajectory(
            self.zoom * (path - path[0]),
            np.diff(at),
            {"start_s": float(start_s), "exposure_s": float(exposure_s), "roll_left_out_deg": left_out_deg},
        )

    def reach_px(self) -> float:
        times, positions, _ = self._motion()
        fastest = np.max(np.abs(np.diff(positions, axis=0)) / np.diff(times)[:, None])
        # within T s nothing is farther from the barycentre than T/2 at full speed, nor than the whole extent
        return self.zoom * float(min(fastest * self._window()[1], 2.0 * np.ptp(positions, axis=0).max()))

    def _motion(self) -> Motion:
        path = self._path()
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise ValueError(f"file must be readable, got {path}: {error}") from error
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise ValueError(f"file must be a file of at most {_MOST_BYTES >> 20} MiB, got {path}")
        return _read_motion(path, status.st_mtime_ns, self.kind, self.focal_px)

    def _path(self) -> Path:
        path = Path(self.file)
        return path / "gyro.txt" if path.is_dir() else path

    def _window(self) -> tuple[float | None, float]:
        """Return the start in s, None if it is drawn, and the duration in s."""
        if self.exposure_s is not None:
            return self.start_s, self.exposure_s
        info = self._path().with_name("info.txt")
        times = self._motion().times
        if self.start_s is None and self.kind in ("auto", "rates") and info.is_file():
            first_s, exposure_s, delivered_s = _numbers(info)[0][:3]
            return delivered_s - _SHUTTER_LAG_S - exposure_s - first_s, exposure_s
        return self.start_s or 0.0, times[-1] - (self.start_s or 0.0)


@lru_cache(maxsize=16)
def _read_motion(path: Path, changed: int, kind: str, focal_px: float | None) -> Motion:
    """Return the motion in a file; `changed`, its time stamp, makes the cache notice a new content."""
    table = _numbers(path)
    columns = table.shape[1]
    if kind == "auto":
        kind = "positions" if columns <= 3 else "rates"
    least = 2 if kind == "positions" else 3
    if columns < least or len(table) < 2:
        raise ValueError(
            f"a file of {kind} must have at least {least} columns and 2 lines, got {table.shape} in {path}"
        )
    times = np.arange(len(table), dtype=float) if columns == 2 else table[:, -1] - table[0, -1]
    if not np.all(np.diff(times) > 0):
        line = int(np.argmin(np.diff(times) > 0)) + 2
        raise ValueError(f"the times in the last column must grow, got {table[line - 1, -1]} in row {line} of {path}")
    if kind == "positions":
        return Motion(times, table[:, :2] - table[0, :2], np.zeros(len(table)))
    if focal_px is None:
        raise ValueError(f"focal_px must be given for a file of {kind}, got None; it is the focal length in px")
    turning = (
        table[:, 3:6] if columns == 7 else np.pad(table[:, : min(columns - 1, 3)], ((0, 0), (0, 4 - min(columns, 4))))
    )
    angles = _integral(turning, times) if kind == "rates" else turning - turning[0]
    return Motion(times, focal_px * angles[:, [1, 0]], angles[:, 2])


def _integral(rates: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the integral (n, 3) of `rates` (n, 3) from the first time on, by the trapezoidal rule."""
    steps = 0.5 * (rates[1:] + rates[:-1]) * np.diff(times)[:, None]
    return np.concatenate((np.zeros((1, 3)), np.cumsum(steps, axis=0)))


def _numbers(path: Path) -> np.ndarray:
    """Return the table of finite numbers, float64 (rows, columns), in a text file."""
    rows: list[list[float]] = []
    named = False
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        cells = [cell for cell in re.split(r"[\s,;]+", line.strip()) if cell]
        if not cells or cells[0].startswith("#"):
            continue
        try:
            row = [float(cell) for cell in cells]
        except ValueError as error:
            names = not (rows or named or any(cell[0].isdigit() for cell in cells))
            if names and line.isprintable():
                named = True
                continue
            raise ValueError(
                f"{path} must hold numbers, one position a line; line {number} does not: {_excerpt(line)}"
            ) from error
        if not all(map(math.isfinite, row)):
            raise ValueError(f"every number must be finite, got {_excerpt(line)} in line {number} of {path}")
        if rows and len(row) != len(rows[0]):
            raise ValueError(f"every line must have {len(rows[0])} numbers, got {len(row)} in line {number} of {path}")
        rows.append(row)
    if not rows:
        raise ValueError(f"a motion file must hold numbers, got none in {path}")
    return np.array(rows)


def _excerpt(line: str) -> str:
    """Return the start of a line of what may be no text, fit for a message."""
    return ascii(line.strip())[:40]
