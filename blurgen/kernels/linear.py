"""Straight motion at constant speed."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from blurgen.kernels.model import MAX_LENGTH_PX, KernelModel, Trajectory


@dataclass(frozen=True, kw_only=True)
class Linear(KernelModel):
    """Straight motion at constant speed.

    Parameters
    ----------
    length_px : float
        Length of the motion in px, at least 0.
    angle_deg : float, optional
        Direction in degrees, from +x (right) towards +y (down). By default uniform in [0, 180), since a kernel does
        not tell a motion from its reverse.
    side_px : int
        Least side of the kernels in px.

    Examples
    --------
    >>> Linear(length_px=2, angle_deg=0, side_px=3).draw(np.random.default_rng(0))[1].tolist()
    [0.25, 0.5, 0.25]
    """

    PARAMS: ClassVar[tuple[str, ...]] = ("angle_deg",)

    length_px: float = 20.0
    angle_deg: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("length_px", 0.0, MAX_LENGTH_PX)
        self._check("angle_deg", -360.0, 360.0)

    def trajectory(self, rng: np.random.Generator) -> Trajectory:
        drawn = 180.0 * rng.random()
        angle_deg = drawn if self.angle_deg is None else self.angle_deg
        angle = math.radians(angle_deg)
        end = (self.length_px * math.cos(angle), self.length_px * math.sin(angle))
        return Trajectory(np.array([(0.0, 0.0), end]), None, {"angle_deg": angle_deg})

    def reach_px(self) -> float:
        return self.length_px
