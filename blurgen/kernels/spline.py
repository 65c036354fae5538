"""Trajectories along random Bézier curves."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from blurgen.kernels.model import MAX_LENGTH_PX, KernelModel, Trajectory, scaled_to_length

_SAMPLES = 256


@dataclass(frozen=True, kw_only=True)
class Spline(KernelModel):
    """A Bézier curve with normally distributed control points, run through at equal steps of its parameter.

    Parameters
    ----------
    length_px : float
        Arc length of every trajectory in px, at least 0.
    degree : int
        Degree of the curve in [1, 30]; it has degree + 1 control points.
    side_px : int
        Least side of the kernels in px.

    Examples
    --------
    >>> Spline(length_px=30).draw(np.random.default_rng(0)).shape
    (65, 65)
    """

    PARAMS: ClassVar[tuple[str, ...]] = ("length_px", "degree")

    length_px: float = 30.0
    degree: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("length_px", 0.0, MAX_LENGTH_PX)
        if self.degree not in range(1, 31):
            raise ValueError(f"degree must be a whole number in [1, 30], got {self.degree}")

    def trajectory(self, rng: np.random.Generator) -> Trajectory:
        path = _bernstein(self.degree) @ rng.standard_normal((self.degree + 1, 2))
        params = {"length_px": self.length_px, "degree": float(self.degree)}
        return Trajectory(scaled_to_length(path, self.length_px), None, params)

    def reach_px(self) -> float:
        return 2.0 * self.length_px  # it may be slow near one end


@lru_cache(maxsize=8)
def _bernstein(degree: int) -> np.ndarray:
    """Return the Bernstein polynomials (samples, degree + 1) at equal steps of the parameter."""
    t = np.linspace(0.0, 1.0, _SAMPLES)[:, None]
    k = np.arange(degree + 1)
    return np.array([math.comb(degree, i) for i in k]) * t**k * (1 - t) ** (degree - k)
