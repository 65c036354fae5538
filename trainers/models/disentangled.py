"""Unsupervised deblurring through disentangled representations.

B. Lu, J.-C. Chen, R. Chellappa: Unsupervised Domain-Specific Deblurring via Disentangled Representations, CVPR 2019.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blurgen.options import option
from trainers.blocks import ResidualBlock, initialise
from trainers.losses import (
    bce_critic,
    bce_generator,
    color_correlation,
    color_distance,
    feature_distance,
    kl_to_standard_normal,
    l1,
    over_scales,
)
from trainers.method import Batch, Context, Method, PerceptualConfig, Restorer, frozen, require_weights
from trainers.nets.blur_encoder import BlurEncoder
from trainers.nets.content_encoder import ContentEncoder, content_stem
from trainers.nets.content_generator import ContentGenerator, GeneratorBranch
from trainers.nets.multiscale_critic import MultiscaleCritic

PERCEPTUAL_OF_FACES = 0.1
# Side of the squares whose means the loss of colours compares; they hold deblurred images in their place, too.
COLOR_PX = 32
WEIGHTS = (
    "adversarial",
    "kl",
    "cycle",
    "perceptual",
    "self_reconstruction",
    "random",
    "latent_regression",
    "perceptual_random",
    "color",
    "identity",
)


@dataclass(frozen=True)
class DisentangledConfig(PerceptualConfig):
    """Options of `Disentangled`: weights of losses, and the points where paper and public code differ."""

    batch: int = option(8, "Images of each domain in a step, over all processes together; paper 16, code halves of 2.")
    weight_decay: float = option(1e-4, "Weight decay of Adam (L2, added to the gradient); code 1e-4.")
    schedule: str = option(
        "linear",
        "How the learning rate falls after the constant epochs; paper exponential, code linear.",
        choices=("linear", "exponential", "constant"),
    )
    constant_epochs: int = option(40, "Epochs at the full learning rate; paper 40.")
    decay_epochs: int = option(40, "Epochs in which the learning rate falls; paper 40.")
    domain: str = option("photo", "Text needs no perceptual loss.", choices=("photo", "text"))
    latent: int = option(8, "Size of the blur code; paper 8.")
    freeze_blur_encoder: bool = option(False, "Leave the blur encoder as --blur-encoder or --init-from give it.")
    scales: int = option(3, "Scales of each critic; the crop must be at least 16 px at the coarsest.")
    generator_every: int = option(2, "Steps, each with an update of the critics, per update of the generators; code 2.")
    code_noise: float = option(1.0, "Standard deviation of the noise on content codes in training; code 1.")
    adversarial: float = option(1.0, "Weight: deblurred and reblurred images fool the critics; paper 1.")
    kl: float = option(0.01, "Weight: blur codes are distributed as N(0, 1); paper 0.01.")
    kl_sum: bool = option(False, "Sum the KL divergence over the batch, as the code does, instead of averaging it.")
    cycle: float = option(10.0, "Weight: deblurred and reblurred again is the image itself, and reverse; paper 10.")
    perceptual: float | None = option(
        None, "Weight: VGG features of deblurred and blurred agree; 0.1 if not given, 0 for text; paper the same."
    )
    self_reconstruction: float = option(10.0, "Weight: each generator remakes its own domain; paper none, code 10.")
    random: float = option(1.0, "Weight: images of random blur codes fool critics of their own; paper none, code 1.")
    latent_regression: float = option(10.0, "Weight: a random blur code can be read again; paper none, code 10.")
    perceptual_random: float | None = option(
        None, "Weight as perceptual, of the random branch; that of perceptual if not given; paper none, code 0.1."
    )
    color: float = option(1.0, "Weight: deblurred and blurred agree in means over 32 px; paper and code none.")
    identity: float = option(0.0, "Weight: a sharp image stays itself, beside self_reconstruction; paper none.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        require_weights(self, (name for name in (*WEIGHTS, "code_noise") if getattr(self, name) is not None))
        for name in ("latent", "scales", "generator_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.weights:
            raise ValueError("at least one loss needs a weight above 0")
        least = 16 * 2 ** (self.scales - 1)
        if self.crop % 4:
            raise ValueError(f"crop must be a multiple of 4 px, got {self.crop}")
        if self.crop < least:
            raise ValueError(
                f"crop must be at least {least} px for {self.scales} scales of the critics, got {self.crop}: "
                "give a larger crop or fewer scales"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Loss -> weight, of those that have one."""
        weights = {name: getattr(self, name) for name in WEIGHTS}
        # Of a blur encoder that learns nothing, there is nothing to be had for it.
        weights["kl"] *= 0 if self.freeze_blur_encoder else self.batch if self.kl_sum else 1
        if weights["perceptual"] is None:
            weights["perceptual"] = 0.0 if self.domain == "text" else PERCEPTUAL_OF_FACES
        if weights["perceptual_random"] is None:
            weights["perceptual_random"] = weights["perceptual"]
        if not self.random:
            weights["latent_regression"] = weights["perceptual_random"] = 0.0
        return {name: weight for name, weight in weights.items() if weight}


