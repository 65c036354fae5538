"""Losses: functions of logits or of images in [-1, 1], each the mean over the batch.

An adversarial loss is a pair: `..._critic(real, fake)` and `..._generator(fake)`, functions of logits (B, 1, h, w).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLAT = 1e-6


def bce_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Return BCE(real, 1) + BCE(fake, 0) of logits, each a mean (Goodfellow et al. 2014)."""
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def bce_generator(fake: Tensor) -> Tensor:
    """Return BCE(fake, 1) of logits: the non-saturating loss (Goodfellow et al. 2014)."""
    return F.softplus(-fake.float()).mean()


def least_squares_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Return half of mean (real - 1)² + mean fake² (Mao et al. 2017)."""
    return ((real.float() - 1).square().mean() + fake.float().square().mean()) / 2


def least_squares_generator(fake: Tensor) -> Tensor:
    """Return mean (fake - 1)² (Mao et al. 2017)."""
    return (fake.float() - 1).square().mean()


def over_scales(loss: Callable[..., Tensor], *logits: Sequence[Tensor]) -> Tensor:
    """Return the sum of an adversarial loss over the scales of a critic."""
    return torch.stack([loss(*scale) for scale in zip(*logits, strict=True)]).sum()


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return (image.float() - target.float()).abs().mean()


def feature_distance(features: nn.Module, image: Tensor, target_features: Tensor) -> Tensor:
    """Return the mean squared difference between the features of images and those of their targets."""
    return (features(image).float() - target_features.float()).square().mean()


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) of codes (B, n), summed over their entries, averaged over the batch."""
    mean, log_variance = mean.float(), log_variance.float()
    return (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2


def color_distance(image: Tensor, target: Tensor, pool_px: int = 32) -> Tensor:
    """Return the mean absolute difference of the means over squares of `pool_px` pixels: of colour, not of detail."""
    return l1(pooled(image, pool_px), pooled(target, pool_px))


def color_correlation(image: Tensor, target: Tensor, pool_px: int = 8) -> Tensor:
    """Return Pearson's correlation between the means over small squares of two batches; 0 where one is flat.

    An output with inverted colours has a negative one.
    """
    x, y = pooled(image, pool_px).flatten(), pooled(target, pool_px).flatten()
    x, y = x - x.mean(), y - y.mean()
    product = x.norm() * y.norm()
    # What a flat image has left is rounding, whose sign must not raise an alarm.
    return torch.where(product > len(x) * FLAT, (x * y).sum() / product, 0.0)


def pooled(image: Tensor, pool_px: int) -> Tensor:
    """Return float32 means over squares of `pool_px` pixels, or over the whole of a smaller image."""
    return F.avg_pool2d(image.float(), min(pool_px, *image.shape[2:]))
