"""The compiled random walk behind `Walk` and `SmoothWalk`: a heading that is kicked, pulled and shaken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blurgen.jit import njit
from blurgen.kernels.model import KernelModel, Trajectory
from blurgen.kernels.noise import cos_sin, fill_normals, key_word, log, uniform
from blurgen.raster import render_paths

_LANES = 16  # trajectories that advance side by side; more do not hide more of the latency


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
    key_1, key_2 : float
        Uniform numbers in [0, 1) that seed the normals and the shakes.
    """

    step_px: float
    kick: float
    first_kick: float
    pull: float
    shake_rate: float
    heading_turns: float
    key_1: float
    key_2: float


@dataclass(frozen=True, kw_only=True)
class ChainModel(KernelModel):
    """A model whose trajectories are chains.

    Parameters
    ----------
    samples : int
        Positions of a trajectory, at least 2.
    side_px : int
        Least side of the kernels in px, positive and odd.
    """

    samples: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples != int(self.samples) or self.samples < 2:
            raise ValueError(f"samples must be a whole number of at least 2, got {self.samples}")

    def draw_chain(self, rng: np.random.Generator) -> tuple[Chain, dict[str, float]]:
        """Return the law of one trajectory and what was drawn for it."""
        raise NotImplementedError

    def trajectory(self, rng: np.random.Generator) -> Trajectory:
        chain, params = self.draw_chain(rng)
        return Trajectory(chain_paths(np.array([chain]), self.samples)[0], None, params)

    def draw_each(self, rngs: Sequence[np.random.Generator]) -> list[np.ndarray]:
        chains = np.array([self.draw_chain(rng)[0] for rng in rngs])
        kernels = []
        for first in range(0, len(chains), _LANES):
            paths = chain_paths(chains[first : first + _LANES], self.samples)
            kernels.extend(render_paths(paths, self.side_px // 2))
        return kernels


@njit(error_model="numpy")
def chain_paths(chains, samples):
    """Return the paths (lanes, samples, 2) of `chains` (lanes, 8), rows as in `Chain`.

    The lanes do not influence each other: they advance side by side because each step waits for the one before.
    """
    lanes = chains.shape[0]
    paths = np.zeros((lanes, samples, 2))
    headings = np.empty((lanes, 2))
    shake_steps = np.empty(lanes, np.int64)
    shakes = np.zeros(lanes, np.int64)
    for lane in range(lanes):
        key_1, key_2 = key_word(chains[lane, 6]), key_word(chains[lane, 7])
        fill_normals(key_1, key_2, chains[lane, 1], paths[lane, 1:])
        fill_normals(key_1, key_2, chains[lane, 2], paths[lane, 1:2])
        headings[lane, 0], headings[lane, 1] = cos_sin(chains[lane, 5])
        shake_steps[lane] = _steps_to_shake(chains[lane], 0, samples)
    for step in range(samples - 1):
        for lane in range(lanes):
            if step == shake_steps[lane]:
                _shake(headings[lane], chains[lane], shakes[lane], samples)
                shakes[lane] += 1
                shake_steps[lane] += 1 + _steps_to_shake(chains[lane], shakes[lane], samples)
            _advance(paths[lane, step], paths[lane, step + 1], headings[lane], chains[lane, 0], chains[lane, 3])
    return paths


@njit(error_model="numpy")
def _advance(here, there, heading, step_px, pull):
    """Turn the unit `heading` and go one step from `here` to `there`, which holds the kick."""
    x, y = here[0], here[1]
    heading_x = heading[0] + (there[0] - pull * x)
    heading_y = heading[1] + (there[1] - pull * y)
    square = heading_x * heading_x + heading_y * heading_y
    if square > 0.0:  # else kick and pull stopped the camera exactly: it goes on
        scale = 1.0 / np.sqrt(square)
        heading[0] = heading_x * scale
        heading[1] = heading_y * scale
    there[0] = x + step_px * heading[0]
    there[1] = y + step_px * heading[1]


@njit(error_model="numpy")
def _steps_to_shake(chain, shake, samples):
    """Return how many steps pass before shake number `shake`: the waiting time of one trial a step, geometric."""
    rate = chain[4]
    if rate < 1e-15:
        return samples
    if rate >= 1.0:
        return 0
    number = uniform(key_word(chain[6]), key_word(chain[7]), np.uint64(2 * (samples + shake)))
    return int(min(np.float64(samples), log(1.0 - number) / log(1.0 - rate)))


@njit(error_model="numpy")
def _shake(heading, chain, shake, samples):
    """Add twice the heading, turned by pi + u with u uniform in [-1/2, 1/2) rad, to the heading."""
    number = uniform(key_word(chain[6]), key_word(chain[7]), np.uint64(2 * (samples + shake) + 1))
    cosine, sine = cos_sin((number - 0.5) / (2.0 * np.pi))
    along, across = 1.0 - 2.0 * cosine, -2.0 * sine
    x, y = heading[0], heading[1]
    heading[0] = along * x - across * y
    heading[1] = along * y + across * x
