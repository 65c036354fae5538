"""DeblurGAN, the baseline of deblurring learned from pairs.

O. Kupyn, V. Budzan, M. Mykhailych, D. Mishkin, J. Matas: DeblurGAN: Blind Motion Deblurring Using Conditional
Adversarial Networks, CVPR 2018.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from blurgen.options import option
from trainers.blocks import initialise
from trainers.losses import (
    color_correlation,
    gradient_penalty,
    perceptual_distance,
    wasserstein_critic,
    wasserstein_generator,
)
from trainers.method import Batch, Method, PerceptualConfig, Restorer, frozen, require_weights
from trainers.nets.patch_critic import PatchCritic
from trainers.nets.resnet_generator import ResnetGenerator
from trainers.noise import Noise

LEAST_CROP_PX = 32
WEIGHTS = ("content", "adversarial")


@dataclass(frozen=True)
class DeblurGANConfig(PerceptualConfig):
    """Options of `DeblurGAN`."""

    batch: int = option(1, "Pairs in a step, over all processes together.")
    crop: int = option(256, "Side of the training crops, px; code 256 of images at 640 x 360.")
    lr: float = option(1e-4, "Learning rate of Adam before it decays; paper 1e-4.")
    constant_epochs: int = option(150, "Epochs at the full learning rate; paper 150.")
    decay_epochs: int = option(150, "Epochs in which the learning rate falls; paper 150.")
    blocks: int = option(9, "Residual blocks of the generator; paper 9.")
    dropout: float = option(0.5, "Share of the values inside a block that training drops; paper 0.5.")
    critic_updates: int = option(5, "Updates of the critic in a step, all on its batch; paper 5.")
    content: float = option(100.0, "Weight: VGG features of deblurred and sharp agree; paper 100.")
    adversarial: float = option(1.0, "Weight: deblurred images fool the critic; paper 1.")
    gp: str = option(
        "sample",
        "Norm in the gradient penalty: of a sample, as WGAN-GP has it, or of each pixel, as the code has it.",
        choices=("sample", "pixel"),
    )
    gradient_penalty: float = option(10.0, "Weight, in the critic's loss: its gradient has the norm 1; paper 10.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        require_weights(self, (*WEIGHTS, "gradient_penalty"))
        if not self.weights:
            raise ValueError("at least one loss needs a weight above 0")
        for name in ("blocks", "critic_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout:g}")
        if self.crop < LEAST_CROP_PX or self.crop % 4:
            raise ValueError(f"crop must be a multiple of 4 and at least {LEAST_CROP_PX} px, got {self.crop}")

    @property
    def weights(self) -> dict[str, float]:
        """Loss of the generator -> weight, of those that have one."""
        return {name: getattr(self, name) for name in WEIGHTS if getattr(self, name)}


class DeblurGANRestorer(Restorer):
    """The generator, which adds what is missing to the blurred image."""

    def __init__(self, config: DeblurGANConfig):
        super().__init__()
        self.dropout = config.dropout
        self.generator = ResnetGenerator(config.width, config.blocks, config.dropout, residual=True)

    def restore(self, blurred: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the sharp image (B, 3, H, W)."""
        return self.generator(blurred)

    def restore_dropping(self, blurred: Tensor, noise: Noise) -> Tensor:
        """Return the sharp image with a dropout as in training, and as the public code has it always."""
        return self.generator.dropping(blurred, noise, "dropout")


class DeblurGAN(Method):
    """A generator and a Wasserstein critic, which is updated five times for each update of the generator.

    A step is an update of the generator. The critic's updates before it are all on the same pairs, and on the image
    that the generator made of them before its own update, as in the public code; only the points where the gradient is
    penalised differ.
    """

    name = "deblurgan"
    paper = "Kupyn et al., CVPR 2018"
    Config = DeblurGANConfig
    Restorer = DeblurGANRestorer
    pairing = "paired"
    presets = {"default": {}, "official": {"gp": "pixel"}, "paper": {}}  # noqa: RUF012

    @classmethod
    def needs_features(cls, config: DeblurGANConfig) -> bool:
        """Return whether the content loss has a weight."""
        return bool(config.content)

    def build(self) -> dict[str, nn.Module]:
        """Return the generator and the critic."""
        networks = {
            "generator": self.restorer.generator,
            "critic": PatchCritic(self.config.width, padding=2, offset=False),
        }
        return {name: initialise(network, zero_bias=True) for name, network in networks.items()}

    def sides(self) -> dict[str, tuple[str, ...]]:
        """Return what each optimiser trains."""
        return {"critics": ("critic",), "generators": ("generator",)}

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the critic `critic_updates` times, then the generator."""
        weights, fake = self.config.weights, self.restorer.restore_dropping(batch.blurred, batch.noise)
        for number in range(self.config.critic_updates):
            critic_losses = self.critic_losses(batch, fake.detach(), number)
            penalty = critic_losses.get("gradient_penalty", 0.0)
            self.update("critics", critic_losses["critic"] + self.config.gradient_penalty * penalty)
        losses = self.generator_losses(batch, fake)
        self.update("generators", sum(weight * losses[name] for name, weight in weights.items()))
        scalars = {name: loss.detach() for name, loss in (losses | critic_losses).items()}
        return scalars | {"color_correlation": color_correlation(fake.detach(), batch.blurred)}

    def critic_losses(self, batch: Batch, fake: Tensor, number: int) -> dict[str, Tensor]:
        """Return the unweighted losses of the critic's update `number`."""
        critic, per_pixel = self.networks["critic"], self.config.gp == "pixel"
        losses = {"critic": wasserstein_critic(critic(batch.sharp), critic(fake))}
        if self.config.gradient_penalty:
            draw, shape = (batch.noise.common, ()) if per_pixel else (batch.noise.uniform, (1, 1, 1))
            share = draw(f"penalty {number}", *shape)
            # What is called by this name is never compiled.
            losses["gradient_penalty"] = gradient_penalty(critic.forward, batch.sharp, fake, share, per_pixel)
        return losses

    def generator_losses(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        """Return the unweighted losses of the generator that have a weight, by name."""
        weights, losses = self.config.weights, {}
        if "content" in weights:
            losses["content"] = self.content(fake, batch.sharp)
        if "adversarial" in weights:
            with frozen(self.networks["critic"]):
                losses["adversarial"] = wasserstein_generator(self.networks["critic"](fake))
        return losses

    def content(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the distance between images in the features of VGG-19."""
        return perceptual_distance(self.context.features, image, target)