class DisentangledRestorer(Restorer):
    """G_S(E_B(b), z): the content of a blurred image, drawn by the generator of sharp ones."""

    def __init__(self, config: DisentangledConfig):
        super().__init__()
        self.latent = config.latent
        self.content = ContentEncoder(content_stem(config.width), ResidualBlock(4 * config.width))
        self.blur_encoder = BlurEncoder(config.width, config.latent)
        self.generator = ContentGenerator(ResidualBlock(4 * config.width), GeneratorBranch(config.width, config.latent))

    def encode(self, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, latent) of the code of the blur."""
        return self.blur_encoder(blurred)

    def restore(self, blurred: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the sharp image (B, 3, H, W), given the code `z` (B, latent) of the blur."""
        return self.generator(self.content(blurred), z)


class Translations(NamedTuple):
    """What one forward pass makes of a sharp image s and a blurred image b.

    Content codes c, blur codes z (of b, and random); `sharp_of_blurred` is the deblurred b, `blurred_of_sharp` is s
    blurred like b, `*_random` the same with the random code.
    """

    content_sharp: Tensor
    content_blurred: Tensor
    mean: Tensor
    log_variance: Tensor
    z: Tensor
    z_random: Tensor
    sharp_of_blurred: Tensor
    blurred_of_sharp: Tensor
    sharp_random: Tensor | None
    blurred_random: Tensor | None


