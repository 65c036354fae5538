"""Losses: functions of logits or of images in [-1, 1], each the mean over the batch.

An adversarial loss is a pair: `..._critic(real, fake)` and `..._generator(fake)`, functions of logits (B, 1, h, w);
a relativistic generator is given the real ones, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed
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


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Return mean fake - mean real (Arjovsky et al. 2017); it needs a `gradient_penalty` beside it."""
    return fake.float().mean() - real.float().mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """Return -mean fake (Arjovsky et al. 2017)."""
    return -fake.float().mean()


def relativistic_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Return half of mean (real - mean fake - 1)² + mean (fake - mean real + 1)² (Jolicoeur-Martineau 2018).

    The inner means, of what an image is compared with, are those over the images of all processes.
    """
    real, fake = real.float(), fake.float()
    above, below = real - joint_mean(fake) - 1, fake - joint_mean(real) + 1
    return (above.square().mean() + below.square().mean()) / 2


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Return what a critic's loss would be if the fakes were real and the real ones fakes."""
    return relativistic_critic(fake, real)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor, per_pixel: bool = False
) -> Tensor:
    """Return the mean of (|gradient| - 1)² of a critic, at images between real and fake ones, in float32.

    It is the penalty of Gulrajani et al. 2017: an image's value is the mean of its logits, as in the losses, and the
    norm of its gradient is taken over all of an image's numbers. `per_pixel` gives that of DeblurGAN's public code: the
    value is the sum of the logits, and there is a norm for each pixel, over its colours.

    Parameters
    ----------
    critic : callable
        Images to logits; not compiled, since it is differentiated twice.
    real, fake : Tensor
        (B, 3, H, W).
    share : Tensor
        How near to the real image, 0 to 1: (B, 1, 1, 1), or () for all alike.
    per_pixel : bool
        See above.
    """
    with torch.autocast(real.device.type, enabled=False):
        between = torch.lerp(fake.detach().float(), real.float(), share).requires_grad_()
        logits = critic(between)
        value = logits.sum() if per_pixel else logits.mean((1, 2, 3)).sum()
        (gradient,) = torch.autograd.grad(value, between, create_graph=True)
        norms = torch.linalg.vector_norm(gradient, dim=1 if per_pixel else (1, 2, 3))
    return (norms - 1).square().mean()


def over_scales(loss: Callable[..., Tensor], *logits: Sequence[Tensor]) -> Tensor:
    """Return the sum of an adversarial loss over the scales of a critic."""
    return torch.stack([loss(*scale) for scale in zip(*logits, strict=True)]).sum()


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return (image.float() - target.float()).abs().mean()


def mean_square(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return (image.float() - target.float()).square().mean()


def feature_distance(features: nn.Module, image: Tensor, target_features: Tensor) -> Tensor:
    """Return the mean squared difference between the features of images and those of their targets."""
    return (features(image).float() - target_features.float()).square().mean()


def perceptual_distance(features: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference between the features of images and those of other images."""
    with torch.no_grad():
        target_features = features(target)
    return feature_distance(features, image, target_features)


def layered_feature_distance(images: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Return the mean over layers of the mean squared difference between the features of images and of targets."""
    pairs = zip(images, targets, strict=True)
    return torch.stack([(image.float() - target.float()).square().mean() for image, target in pairs]).mean()


def smoothness(image: Tensor, guide: Tensor, edge: float = 1.0) -> Tensor:
    """Return how much neighbours differ in images, less where they do in their guides (Godard et al. 2017, eq. 3).

    It is mean |dx image| exp(-edge |dx guide|), and the same along y, of forward differences.
    """
    image, guide = image.float(), guide.float()
    terms = [image.diff(dim=axis).abs() * (-edge * guide.diff(dim=axis).abs()).exp() for axis in (2, 3)]
    return terms[0].mean() + terms[1].mean()


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


def joint_mean(values: Tensor) -> Tensor:
    """Return the mean over the values of all processes, which hold as many each; gradients flow back to all of them."""
    mean = values.mean()
    return _MeanOverProcesses.apply(mean) if torch.distributed.is_initialized() else mean


class _MeanOverProcesses(torch.autograd.Function):
    """Each process has the mean in its loss, and each gets what all of these losses ask of its part."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _averaged(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _averaged(gradient)


def _averaged(value: Tensor) -> Tensor:
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
