"""AS-CycleGAN: CycleGAN for deblurring, with generators that add to the image, and features that it steers itself.

What is built on is J.-Y. Zhu et al., ICCV 2017 (see `trainers.models.cyclegan`). "Paper" below is AS-CycleGAN's own, of
which no reference can be given here; where it contradicts itself, the options say so.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from blurgen.options import option
from trainers.losses import (
    gradient_penalty,
    l1,
    perceptual_distance,
    relativistic_critic,
    relativistic_generator,
    wasserstein_critic,
    wasserstein_generator,
)
from trainers.method import Batch, PerceptualConfig, Restorer, require_weights
from trainers.models.cyclegan import CycleGAN, CycleGANConfig
from trainers.nets.patch_critic import PatchCritic
from trainers.nets.preactivation import begin_as_identity, condition_of
from trainers.nets.resnet_generator import ResnetGenerator
from trainers.noise import Noise

WASSERSTEIN_CRITIC_UPDATES = 5
MOST_CLASSES = 256


@dataclass(frozen=True)
class ASCycleGANConfig(CycleGANConfig, PerceptualConfig):
    """Options of `ASCycleGAN`: those of CycleGAN, and what it changes."""

    block: str = option(
        "v2", "Residual blocks: v1 has norm and activation behind its convolutions, v2 before.", choices=("v1", "v2")
    )
    sft: bool = option(True, "Transform the features of v2 by a prior of what the image shows.")
    prior: str = option(
        "self",
        "The prior: colours and slopes of the image itself, its label map, or probabilities of classes; paper a map of "
        "classes. Maps are those of the shards, and of `deblur --labels` or --priors.",
        choices=("self", "label", "prior"),
    )
    classes: int = option(
        0, "Classes of the label maps; ids from there on, as 255 often is, count as none. Of priors, the shards say."
    )
    dropout: float = option(0.5, "Share of the values inside a block that training drops; paper silent.")
    gan: str = option(
        "ragan-ls",
        "Adversarial loss: relativistic least squares, Wasserstein with gradient penalty, or the first with the "
        "penalty of the second; the paper speaks of all.",
        choices=("ragan-ls", "wgan-gp", "ragan-ls+gp"),
    )
    gradient_penalty: float = option(10.0, "Weight of the penalty of +gp and wgan-gp, in the critics' loss; paper 10.")
    generator_every: int | None = option(
        None, "Steps, each with an update of the critics, per update of the generators. [default: 1, wgan-gp 5]"
    )
    cycle: float = option(10.0, "Weight: VGG features of translated there and back are the image's; paper 10.")
    cycle_pixel: float = option(0.0, "Weight: translated there and back is the image itself, as in CycleGAN; paper 0.")
    identity: float = option(5.0, "Weight: an image of the target domain stays itself; paper 0.5, or 0.5 of cycle.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        require_weights(self, ("cycle_pixel", "gradient_penalty"))
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout:g}")
        if self.generator_every is not None and self.generator_every < 1:
            raise ValueError(f"generator_every must be at least 1, got {self.generator_every}")
        if self.sft and self.block != "v2":
            raise ValueError(f"sft transforms the features of block v2, got block {self.block}: give --no-sft with it")
        if self.prior != "self" and not self.sft:
            raise ValueError(f"prior is what sft works by, got prior {self.prior} and no sft: leave one of both out")
        if self.prior == "label" and not 1 <= self.classes <= MOST_CLASSES:
            raise ValueError(
                f"--prior label needs the number of classes, 1 to {MOST_CLASSES}, got {self.classes}: "
                "give --classes, such as 66 for Mapillary Vistas"
            )
        if self.prior == "self" and self.classes:
            raise ValueError(f"classes are those of maps, got {self.classes} for prior self: give --prior label")

    @property
    def weights(self) -> dict[str, float]:
        """Loss of the generators -> weight, of those that have one."""
        return super().weights | ({"cycle_pixel": self.cycle_pixel} if self.cycle_pixel else {})

    @property
    def penalised(self) -> bool:
        """Whether the critics' gradient has a penalty."""
        return self.gan != "ragan-ls" and self.gradient_penalty > 0

    @property
    def steps_per_generator(self) -> int:
        """Steps per update of the generators."""
        if self.generator_every is not None:
            return self.generator_every
        return WASSERSTEIN_CRITIC_UPDATES if self.gan == "wgan-gp" else 1

    @property
    def guide(self) -> str | None:
        """The maps that go in with the images, if any do."""
        return None if self.prior == "self" else self.prior