class Disentangled(Method):
    """Two content encoders, one blur encoder, two generators, and a critic for each kind of image they make.

    Sharp images have a content code alone, blurred ones a blur code, too; swapping codes blurs and deblurs. The public
    code stepped the latent regression after the other losses, on a graph that current versions of torch refuse; here
    all losses are summed and go backward once, and the regression does not reach the blur encoder, as there.
    """

    name = "disentangled"
    paper = "Lu et al., CVPR 2019"
    Config = DisentangledConfig
    Restorer = DisentangledRestorer
    color_px = COLOR_PX
    presets = {  # noqa: RUF012
        "default": {},
        "official": {"batch": 1, "kl_sum": True, "color": 0.0},
        "paper": {
            "batch": 16,
            "weight_decay": 0.0,
            "schedule": "exponential",
            "self_reconstruction": 0.0,
            "random": 0.0,
            "latent_regression": 0.0,
            "perceptual_random": 0.0,
            "color": 0.0,
        },
        # Sharp and blurred images of other contents: features hold on to what is seen. Published: "higher".
        "cross-domain": {"perceptual": 1.0},
    }

    def __init__(self, config: DisentangledConfig, context: Context | None = None):
        super().__init__(config, context)
        if config.freeze_blur_encoder:
            self.networks["blur_encoder"].requires_grad_(False)

    @classmethod
    def needs_features(cls, config: DisentangledConfig) -> bool:
        """Return whether a perceptual loss has a weight."""
        return bool({"perceptual", "perceptual_random"} & config.weights.keys())

    def build(self) -> dict[str, nn.Module]:
        """Return encoders, generators, and two critics, or four with the random branch."""
        config, restorer = self.config, self.restorer
        critics = critic_names(config)
        networks = {
            "content_sharp": ContentEncoder(content_stem(config.width), restorer.content.shared),
            "content_blurred": restorer.content,
            "blur_encoder": restorer.blur_encoder,
            "generator_sharp": restorer.generator,
            "generator_blurred": ContentGenerator(
                restorer.generator.shared, GeneratorBranch(config.width, config.latent)
            ),
            **{name: MultiscaleCritic(config.width, config.scales) for name in critics},
        }
        return {name: initialise(network) for name, network in networks.items()}

    def sides(self) -> dict[str, tuple[str, ...]]:
        """Return what the critics' and what the generators' optimiser trains; it passes over what is frozen."""
        critics = tuple(name for name in self.networks if name.startswith("critic"))
        return {"critics": critics, "generators": tuple(name for name in self.networks if name not in critics)}

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the critics, and every `generator_every` steps encoders and generators."""
        due = (batch.step + 1) % self.config.generator_every == 0
        with torch.set_grad_enabled(due):
            made = self.translate(batch)
        critic_losses = self.critic_losses(batch, made)
        self.update("critics", sum(critic_losses.values()))
        scalars = {name: loss.detach() for name, loss in critic_losses.items()}
        if due:
            losses = self.generator_losses(batch, made)
            self.update("generators", sum(weight * losses[name] for name, weight in self.config.weights.items()))
            scalars |= {name: loss.detach() for name, loss in losses.items()}
            with torch.no_grad():
                deblurred = self.like_blurred(made.sharp_of_blurred)
                scalars["color_correlation"] = color_correlation(deblurred, batch.blurred)
        return scalars

    def translate(self, batch: Batch) -> Translations:
        """Return content and blur codes, and the images that swapped and random blur codes make."""
        net, noise = self.networks, batch.noise
        content_sharp = self._noisy(net["content_sharp"](batch.sharp), batch, "code of sharp")
        content_blurred = self._noisy(net["content_blurred"](batch.blurred), batch, "code of blurred")
        mean, log_variance = net["blur_encoder"](batch.blurred)
        z = _drawn(mean, log_variance, noise.normal("blur code", self.config.latent))
        z_random = noise.normal("random blur code", self.config.latent)
        has_random = bool(self.config.random)
        return Translations(
            content_sharp,
            content_blurred,
            mean,
            log_variance,
            z,
            z_random,
            sharp_of_blurred=net["generator_sharp"](content_blurred, z),
            blurred_of_sharp=net["generator_blurred"](content_sharp, z),
            sharp_random=net["generator_sharp"](content_blurred, z_random) if has_random else None,
            blurred_random=net["generator_blurred"](content_sharp, z_random) if has_random else None,
        )

    def critic_losses(self, batch: Batch, made: Translations) -> dict[str, Tensor]:
        """Return the loss of each critic."""
        pairs = {
            "critic_sharp": (batch.sharp, made.sharp_of_blurred),
            "critic_blurred": (batch.blurred, made.blurred_of_sharp),
            # Critics have no norm over the batch: any real images give the same loss on average, and these are at hand.
            "critic_sharp_random": (batch.sharp, made.sharp_random),
            "critic_blurred_random": (batch.blurred, made.blurred_random),
        }
        critics = {name: self.networks[name] for name in self.sides()["critics"]}
        return {
            name: over_scales(bce_critic, critic(pairs[name][0]), critic(pairs[name][1].detach()))
            for name, critic in critics.items()
        }

    def generator_losses(self, batch: Batch, made: Translations) -> dict[str, Tensor]:
        """Return the unweighted losses of encoders and generators that have a weight, by name."""
        weights, s, b = self.config.weights, batch.sharp, batch.blurred
        net = self.networks
        losses = {}
        with frozen(*(net[name] for name in self.sides()["critics"])):
            if "adversarial" in weights:
                losses["adversarial"] = self._fools("critic_sharp", made.sharp_of_blurred) + self._fools(
                    "critic_blurred", made.blurred_of_sharp
                )
            if "random" in weights:
                losses["random"] = self._fools("critic_sharp_random", made.sharp_random) + self._fools(
                    "critic_blurred_random", made.blurred_random
                )
        if "kl" in weights:
            losses["kl"] = kl_to_standard_normal(made.mean, made.log_variance)
        if "cycle" in weights:
            losses["cycle"] = self._cycle(batch, made)
        if weights.keys() & {"self_reconstruction", "identity"}:
            remade = l1(net["generator_sharp"](made.content_sharp, made.z), s)
        if "identity" in weights:
            losses["identity"] = remade
        if "self_reconstruction" in weights:
            losses["self_reconstruction"] = remade + l1(net["generator_blurred"](made.content_blurred, made.z), b)
        if "latent_regression" in weights:
            with frozen(net["blur_encoder"]):
                losses["latent_regression"] = l1(net["blur_encoder"](made.blurred_random)[0], made.z_random)
        if "color" in weights:
            losses["color"] = color_distance(self.like_blurred(made.sharp_of_blurred), b, self.color_px)
        losses |= self._perceptual(b, made)
        return losses

    def like_blurred(self, sharp: Tensor) -> Tensor:
        """Return sharp images (B, C, H, W) at the size of blurred ones, to be compared with these."""
        return sharp

    def features(self, images: Tensor) -> Tensor:
        """Return the features of VGG-19 of images (B, C, H, W)."""
        return self.context.features(images)

    def _cycle(self, batch: Batch, made: Translations) -> Tensor:
        """Return how far images are from themselves once blurred and deblurred, and deblurred and blurred."""
        net, latent = self.networks, self.config.latent
        content_sharp = self._noisy(net["content_sharp"](made.sharp_of_blurred), batch, "code of deblurred")
        content_blurred = self._noisy(net["content_blurred"](made.blurred_of_sharp), batch, "code of reblurred")
        z = _drawn(*net["blur_encoder"](made.blurred_of_sharp), batch.noise.normal("blur code of reblurred", latent))
        s_again = net["generator_sharp"](content_blurred, z)
        b_again = net["generator_blurred"](content_sharp, z)
        return l1(s_again, batch.sharp) + l1(b_again, batch.blurred)

    def _perceptual(self, b: Tensor, made: Translations) -> dict[str, Tensor]:
        """Return the distances in VGG features from the blurred image, whose features are computed once."""
        images = {"perceptual": made.sharp_of_blurred, "perceptual_random": made.sharp_random}
        images = {name: image for name, image in images.items() if name in self.config.weights}
        if not images:
            return {}
        with torch.no_grad():
            target = self.features(b)
        return {
            name: feature_distance(self.features, self.like_blurred(image), target) for name, image in images.items()
        }

    def _fools(self, critic: str, fake: Tensor) -> Tensor:
        return over_scales(bce_generator, self.networks[critic](fake))

    def _noisy(self, code: Tensor, batch: Batch, purpose: str) -> Tensor:
        if not self.config.code_noise:
            return code
        return code + self.config.code_noise * batch.noise.normal(purpose, *code.shape[1:]).to(code.dtype)


def critic_names(config: DisentangledConfig) -> tuple[str, ...]:
    """Return the names of the critics: one for each domain, and with the random branch one more."""
    names = ("critic_sharp", "critic_blurred")
    return (*names, *(f"{name}_random" for name in names)) if config.random else names


def _drawn(mean: Tensor, log_variance: Tensor, epsilon: Tensor) -> Tensor:
    """Return a draw from N(mean, variance), differentiable in both."""
    return mean + epsilon * (log_variance / 2).exp()
