"""The random walk in units of the image: finer sampling makes it more accurate, not different."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from blurgen.kernels.chain import Chain, ChainModel
from blurgen.kernels.model import MAX_LENGTH_PX, choose


@dataclass(frozen=True, kw_only=True)
class SmoothWalk(ChainModel):
    """A worm-like chain with a pull towards its start and abrupt shakes: the motions of `Walk`, whatever `samples` is.

    A sequence of numbers in place of a number means that one is drawn with equal chance.

    Parameters
    ----------
    length_px : float or sequence of float
        Arc length in px, at least 0; the speed is constant.
    persistence_px : float or sequence of float
        Arc length over which the heading is forgotten, in px: headings d px apart have the mean cosine
        exp(-d / persistence_px). Infinity gives straight lines.
    shakes : float or sequence of float
        Expected number of abrupt shakes, at least 0.
    pull : float or sequence of float
        Turning rate towards the start, in rad/px for every px of distance, at least 0: a circle of the radius
        1 / sqrt(pull) px around the start closes on itself.
    samples : int
        Positions of a trajectory, at least 2. Nothing but accuracy depends on it.
    side_px : int
        Least side of the kernels in px.

    References
    ----------
    Kratky, Porod: Röntgenuntersuchung gelöster Fadenmoleküle, Recueil 68(12), 1949, for the chain. Boracchi, Foi:
    IEEE TIP 21(8), 2012, for pull and shakes.

    Examples
    --------
    >>> SmoothWalk(length_px=30, side_px=33).draw(np.random.default_rng(0)).shape
    (33, 33)
    """

    PARAMS: ClassVar[tuple[str, ...]] = ("length_px", "persistence_px", "shakes", "pull", "heading_deg")

    length_px: float | tuple[float, ...] = 60.0
    persistence_px: float | tuple[float, ...] = 60.0
    shakes: float | tuple[float, ...] = 1.0
    pull: float | tuple[float, ...] = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("length_px", 0.0, MAX_LENGTH_PX, several=True)
        self._check("persistence_px", 1e-3, math.inf, several=True)
        self._check("shakes", 0.0, self.samples - 1, several=True)
        self._check("pull", 0.0, 1e6, several=True)
        # steps this short keep the persistence within 0.3 % of what is asked, and turn by less than 0.3 rad
        shortest = min(np.min(self.persistence_px) / 50, 0.3 / math.sqrt(max(np.max(self.pull), 1e-300)))
        needed = math.ceil(np.max(self.length_px) / shortest) + 1
        if self.samples < needed:
            raise ValueError(
                f"samples must be at least {needed} for this length, persistence and pull, got {self.samples}"
            )

    def draw_chain(self, rng: np.random.Generator) -> tuple[Chain, tuple[float, ...]]:
        of_length, of_persistence, of_shakes, of_pull, turns, word_1, word_2 = rng.random(7).tolist()
        length_px = choose(self.length_px, of_length)
        persistence_px = choose(self.persistence_px, of_persistence)
        shakes, pull = choose(self.shakes, of_shakes), choose(self.pull, of_pull)
        step_px = length_px / (self.samples - 1)
        angle_square = step_px / persistence_px
        # a kick also lengthens the heading: with this variance the mean cosine of a turn is exp(-step / persistence)
        # up to the third order
        kick = math.sqrt(2.0 * angle_square / (1.0 + 2.0 * angle_square))
        chain = Chain(step_px, kick, kick, pull * step_px, shakes / (self.samples - 1), turns, word_1, word_2)
        return chain, (length_px, persistence_px, shakes, pull, 360.0 * turns)

    def reach_px(self) -> float:
        return float(np.max(self.length_px))
