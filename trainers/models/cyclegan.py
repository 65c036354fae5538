"""CycleGAN, the baseline of unpaired deblurring.

J.-Y. Zhu, T. Park, P. Isola, A. A. Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks, ICCV 2017.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blurgen.options import option
from trainers.blocks import initialise
from trainers.losses import color_correlation, l1, least_squares_critic, least_squares_generator
from trainers.method import Batch, Method, MethodConfig, Restorer, frozen, require_weights
from trainers.nets.patch_critic import PatchCritic
from trainers.nets.resnet_generator import ResnetGenerator
from trainers.pool import ImagePool

LEAST_CROP_PX = 32


@dataclass(frozen=True)
class CycleGANConfig(MethodConfig):
    """Options of `CycleGAN`."""

    batch: int = option(1, "Images of each domain in a step, over all processes together; paper 1.")
    crop: int = option(256, "Side of the training crops, px, at native resolution; paper 256 of images scaled to 286.")
    blocks: int = option(9, "Residual blocks of a generator; paper 9, and 6 for images of at most 128 px.")
    adversarial: float = option(1.0, "Weight: translated images fool the critics; paper 1.")
    cycle: float = option(10.0, "Weight: translated there and back is the image itself; paper 10.")
    identity: float = option(5.0, "Weight: an image of the target domain stays itself; code 5, paper 5 for paintings.")
    pool: int = option(50, "Past fakes that are shown to the critics again; paper 50.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        require_weights(self, ("adversarial", "cycle", "identity", "pool"))
        if not self.weights:
            raise ValueError("at least one loss needs a weight above 0")
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}")
        if self.crop < LEAST_CROP_PX or self.crop % 4:
            raise ValueError(f"crop must be a multiple of 4 and at least {LEAST_CROP_PX} px, got {self.crop}")

    @property
    def weights(self) -> dict[str, float]:
        """Loss -> weight, of those that have one."""
        return {name: getattr(self, name) for name in ("adversarial", "cycle", "identity") if getattr(self, name)}


class CycleGANRestorer(Restorer):
    """The generator from blurred to sharp images."""

    def __init__(self, config: CycleGANConfig):
        super().__init__()
        self.generator = ResnetGenerator(config.width, config.blocks)

    def restore(self, blurred: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the sharp image (B, 3, H, W)."""
        return self.generator(blurred)


class CycleGAN(Method):
    """Two generators, from blurred to sharp and back, and a critic of each domain."""

    name = "cyclegan"
    paper = "Zhu et al., ICCV 2017"
    Config = CycleGANConfig
    Restorer = CycleGANRestorer
    presets = {"default": {}, "official": {}, "paper": {"identity": 0.0}}  # noqa: RUF012

    def build(self) -> dict[str, nn.Module]:
        """Return the generators, named after what they make, and the critics."""
        self.pools = {"sharp": ImagePool(self.config.pool), "blurred": ImagePool(self.config.pool)}
        networks = {
            "generator_sharp": self.restorer.generator,
            "generator_blurred": self.Restorer(self.config).generator,
            "critic_sharp": self.critic(),
            "critic_blurred": self.critic(),
        }
        return {name: initialise(network, zero_bias=True) for name, network in networks.items()}

    def critic(self) -> nn.Module:
        """Return the critic of a domain."""
        return PatchCritic(self.config.width)

    def sides(self) -> dict[str, tuple[str, ...]]:
        """Return what the generators' and what the critics' optimiser trains."""
        return {
            "generators": ("generator_sharp", "generator_blurred"),
            "critics": ("critic_sharp", "critic_blurred"),
        }

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the generators, then the critics on fakes from the pools."""
        fakes = self.translate(batch)
        return self.update_generators(batch, fakes) | self.update_critics(batch, fakes)

    def translate(self, batch: Batch) -> dict[str, Tensor]:
        """Return the images of each domain that are made from those of the other."""
        return {
            "sharp": self.made("sharp", batch.blurred, batch, "translated"),
            "blurred": self.made("blurred", batch.sharp, batch, "translated"),
        }

    def made(self, domain: str, image: Tensor, batch: Batch, purpose: str) -> Tensor:
        """Return images of `domain` made from images of either, whose purpose is "translated", "returned" or "kept"."""
        return self.networks[f"generator_{domain}"](image)

    def update_generators(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Update the generators; return their detached losses and what tells inverted colours."""
        losses = self.generator_losses(batch, fakes)
        self.update("generators", sum(weight * losses[name] for name, weight in self.config.weights.items()))
        with torch.no_grad():
            correlation = color_correlation(fakes["sharp"], batch.blurred)
        return {name: loss.detach() for name, loss in losses.items()} | {"color_correlation": correlation}

    def generator_losses(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the unweighted losses of the generators that have a weight, by name."""
        weights, losses = self.config.weights, {}
        if "adversarial" in weights:
            with frozen(self.networks["critic_sharp"], self.networks["critic_blurred"]):
                losses["adversarial"] = self.adversarial("sharp", batch.sharp, fakes["sharp"]) + self.adversarial(
                    "blurred", batch.blurred, fakes["blurred"]
                )
        losses |= self.cycle_losses(batch, fakes)
        if "identity" in weights:
            losses["identity"] = l1(self.made("sharp", batch.sharp, batch, "kept"), batch.sharp) + l1(
                self.made("blurred", batch.blurred, batch, "kept"), batch.blurred
            )
        return losses

    def adversarial(self, domain: str, real: Tensor, fake: Tensor) -> Tensor:
        """Return how far fakes are from being taken for images of `domain`."""
        return least_squares_generator(self.networks[f"critic_{domain}"](fake))

    def cycle_losses(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return how far images are from themselves once translated there and back."""
        if "cycle" not in self.config.weights:
            return {}
        sharp, blurred = self.returned(batch, fakes)
        return {"cycle": l1(sharp, batch.sharp) + l1(blurred, batch.blurred)}

    def returned(self, batch: Batch, fakes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the sharp and the blurred images, translated there and back."""
        return (
            self.made("sharp", fakes["blurred"], batch, "returned"),
            self.made("blurred", fakes["sharp"], batch, "returned"),
        )

    def update_critics(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Update the critics; return their detached losses."""
        losses = self.critic_losses(batch, fakes)
        self.update("critics", sum(losses.values()))
        return {name: loss.detach() for name, loss in losses.items()}

    def critic_losses(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of each critic, on fakes that the pools hand out."""
        losses = {}
        for domain, real, fake in self.judged(batch, fakes):
            critic = self.networks[f"critic_{domain}"]
            losses[f"critic_{domain}"] = least_squares_critic(critic(real), critic(fake))
        return losses

    def judged(self, batch: Batch, fakes: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield each domain with its real images and the fakes that its pool hands out."""
        for domain, real in (("sharp", batch.sharp), ("blurred", batch.blurred)):
            yield domain, real, self.pools[domain].exchange(fakes[domain], batch.noise, f"pool of {domain}")

    def extra_state(self) -> dict[str, Any]:
        """Return the pools."""
        return {domain: pool.state() for domain, pool in self.pools.items()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take the pools back."""
        for domain, pool in self.pools.items():
            pool.load_state(state[domain], self.context.device)
