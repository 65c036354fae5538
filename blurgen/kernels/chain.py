"""The compiled random walk behind `Walk` and `SmoothWalk`: a heading that is kicked, pulled and shaken."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blurgen.jit import njit
from blurgen.kernels.model import KernelModel, Trajectory, padded
from blurgen.kernels.noise import cos_sin, fill_normals, key_of, log, uniform
from blurgen.raster import equal_weights, render_paths

_MOST_SAMPLES = 1_000_000
_LANES = 32  # trajectories that advance side by side; more do not hide more of the latency


class Chain(NamedTuple):
    """The law of one trajectory, in the units of its unit heading h.

    Attributes
    ----------
    step_px : float
        Length of a step; every step has the same.
    kick, first_kick : float
        Standard deviation, in x and in y, of what is added to the heading before each step and before the first.
    pull : float
        The heading gains -pull times the position, in 1/px, before each step.
    shake_rate : float
        Probability in [0, 1] that a step is an abrupt shake.
    heading_turns : float
        First heading, in turns.
    word_1, word_2 : float
        Uniform numbers in [0, 1): the key of the normal numbers and the shakes.
    """

    step_px: float
    kick: float
    first_kick: float
    pull: float
    shake_rate: float
    heading_turns: float
    word_1: float
    word_2: float


@dataclass(frozen=True, kw_only=True)
class ChainModel(KernelModel):
    """A model whose trajectories are chains.

    Parameters
    ----------
    samples : int
        Positions of a trajectory, from 2 to 1,000,000.
    side_px : int
        Least side of the kernels in px, positive and odd.
    """

    samples: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples not in range(2, _MOST_SAMPLES + 1):
            raise ValueError(f"samples must be a whole number from 2 to {_MOST_SAMPLES:,}, got {self.samples}")

    @abstractmethod
    def draw_chain(self, rng: np.random.Generator) -> tuple[Chain, tuple[float, ...]]:
        """Return the law of one trajectory and what was drawn for it, in the order of PARAMS."""

    def trajectory(self, rng: np.random.Generator) -> Trajectory:
        chain, drawn = self.draw_chain(rng)
        paths = np.empty((1, 2, self.samples))
        _fill(np.array([chain]), paths)
        return Trajectory(paths[0].T, None, dict(zip(self.PARAMS, drawn, strict=True)))

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        weights = equal_weights(self.samples - 1)
        paths = np.empty((_LANES, 2, self.samples))
        kernels = np.empty((len(rngs), self.side_px, self.side_px), np.float32)
        for first in range(0, len(rngs), _LANES):
            chains = np.array([self.draw_chain(rng)[0] for rng in rngs[first : first + _LANES]])
            lanes = len(chains)
            _fill(chains, paths[:lanes])
            needed = render_paths(paths[:lanes], weights, kernels[first : first + lanes])
            if needed > kernels.shape[1] // 2:
                kernels = padded(kernels, 2 * needed + 1)
                render_paths(paths[:lanes], weights, kernels[first : first + lanes])
        return kernels


def _fill(chains: np.ndarray, paths: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # without the compiler, numpy warns when the hash wraps around
        fill_paths(chains, paths)


@njit(error_model="numpy")
def fill_paths(chains, paths):
    """Fill `paths` (lanes, 2, samples), rows x and y, with those of `chains` (lanes, 8), rows as in `Chain`.

    A step waits for the one before, so the lanes advance side by side; they do not influence each other.
    """
    lanes, samples = chains.shape[0], paths.shape[2]
    headings = np.empty((2, lanes))
    shake_steps = np.empty(lanes, np.int64)
    shakes = np.zeros(lanes, np.int64)
    for lane in range(lanes):
        key = key_of(chains[lane, 6], chains[lane, 7])
        fill_normals(key, chains[lane, 1], paths[lane, 0, 1:], paths[lane, 1, 1:])
        fill_normals(key, chains[lane, 2], paths[lane, 0, 1:2], paths[lane, 1, 1:2])
        paths[lane, :, 0] = 0.0
        headings[0, lane], headings[1, lane] = cos_sin(chains[lane, 5])
        shake_steps[lane] = 1 + _steps_to_shake(chains[lane], 0, samples)
    first = 1
    while first < samples:
        last = min(samples, shake_steps.min())
        if lanes == 1:
            _advance_one(paths[0], headings[:, 0], chains[0], first, last)
        else:
            _advance_all(paths, headings, chains, first, last)
        for lane in range(lanes):
            if shake_steps[lane] == last:
                _shake(headings[:, lane], chains[lane], shakes[lane], samples)
                shakes[lane] += 1
                shake_steps[lane] += 1 + _steps_to_shake(chains[lane], shakes[lane], samples)
        first = last


@njit(error_model="numpy")
def _advance_all(paths, headings, chains, first, last):
    """Go the steps from `first` to before `last` in all lanes; the paths hold the kicks there, then the positions.

    The loop over lanes is kept apart from the stores, and its state in rows, so that it becomes vector instructions.
    """
    heading_x, heading_y = headings[0].copy(), headings[1].copy()
    x, y = paths[:, 0, first - 1].copy(), paths[:, 1, first - 1].copy()
    step_px, pull = chains[:, 0].copy(), chains[:, 3].copy()
    for step in range(first, last):
        for lane in range(x.shape[0]):
            heading_x[lane], heading_y[lane] = _turn(
                heading_x[lane], heading_y[lane], x[lane], y[lane],
                paths[lane, 0, step], paths[lane, 1, step], pull[lane],
            )  # fmt: skip
            x[lane] += step_px[lane] * heading_x[lane]
            y[lane] += step_px[lane] * heading_y[lane]
        for lane in range(x.shape[0]):
            paths[lane, 0, step] = x[lane]
            paths[lane, 1, step] = y[lane]
    headings[0], headings[1] = heading_x, heading_y


@njit(error_model="numpy")
def _advance_one(path, heading, chain, first, last):
    """Do what `_advance_all` does for one lane, with the state in registers."""
    heading_x, heading_y = heading[0], heading[1]
    x, y = path[0, first - 1], path[1, first - 1]
    for step in range(first, last):
        heading_x, heading_y = _turn(heading_x, heading_y, x, y, path[0, step], path[1, step], chain[3])
        x += chain[0] * heading_x
        y += chain[0] * heading_y
        path[0, step] = x
        path[1, step] = y
    heading[0], heading[1] = heading_x, heading_y


@njit(error_model="numpy")
def _turn(heading_x, heading_y, x, y, kick_x, kick_y, pull):
    """Return the unit heading after a kick at the position (x, y)."""
    turned_x = heading_x + (kick_x - pull * x)
    turned_y = heading_y + (kick_y - pull * y)
    square = turned_x * turned_x + turned_y * turned_y
    moves = square > 0.0  # else kick and pull stop the camera exactly, and it goes on as before
    scale = 1.0 / np.sqrt(square if moves else 1.0)
    return (turned_x * scale if moves else heading_x), (turned_y * scale if moves else heading_y)


@njit(error_model="numpy")
def _steps_to_shake(chain, shake, samples):
    """Return how many steps pass before shake number `shake`: the waiting time of one trial a step, geometric."""
    rate = chain[4]
    if rate < 1e-15:
        return samples
    if rate >= 1.0:
        return 0
    number = uniform(key_of(chain[6], chain[7]), np.uint64(samples + 2 * shake))
    return int(min(np.float64(samples), log(1.0 - number) / log(1.0 - rate)))


@njit(error_model="numpy")
def _shake(heading, chain, shake, samples):
    """Add twice the heading, turned by pi + u with u uniform in [-1/2, 1/2) rad, to the `heading` (2,)."""
    number = uniform(key_of(chain[6], chain[7]), np.uint64(samples + 2 * shake + 1))
    cosine, sine = cos_sin((number - 0.5) / (2.0 * np.pi))
    along, across = 1.0 - 2.0 * cosine, -2.0 * sine
    x, y = heading[0], heading[1]
    heading[0] = along * x - across * y
    heading[1] = along * y + across * x
