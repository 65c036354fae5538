"""The random camera trajectory of Boracchi and Foi."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from blurgen.kernels.chain import Chain, ChainModel
from blurgen.kernels.model import MAX_LENGTH_PX, choose


@dataclass(frozen=True)
class Walk(ChainModel):
    """The random trajectory of Boracchi and Foi: constant speed, a wandering heading, now and then a shake.

    Positions start at x = 0 with a random heading; with s = length_px / (samples - 1) and a = anxiety, each step adds
    a (gaussian n - centripetal x) s to the velocity, n ~ N(0, 1) in both coordinates, and with probability
    shake_rate a also twice the velocity, turned by pi + u, u ~ U(-1/2, 1/2); then the speed is set back to s.

    Parameters
    ----------
    length_px : float
        Arc length of every trajectory in px, at least 0.
    anxiety : float or sequence of float, optional
        a in [0, 1], 0 for a straight line; from a sequence one is drawn with equal chance; by default 0.1 U(0, 1).
    gaussian : float, optional
        Strength of the random turns, at least 0; by default 10 U(0, 1).
    centripetal : float, optional
        Strength of the pull towards the start, per px, at least 0; by default 0.7 U(0, 1).
    shake_rate : float, optional
        Frequency of the shakes in [0, 1]; by default 0.2 U(0, 1). The expected number of shakes is
        (samples - 1) a shake_rate.
    zoom : float or sequence of float
        Multiplies the length and divides the anxiety, positive; from a sequence one is drawn with equal chance.
    samples : int
        Positions of a trajectory, at least 2. It is no accuracy: half the samples double the persistence length
        2 s / (a gaussian)**2. `SmoothWalk` has the same motions without this.
    side_px : int
        Least side of the kernels in px.

    References
    ----------
    Boracchi, Foi: Modeling the performance of image restoration from motion blur, IEEE TIP 21(8), 2012, section III.
    doi:10.1109/TIP.2012.2192126

    Examples
    --------
    >>> Walk(length_px=30, anxiety=0.005).draw(np.random.default_rng(0)).shape
    (65, 65)
    """

    PARAMS: ClassVar[tuple[str, ...]] = (
        "length_px", "anxiety", "gaussian", "centripetal", "shake_rate", "heading_deg",
    )  # fmt: skip

    length_px: float = 60.0
    anxiety: float | tuple[float, ...] | None = None
    gaussian: float | None = None
    centripetal: float | None = None
    shake_rate: float | None = None
    zoom: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("length_px", 0.0, MAX_LENGTH_PX)
        self._check("zoom", 1e-3, 1e3, several=True)
        self._check("anxiety", 0.0, 1.0, several=True)
        self._check("gaussian", 0.0, 1e6)
        self._check("centripetal", 0.0, 1e6)
        self._check("shake_rate", 0.0, 1.0)
        longest_px = self.reach_px()
        if longest_px > MAX_LENGTH_PX:
            raise ValueError(f"length_px times zoom must be at most {MAX_LENGTH_PX}, got {longest_px:g}; lower either")
        anxiety, zoom = np.max(0.1 if self.anxiety is None else self.anxiety), np.min(self.zoom)
        if anxiety > zoom:
            raise ValueError(f"anxiety / zoom must be at most 1, got {anxiety:g} / {zoom:g}; give a smaller anxiety")

    def draw_chain(self, rng: np.random.Generator) -> tuple[Chain, tuple[float, ...]]:
        of_anxiety, of_centripetal, of_gaussian, of_rate, turns, of_zoom, word_1, word_2 = rng.random(8).tolist()
        zoom = choose(self.zoom, of_zoom)
        length_px = zoom * self.length_px
        anxiety = (0.1 * of_anxiety if self.anxiety is None else choose(self.anxiety, of_anxiety)) / zoom
        centripetal = 0.7 * of_centripetal if self.centripetal is None else self.centripetal
        gaussian = 10.0 * of_gaussian if self.gaussian is None else self.gaussian
        rate = 0.2 * of_rate if self.shake_rate is None else self.shake_rate
        step_px = length_px / (self.samples - 1)
        # the original starts with the speed a, not s: beside it the first kick a g n s is s g n
        first_kick = gaussian * step_px if anxiety > 0 else 0.0
        chain = Chain(
            step_px, anxiety * gaussian, first_kick, anxiety * centripetal, anxiety * rate, turns, word_1, word_2
        )
        return chain, (length_px, anxiety, gaussian, centripetal, rate, 360.0 * turns)

    def reach_px(self) -> float:
        return self.length_px * float(np.max(self.zoom))
