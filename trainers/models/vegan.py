"""VEGAN: DeblurGAN for street scenes, with a scaled perceptual loss, a smoothness loss and random-scale crops.

What is built on is O. Kupyn et al., CVPR 2018 (see `trainers.models.deblurgan`). "Paper" and "code" below are VEGAN's
own, of which no reference can be given here. In that code the crops of random scale are not normalised at one time and
the smoothness loss has no gradient, so its published rows for these two do not show what the losses are worth; here
both are as they were meant.

References
----------
The form of the smoothness loss: C. Godard, O. Mac Aodha, G. J. Brostow, CVPR 2017, eq. 3. Scaled perceptual loss: the
layers of K. Simonyan, A. Zisserman, ICLR 2015.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from blurgen.options import option
from trainers.losses import layered_feature_distance, smoothness
from trainers.method import Batch, require_weights
from trainers.models.deblurgan import DeblurGAN, DeblurGANConfig

SCALED_LAYERS = (2, 7, 16, 25)
"""conv1_2, conv2_2, conv3_4 and conv4_4 of VGG-19, before their ReLUs."""


@dataclass(frozen=True)
class VEGANConfig(DeblurGANConfig):
    """Options of `VEGAN`: those of DeblurGAN, and the variants `spl`, `smooth` and `rsc`."""

    schedule: str = option(
        "constant",
        "How the learning rate falls after the constant epochs; paper constant.",
        choices=("linear", "exponential", "constant"),
    )
    constant_epochs: int = option(15, "Epochs at the full learning rate; paper 15 of 14,400 steps.")
    decay_epochs: int = option(0, "Epochs in which the learning rate falls; paper 0.")
    spl: bool = option(False, "Content in four layers of VGG-19; their mean, as in the code, paper twice that.")
    smooth: bool = option(False, "Deblurred images are smooth where the sharp ones are.")
    smoothness: float = option(15.0, "Weight of that; code 15, and 1 without the other variants.")
    smooth_alpha: float = option(1.0, "How much less it asks for at edges; paper 1, and 10 leaves edges in peace.")
    rsc: bool = option(False, "Crops of random scale, cut out of larger images and resized.")
    rsc_mode: str = option(
        "crop",
        "Cut out a square of random size and resize it, or resize the image at random and cut out a square.",
        choices=("crop", "jitter"),
    )
    rsc_sigma: float = option(100.0, "Deviation of the random size, px; code 100, paper 50 and 100.")
    rsc_source: int = option(360, "Side of the images out of which crops of random scale are cut, px; paper 360.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        require_weights(self, ("smoothness", "smooth_alpha", "rsc_sigma"))
        if self.rsc and self.rsc_source <= self.crop:
            raise ValueError(
                f"rsc_source must be larger than crop, {self.crop} px, so that there are scales to draw, "
                f"got {self.rsc_source}"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Loss of the generator -> weight, of those that have one."""
        return super().weights | ({"smoothness": self.smoothness} if self.smooth and self.smoothness else {})

    @property
    def fed_crop(self) -> int:
        """Side of the crops that a step is given, px."""
        return self.rsc_source if self.rsc else self.crop


class VEGAN(DeblurGAN):
    """DeblurGAN with any of three variants: of the content loss, of one loss more, of how crops are taken."""

    name = "vegan"
    paper = "VEGAN, on Kupyn 2018"
    Config = VEGANConfig
    presets = {  # noqa: RUF012
        "default": {},
        "official": {"gp": "pixel"},
        "paper": {},
        "spl": {"spl": True},
        "smooth": {"smooth": True},
        "rsc": {"rsc": True},
        "all": {"spl": True, "smooth": True, "rsc": True},
    }

    @classmethod
    def last_feature(cls, config: VEGANConfig) -> int:
        """Return the index of the last layer of VGG-19 that the content loss compares."""
        return SCALED_LAYERS[-1] if config.spl else super().last_feature(config)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the critic and the generator of DeblurGAN, on crops of random scale if that is asked for."""
        return super().step(self.at_random_scales(batch) if self.config.rsc else batch)

    def generator_losses(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        """Return the unweighted losses of the generator that have a weight, by name."""
        losses = super().generator_losses(batch, fake)
        if "smoothness" in self.config.weights:
            losses["smoothness"] = smoothness(fake, batch.sharp, self.config.smooth_alpha)
        return losses

    def content(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the distance between images in the features of VGG-19, of one layer or of four."""
        if not self.config.spl:
            return super().content(image, target)
        with torch.no_grad():
            target_features = self.context.features.at(target, SCALED_LAYERS)
        return layered_feature_distance(self.context.features.at(image, SCALED_LAYERS), target_features)

    @torch.no_grad()
    def at_random_scales(self, batch: Batch) -> Batch:
        """Return crops of the images of a batch at a random scale of each pair."""
        # The host cuts out what is drawn, so that the draws need not wait for the device.
        noise, rescaled = replace(batch.noise, device=torch.device("cpu")), RESCALED[self.config.rsc_mode]
        pairs = torch.cat((batch.sharp, batch.blurred), 1)
        draws = zip(pairs, noise.normal("scale").tolist(), noise.uniform("corner", 2).tolist(), strict=True)
        crops = [rescaled(pair[None], self.config, scale, corner) for pair, scale, corner in draws]
        # Bicubic interpolation overshoots at edges.
        sharp, blurred = torch.cat(crops).clamp(-1, 1).split(3, 1)
        return Batch(sharp.contiguous(), blurred.contiguous(), batch.noise)


def resized_crop(images: Tensor, config: VEGANConfig, scale: float, corner: tuple[float, float]) -> Tensor:
    """Return (B, C, crop, crop): a square of N(crop, rsc_sigma²) px of the images (B, C, S, S), resized.

    Its side is at least half of the crop's, and less than S.

    Parameters
    ----------
    images : Tensor
    config : VEGANConfig
    scale : float
        Drawn from N(0, 1).
    corner : (float, float)
        Drawn from [0, 1) each.
    """
    drawn = round(config.crop + scale * config.rsc_sigma)
    side = min(max(drawn, config.crop // 2), images.shape[2] - 1)
    return _resized(_cut(images, side, corner), config.crop)


def crop_of_resized(images: Tensor, config: VEGANConfig, scale: float, corner: tuple[float, float]) -> Tensor:
    """Return (B, C, crop, crop) cut out of the images (B, C, S, S), resized to N(S, rsc_sigma²) px, at least crop."""
    side = max(round(images.shape[2] + scale * config.rsc_sigma), config.crop)
    return _cut(_resized(images, side), config.crop, corner)


RESCALED: dict[str, Callable[..., Tensor]] = {"crop": resized_crop, "jitter": crop_of_resized}


def _cut(images: Tensor, side: int, corner: tuple[float, float]) -> Tensor:
    y, x = (math.floor(place * (images.shape[2] - side + 1)) for place in corner)
    return images[:, :, y : y + side, x : x + side]


def _resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True)
