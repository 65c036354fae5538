"""Trajectories from a Gaussian process."""

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import ClassVar

import numpy as np

from blurgen.jit import njit
from blurgen.kernels.model import MAX_LENGTH_PX, KernelModel, Trajectory, scaled_to_length
from blurgen.kernels.noise import fill_normals, key_of

_SAMPLES = 256
# by nu: the covariance of x and its derivatives at one time, up to a factor that the scaling to one length removes,
# and the nilpotent part of their drift
_STATIONARY_NILPOTENT = {
    1.5: (((1, 0), (0, 1)), ((1, 1), (-1, -1))),
    2.5: (((3, 0, -1), (0, 1, 0), (-1, 0, 3)), ((1, 1, 0), (0, 1, 1), (-1, -3, -2))),
}


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
    under the name of 3/2. Hartikainen, Särkkä: Kalman filtering and smoothing solutions to temporal Gaussian process
    regression models, MLSP 2010: the process and its derivatives form a Markov chain, drawn here.

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
        with np.errstate(over="ignore"):  # without the compiler, numpy warns when the hash of the noise wraps around
            path = _chain(*_law(self.nu, float(self.timescale)), rng.random(), rng.random())
        params = {"length_px": self.length_px, "timescale": self.timescale}
        return Trajectory(scaled_to_length(path, self.length_px), None, params)

    def reach_px(self) -> float:
        return 2.0 * self.length_px  # it may dwell at one end


@lru_cache(maxsize=8)
def _law(nu: float, timescale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return factors of the covariance of the first state and of the noise of a step, and the transition of a step.

    The state is the process and its derivatives with the unit of time l / sqrt(2 nu), the matrices float64 (p, p) with
    p = nu + 1/2. The process solves (d/dt + 1)**p x = white noise, so that the drift of the state is a nilpotent matrix
    less the unit matrix, and its exponential a short sum.
    """
    with localcontext(Context(prec=60)):  # over a short step the noise is a difference of nearly equal numbers
        step = Decimal(2 * nu).sqrt() / (Decimal(timescale) * (_SAMPLES - 1))
        stationary, nilpotent = (_decimals(rows) for rows in _STATIONARY_NILPOTENT[nu])
        unit = _decimals(np.eye(len(stationary), dtype=int).tolist())
        nilpotent = step * nilpotent
        transition = (-step).exp() * (unit + nilpotent + nilpotent @ nilpotent / 2)
        noise = _cholesky(stationary - transition @ stationary @ transition.T)
        return tuple(matrix.astype(np.float64) for matrix in (_cholesky(stationary), noise, transition))


def _decimals(rows: tuple[tuple[int, ...], ...]) -> np.ndarray:
    return np.array([[Decimal(number) for number in row] for row in rows])


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    """Return the lower triangular factor of a matrix of decimals."""
    factor = 0 * matrix
    for i in range(len(matrix)):
        for j in range(i):
            factor[i, j] = (matrix[i, j] - factor[i] @ factor[j]) / factor[j, j]
        factor[i, i] = (matrix[i, i] - factor[i] @ factor[i]).sqrt()
    return factor


@njit
def _chain(start, noise, transition, word_1, word_2):
    """Return a path (samples, 2) of two independent processes; two uniform numbers in [0, 1) are all its randomness."""
    order = start.shape[0]
    white = np.empty((2, _SAMPLES * order))
    fill_normals(key_of(word_1, word_2), 1.0, white[0], white[1])
    states = np.zeros((2, _SAMPLES + 1, order))
    for axis in range(2):
        factor = start
        for t in range(_SAMPLES):
            for i in range(order):
                for j in range(order):
                    states[axis, t + 1, i] += transition[i, j] * states[axis, t, j]
                for j in range(i + 1):
                    states[axis, t + 1, i] += factor[i, j] * white[axis, t * order + j]
            factor = noise
    return states[:, 1:, 0].T
