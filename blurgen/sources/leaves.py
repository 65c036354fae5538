"""The source `leaves`: scenes of occluding things with the statistics of photographs, drawn, not read."""

from dataclasses import dataclass

import numpy as np

from blurgen.sources.drawn import DrawnSource
from blurgen.sources.scenes.scene import draw_scene


@dataclass(frozen=True)
class LeavesSource(DrawnSource):
    """Dead-leaves scenes: textured things in front of one another, under a sky or not; any number of them.

    Scene i depends on the seed and i alone: the same bytes in any process and any order.

    Parameters
    ----------
    seed : int
        Another seed gives other scenes.
    width, height : int
        Size of a scene in pixels, 64 to 8192.

    Raises
    ------
    ValueError
        If a size is out of range.
    """

    name = "leaves"
    thing = "scene"
    least_side_px = 64

    width: int = 512
    height: int = 512

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return a scene, (height, width, 3) uint8 RGB."""
        return draw_scene(rng, self.width, self.height)
