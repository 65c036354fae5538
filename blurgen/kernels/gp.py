"""Trajectories from a Gaussian process."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from blurgen.kernels.model import MAX_LENGTH_PX, KernelModel, Trajectory, scaled_to_length

_SAMPLES = 256


@dataclass(frozen=True, kw_only=True)
class GaussianProcess(KernelModel):
    """x(t) and y(t) are independent Gaussian processes with a Matérn covariance, scaled to one arc length.

    The camera speeds up and slows down, as hands do, so that kernels have bright spots where it dwelt.

    Parameters
    ----------
    length_px : float
        Arc length of every trajectory in px, at least 0.
    nu : float
        Smoothness, 1.5 or 2.5: the velocity exists and is rough, or is itself smooth.
    timescale : float
        Time l over which positions are correlated, as a fraction of the exposure, in [0.05, 2].
    side_px : int
        Least side of the kernels in px.

    References
    ----------
    Rasmussen, Williams: Gaussian processes for machine learning, 2006, eq. 4.17. Schuler, Hirsch, Harmeling,
    Schölkopf: Learning to deblur, TPAMI 38(7), 2016, drew blur kernels with l = 0.3 and the covariance of nu = 2.5
    under the name of 3/2.

    Examples
    --------
    >>> GaussianProcess(length_px=30).draw(np.random.default_rng(0)).shape
    (65, 65)
    """

    PARAMS: ClassVar[tuple[str, ...]] = ("length_px", "timescale")

    length_px: float = 30.0
    nu: float = 1.5
    timescale: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("length_px", 0.0, MAX_LENGTH_PX)
        self._check("timescale", 0.05, 2.0)
        if self.nu not in (1.5, 2.5):
            raise ValueError(f"nu must be 1.5 or 2.5, got {self.nu}")

    def trajectory(self, rng: np.random.Generator) -> Trajectory:
        path = _factor(self.nu, self.timescale) @ rng.standard_normal((_SAMPLES, 2))
        params = {"length_px": self.length_px, "timescale": self.timescale}
        return Trajectory(scaled_to_length(path, self.length_px), None, params)

    def reach_px(self) -> float:
        return 2.0 * self.length_px  # it may dwell at one end


def matern(distance: np.ndarray, nu: float) -> np.ndarray:
    """Return the Matérn covariance, 1 at distance 0, of `distance` in units of the length scale; nu is 1.5 or 2.5."""
    r = math.sqrt(2 * nu) * np.abs(distance)
    return (1 + r) * np.exp(-r) if nu == 1.5 else (1 + r + r**2 / 3) * np.exp(-r)


@lru_cache(maxsize=8)
def _factor(nu: float, timescale: float) -> np.ndarray:
    """Return a matrix (samples, samples) that turns white noise into the process at equal times."""
    times = np.linspace(0.0, 1.0 / timescale, _SAMPLES)
    # the added variance is far below a pixel; without it rounding makes the matrix indefinite
    return np.linalg.cholesky(matern(times[:, None] - times, nu) + 1e-10 * np.eye(_SAMPLES))
