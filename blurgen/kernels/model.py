"""What every kernel model is: parameters in a frozen dataclass, and one random trajectory a call."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, NamedTuple

import numpy as np

from blurgen.raster import MAX_SIDE_PX, checked_side, rasterize

MAX_LENGTH_PX = (MAX_SIDE_PX - 3) // 2  # no trajectory reaches more than twice its length, and the splat adds 3 px


class Trajectory(NamedTuple):
    """One motion of the camera.

    Attributes
    ----------
    path : ndarray of float64, shape (n, 2)
        Positions (x, y) in px of the source image.
    weights : ndarray of float64, shape (n - 1,), or None
        Time spent in each segment; None where all take the same time.
    params : dict of str to float
        What was drawn, by the names in the model's PARAMS.
    """

    path: np.ndarray
    weights: np.ndarray | None
    params: dict[str, float]


class Drawn(NamedTuple):
    """One trajectory and its kernel.

    Attributes
    ----------
    path, weights, params
        Those of `Trajectory`.
    kernel : ndarray of float32, shape (k, k)
        Non-negative, sum 1, k odd.
    shift : ndarray of float64, shape (2,)
        ``path + shift`` is measured in px from the centre pixel of the kernel.
    """

    path: np.ndarray
    weights: np.ndarray | None
    kernel: np.ndarray
    shift: np.ndarray
    params: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class KernelModel(ABC):
    """A law of random trajectories.

    Parameters
    ----------
    side_px : int
        Least side of the kernels in px, positive and odd; a larger trajectory gets a larger kernel.
    """

    PARAMS: ClassVar[tuple[str, ...]] = ()

    side_px: int = 65

    def __post_init__(self) -> None:
        checked_side(self.side_px)

    def _check(self, name: str, least: float, most: float, several: bool = False) -> None:
        """Raise ValueError unless a field is in [least, most] or None by default; `several` allows a sequence."""
        value = getattr(self, name)
        if several and isinstance(value, (list, tuple)):
            object.__setattr__(self, name, tuple(value))
            numbers = value or (math.nan,)
        elif value is None and type(self).__dataclass_fields__[name].default is None:
            return
        else:
            numbers = (value,)
        if not all(isinstance(number, Real) and least <= number <= most for number in numbers):
            several_hint = ", or several such numbers to draw from" if several else ""
            raise ValueError(f"{name} must be in [{least:g}, {most:g}]{several_hint}, got {value!r}")

    def check_memory(self, n: int) -> None:
        """Raise ValueError if n kernels need more memory than the machine has."""
        _check_memory(n, self.side_px)

    @abstractmethod
    def trajectory(self, rng: np.random.Generator) -> Trajectory:
        """Return one random trajectory."""

    @abstractmethod
    def reach_px(self) -> float:
        """Return twice the largest distance, along x or y, of any trajectory from its barycentre, in px.

        It holds for every draw and every exposure, so that a kernel of the next odd side above ``reach_px() + 3``
        always holds the barycentred path.
        """

    def path(self, rng: np.random.Generator) -> np.ndarray:
        """Return the positions (x, y) of one random trajectory, float64 (n, 2), in px."""
        return self.trajectory(rng).path

    def sample(
        self,
        rng: np.random.Generator,
        exposure: tuple[float, float] = (0.0, 1.0),
        anchor: str = "barycentre",
    ) -> Drawn:
        """Return one random trajectory with its kernel.

        Parameters
        ----------
        rng : numpy.random.Generator
            What the trajectory is drawn from, such as ``np.random.default_rng(0)``; an int is none.
        exposure, anchor
            Those of `rasterize`.
        """
        path, weights, params = self.trajectory(rng)
        kernel, shift = rasterize(path, self.side_px, weights, exposure, anchor)
        return Drawn(path, weights, kernel, shift, params)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return one random kernel, float32 (k, k), non-negative, sum 1, barycentre on the centre pixel."""
        return self.sample(rng).kernel

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Return ``draw(rng)`` for every generator, float32 (n, k, k), with a margin of zeros around smaller ones."""
        kernels = [self.draw(rng) for rng in rngs]
        side = max((len(kernel) for kernel in kernels), default=self.side_px)
        return np.concatenate([padded(kernel[None], side) for kernel in kernels] or [np.empty((0, side, side), "f4")])


def padded(kernels: np.ndarray, side_px: int) -> np.ndarray:
    """Return kernels (n, k, k) with a margin of zeros that makes their side `side_px`."""
    _check_memory(len(kernels), side_px)
    margin = (side_px - kernels.shape[1]) // 2
    return np.pad(kernels, ((0, 0), (margin, margin), (margin, margin)))


def _check_memory(n: int, side_px: int) -> None:
    needed = 4 * n * side_px**2
    if hasattr(os, "sysconf") and needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise ValueError(
            f"{n} kernels of {side_px}x{side_px} px need {needed / 2**30:.3g} GiB, more than this machine has; "
            "draw fewer at a time"
        )


def choose(values: float | tuple[float, ...], uniform: float) -> float:
    """Return the element of a tuple that a uniform number in [0, 1) picks; a number is itself."""
    return values[int(uniform * len(values))] if isinstance(values, tuple) else values


def scaled_to_length(path: np.ndarray, length_px: float) -> np.ndarray:
    """Return a copy of `path` (n, 2) that starts at the origin and has the arc length `length_px`."""
    path = path - path[0]
    return path * (length_px / np.hypot(*np.diff(path, axis=0).T).sum())