class ASCycleGANRestorer(Restorer):
    """The generator from blurred to sharp images, which adds what is missing to them."""

    def __init__(self, config: ASCycleGANConfig):
        super().__init__()
        self.dropout, self.guide = config.dropout, config.guide
        self.guide_channels = {None: 0, "label": 1, "prior": config.classes}[config.guide]
        self.generator = ResnetGenerator(
            config.width,
            config.blocks,
            config.dropout,
            residual=True,
            preactivation=config.block == "v2",
            condition=condition_of(config.guide, config.classes) if config.sft else None,
            guided=config.guide is not None,
        )

    def restore(self, blurred: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the sharp image (B, 3, H, W)."""
        return self.generator(blurred)

    def restore_dropping(self, blurred: Tensor, noise: Noise) -> Tensor:
        """Return the sharp image with a dropout as in training."""
        return self.generator.dropping(blurred, noise, "dropout")


class ASCycleGAN(CycleGAN):
    """CycleGAN with a relativistic critic, and cycles that are compared in the features of VGG-19."""

    name = "as-cyclegan"
    paper = "AS-CycleGAN, on Zhu 2017"
    Config = ASCycleGANConfig
    Restorer = ASCycleGANRestorer
    presets = {  # noqa: RUF012
        "default": {},
        "official": {},
        "paper": {"identity": 0.5},
        "v1": {"block": "v1", "sft": False},
        "v2": {"sft": False},
    }

    @classmethod
    def arrays(cls, config: ASCycleGANConfig) -> tuple[str, ...]:
        """Return the names of the images of both sides, and of the maps that guide."""
        return ("sharp", "blurred", *([config.guide] if config.guide else []))

    @classmethod
    def with_classes(cls, config: ASCycleGANConfig, classes: int) -> ASCycleGANConfig:
        """Return `config` with the classes of the probability maps of the shards."""
        if config.guide != "prior":
            return config
        if config.classes not in (0, classes):
            raise ValueError(
                f"the probability maps of the shards have {classes} classes, got classes {config.classes}: leave it out"
            )
        return replace(config, classes=classes)

    @classmethod
    def needs_features(cls, config: ASCycleGANConfig) -> bool:
        """Return whether the perceptual loss of cycles has a weight."""
        return bool(config.cycle)

    def build(self) -> dict[str, nn.Module]:
        """Return the generators, which begin as those without transforms, and the critics."""
        return {name: begin_as_identity(network) for name, network in super().build().items()}

    def critic(self) -> nn.Module:
        """Return the critic of a domain."""
        return PatchCritic(self.config.width, offset=False)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the generators when they are due, then the critics on fakes from the pools."""
        due = (batch.step + 1) % self.config.steps_per_generator == 0
        with torch.set_grad_enabled(due):
            fakes = self.translate(batch)
        scalars = self.update_generators(batch, fakes) if due else {}
        return scalars | self.update_critics(batch, fakes)

    def made(self, domain: str, image: Tensor, batch: Batch, purpose: str) -> Tensor:
        """Return images of `domain` made from images of either, guided by the map of what they show.

        Each pass has a dropout of its own.
        """
        if self.config.guide is not None:
            # What is translated shows an image of the other domain; what returns, or stays, one of its own.
            sharp = (domain == "sharp") != (purpose == "translated")
            image = torch.cat((image, batch.sharp_guide if sharp else batch.blurred_guide), 1)
        return self.networks[f"generator_{domain}"].dropping(image, batch.noise, f"dropout of {domain} {purpose}")

    def adversarial(self, domain: str, real: Tensor, fake: Tensor) -> Tensor:
        """Return how far fakes are from being taken for images of `domain`, or for more real than them."""
        critic = self.networks[f"critic_{domain}"]
        if self.config.gan == "wgan-gp":
            return wasserstein_generator(critic(fake))
        return relativistic_generator(critic(real), critic(fake))

    def cycle_losses(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return how far images are from themselves once translated there and back, in features and in pixels."""
        weights, losses = self.config.weights, {}
        if not weights.keys() & {"cycle", "cycle_pixel"}:
            return losses
        sharp, blurred = self.returned(batch, fakes)
        if "cycle" in weights:
            features = self.context.features
            losses["cycle"] = perceptual_distance(features, sharp, batch.sharp) + perceptual_distance(
                features, blurred, batch.blurred
            )
        if "cycle_pixel" in weights:
            losses["cycle_pixel"] = l1(sharp, batch.sharp) + l1(blurred, batch.blurred)
        return losses

    def update_critics(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Update the critics; return their detached losses."""
        losses = self.critic_losses(batch, fakes)
        weights = {"gradient_penalty": self.config.gradient_penalty}
        self.update("critics", sum(weights.get(name, 1.0) * loss for name, loss in losses.items()))
        return {name: loss.detach() for name, loss in losses.items()}

    def critic_losses(self, batch: Batch, fakes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of each critic, on fakes that the pools hand out, and the penalty of both."""
        judge = wasserstein_critic if self.config.gan == "wgan-gp" else relativistic_critic
        losses, penalties = {}, []
        for domain, real, fake in self.judged(batch, fakes):
            critic = self.networks[f"critic_{domain}"]
            losses[f"critic_{domain}"] = judge(critic(real), critic(fake))
            if self.config.penalised:
                share = batch.noise.uniform(f"penalty of {domain}", 1, 1, 1)
                # What is called by this name is never compiled.
                penalties.append(gradient_penalty(critic.forward, real, fake, share))
        return losses | ({"gradient_penalty": sum(penalties)} if penalties else {})
