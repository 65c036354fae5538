"""Choices from one generator."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Draws choices from a generator, which every call advances by one number."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self.rng.random()

    def number(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + int(self.rng.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.rng.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of a sequence, each as likely."""
        return options[int(self.rng.random() * len(options))]

    def pick_weighted(self, weights: dict[T, float]) -> T:
        """Return one of the keys, with a chance in proportion to its weight."""
        left = self.rng.random() * sum(weights.values())
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return option
