"""Statistics of normalisations, taken over parts of a feature map, and the normalisation with what they say."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.blocks import EPSILON, InstanceNorm, LayerNorm, varies

NORMS = (InstanceNorm, LayerNorm)


class Normalisation(NamedTuple):
    """(x - mean) / sqrt(variance + eps) times weight plus bias: one of each per channel, float32."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W), normalised."""
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, eps=EPSILON)


class Moments:
    """Mean, variance and range of the channels of a map that is seen in parts.

    The parts' sums of squares about their own means are joined in float64 (Chan, Golub, LeVeque 1979), so that it does
    not matter how large a mean is, nor how many parts there are.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = self._least = self._most = torch.zeros(())

    def add(self, part: Tensor) -> None:
        """Take a part (B, C, h, w) into account."""
        variance, mean = torch.var_mean(part.float(), (0, 2, 3), correction=0)
        variance, mean = variance.double(), mean.double()
        least, most = part.amin((0, 2, 3)), part.amax((0, 2, 3))
        count = part.numel() // part.shape[1]
        if not self._count:
            self._count, self._mean, self._squares, self._least, self._most = count, mean, variance * count, least, most
            return
        total = self._count + count
        shift = mean - self._mean
        self._mean = self._mean + shift * (count / total)
        self._squares = self._squares + variance * count + shift.square() * (self._count * count / total)
        self._least, self._most = torch.minimum(self._least, least), torch.maximum(self._most, most)
        self._count = total

    def mean(self) -> Tensor:
        """Return the mean of each channel, (C,) float32."""
        return self._mean.float()

    def normalisation(self, norm: nn.Module) -> Normalisation:
        """Return what `norm`, an `InstanceNorm` or a `LayerNorm`, does to a map with these moments."""
        variance = self._squares / self._count
        if isinstance(norm, LayerNorm):
            mean = self._mean.mean()
            variance = variance.mean() + (self._mean - mean).square().mean()
            channels = self._mean.shape
            return Normalisation(
                mean.float().expand(channels), variance.float().expand(channels), norm.weight, norm.bias
            )
        return Normalisation(self.mean(), variance.float(), varies(self._least, self._most), None)
