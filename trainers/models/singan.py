"""SinGAN: a pyramid of small generators that learns the patches of one image, taken for deblurring as a study.

T. R. Shaham, T. Dekel, T. Michaeli: SinGAN: Learning a Generative Model from a Single Natural Image, ICCV 2019.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from blurgen.options import Chosen, option
from trainers.infer_options import Inference, Inject, Iterate, way_chosen
from trainers.losses import gradient_penalty, mean_square, wasserstein_critic, wasserstein_generator
from trainers.method import Batch, CommonConfig, Method, Restorer, average_over_processes, frozen, require_weights
from trainers.nets.scale_nets import RADIUS_PX, ScaleCritic, ScaleGenerator
from trainers.nets.scale_pyramid import ScaleNoise
from trainers.noise import Noise
from trainers.pyramid import Pyramid, pyramid_of, resized

NOMINAL_PX = (720, 1280)
"""The size of the image where none has been seen yet: that of the frames of GoPro."""
SCALES_A_WIDTH = 4
STRIP_PX = 1 << 18
WEIGHTS = ("reconstruction", "adversarial")


@dataclass(frozen=True)
class SinGANConfig(CommonConfig):
    """Options of `SinGAN`."""

    width: int = option(32, "Channels of the four coarsest scales, doubled every four scales; paper 32.")
    most_width: int = option(128, "Most channels of a scale; code 128.")
    batch: int = option(1, "Images drawn for an update, over all processes together; paper 1.")
    crop: int = option(250, "Longest side that the image is trained at, px, made smaller first; paper 250.")
    coarsest: int = option(25, "Shorter side of the coarsest scale, px; paper 25.")
    ratio: float = option(
        0.75, "Ratio of the sides of two scales, from which the nearest that fits is taken; paper 0.75."
    )
    flips: bool = option(False, "Mirror the image that the critic is shown left to right at random.")
    iterations: int = option(2000, "Steps that each scale is trained for, an epoch; paper 2000.")
    decay_iteration: int = option(1600, "Step of a scale from which on its learning rate is lower; paper 1600.")
    decay_rate: float = option(0.1, "Factor of the learning rate from there on; paper 0.1.")
    lr: float = option(5e-4, "Learning rate of Adam before it falls; paper 5e-4.")
    critic_updates: int = option(3, "Updates of the scale's critic in a step; paper 3.")
    generator_updates: int = option(3, "Updates of the scale's generator in a step; paper 3.")
    adversarial: float = option(1.0, "Weight: images drawn fool the scale's critic; paper 1.")
    reconstruction: float = option(10.0, "Weight: the fixed noise gives the image, mean square; paper 10.")
    gradient_penalty: float = option(0.1, "Weight, in the critic's loss: its gradient has the norm 1; paper 0.1.")
    noise: float = option(0.1, "Deviation of a scale's noise over the error of the scales below it; paper 0.1.")
    ema: float = option(0.0, "Decay of averaged weights of a scale; 0, as in the paper, takes the last ones.")
    image_height: int | None = option(None, "Height of the image, px, where --image is not at hand to tell it.")
    image_width: int | None = option(None, "Width of the image, px, where --image is not at hand to tell it.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        require_weights(self, (*WEIGHTS, "gradient_penalty", "noise"))
        if not self.weights:
            raise ValueError("at least one loss needs a weight above 0")
        for name in ("most_width", "iterations", "critic_updates", "generator_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.decay_iteration < 0 or not 0 < self.decay_rate <= 1:
            raise ValueError(
                "decay_iteration must be at least 0 and decay_rate in (0, 1], "
                f"got {self.decay_iteration} and {self.decay_rate:g}"
            )
        if self.coarsest <= 2 * RADIUS_PX or not 0.1 <= self.ratio <= 0.95:
            raise ValueError(
                f"coarsest must be above {2 * RADIUS_PX} px, what a critic sees, and ratio in [0.1, 0.95], "
                f"got {self.coarsest} and {self.ratio:g}"
            )
        if (self.image_height is None) != (self.image_width is None):
            raise ValueError("image_height and image_width must be given together: give the other one, too, or --image")
        if min(self.image_px) < 1:
            raise ValueError(f"image_height and image_width must be at least 1 px, got {self.image_px}")

    @property
    def weights(self) -> dict[str, float]:
        """Loss of the generator -> weight, of those that have one."""
        return {name: getattr(self, name) for name in WEIGHTS if getattr(self, name)}

    @property
    def image_px(self) -> tuple[int, int]:
        """(height, width) of the image, px."""
        return NOMINAL_PX if self.image_height is None else (self.image_height, self.image_width)

    @cached_property
    def pyramid(self) -> Pyramid:
        """The scales of the image; raises ValueError where it is too small or too long for any."""
        return pyramid_of(*self.image_px, self.coarsest, self.crop, self.ratio)

    @property
    def epochs(self) -> int:
        """Length of the whole schedule: an epoch is the training of a scale."""
        return self.pyramid.scales

    def width_of(self, scale: int) -> int:
        """Return the channels of a scale, counted from 0, the coarsest."""
        return min(self.width << scale // SCALES_A_WIDTH, max(self.width, self.most_width))


class SinGANRestorer(Restorer):
    """The generators of all scales. Of those that have begun, the last is the finest generator.

    Batch norms use their running statistics here and in all scales that are not being trained, as the public code
    does: a pixel of the result depends on those around it alone.
    """

    multiple = 1
    frugal = True

    def __init__(self, config: SinGANConfig):
        super().__init__()
        self.pyramid = config.pyramid
        self.noise = ScaleNoise(self.pyramid.scales, self.pyramid.sizes[0])
        self.generators = nn.ModuleList(ScaleGenerator(config.width_of(n)) for n in range(self.pyramid.scales))
        self.way: Inference = Iterate()

    def choose(self, way: Chosen | None) -> None:
        """Restore in that way from now on, one of `trainers.infer_options.WAYS`, and None in that of the paper."""
        chosen = way_chosen(way)
        if isinstance(chosen, Inject) and (chosen.from_scale or 1) >= self.pyramid.scales:
            raise ValueError(
                f"infer.from_scale must be 1 to {self.pyramid.scales - 1}, the finest scale, got {chosen.from_scale}"
            )
        self.way = chosen

    @property
    def caveat(self) -> str | None:
        """Of scales that have not begun nothing is known, and what there is was trained for coarser images."""
        reached, scales = self.noise.reached, self.pyramid.scales
        if reached == scales:
            return None
        return f"training stopped at scale {reached} of {scales}: what it makes of photographs means nothing yet"

    @property
    def measured_size(self) -> Callable[[int, int], tuple[int, int]] | None:
        """Return the function to the size of the finest scale, where images are restored at that."""
        return self.pyramid.finest_size if self.way.size == "finest" else None

    def restore(self, blurred: Tensor, z: Tensor | None = None) -> Tensor:
        """Return images of the size of `blurred`, (B, 3, H, W): made smaller, then larger again by generators."""
        own = tuple(blurred.shape[2:])
        whole = self.pyramid.finest_size(*own) if self.way.size == "finest" else own
        passes = self.passes()
        image = resized(blurred, whole)
        image = resized(image, self.pyramid.size_below(*whole, passes[0][1] + 1))
        for number, (scale, steps) in enumerate(passes):
            below = resized(image, self.pyramid.size_below(*whole, steps))
            image = self.generators[scale].in_strips(
                self._noise_of(number, scale, below), below, max(1, STRIP_PX // below.shape[3])
            )
        return resized(image.clamp(-1, 1), own).clamp(-1, 1)

    def passes(self) -> list[tuple[int, int]]:
        """Return the scales whose generators are passed, and how many steps below the whole size each works."""
        finest = max(0, self.noise.reached - 1)
        if isinstance(self.way, Iterate):
            return [(finest, steps) for steps in reversed(range(self.way.k))]
        if not finest:
            raise ValueError("only the coarsest scale was trained yet, where nothing is injected: give --infer iterate")
        first = max(1, finest - 1) if self.way.from_scale is None else self.way.from_scale
        if first > finest:
            raise ValueError(
                f"infer.from_scale must be at most {finest}, the finest scale that was trained yet, got {first}"
            )
        return [(scale, finest - scale) for scale in range(first, finest + 1)]

    def _noise_of(self, number: int, scale: int, image: Tensor) -> Tensor:
        if not self.way.tau:
            return image.new_zeros(())
        # From the CPU, so that every device sees the same.
        drawn = Noise(self.way.seed, 0, range(len(image)), torch.device("cpu")).normal(
            f"pass {number}", *image.shape[1:]
        )
        return self.way.tau * self.noise.amplitudes[scale] * drawn.to(image.device)

    def reconstruct(self, scale: int) -> tuple[Tensor, Tensor]:
        """Return what `scale` begins from and what it makes of it, (1, 3, h, w), given the fixed noise z*."""
        below = None
        for number in range(scale + 1):
            begin = self.begin_of(number, below)
            noise = self.noise.fixed.expand(-1, 3, -1, -1) if not number else begin.new_zeros(())
            made = self.generators[number](noise, begin)
            below = made
        return begin, made

    def begin_of(self, scale: int, below: Tensor | None) -> Tensor:
        """Return the image of the scale below at the size of `scale`: nothing, zero, for the coarsest."""
        size = self.pyramid.sizes[scale]
        return self.noise.fixed.new_zeros(1, 3, *size) if below is None else resized(below, size)


class SinGAN(Method):
    """Scale by scale, a generator and a critic of the patches of one image, which it must reconstruct from noise."""

    name = "singan"
    paper = "Shaham et al., ICCV 2019"
    Config = SinGANConfig
    Restorer = SinGANRestorer
    pairing = "single"
    keeps_best = False
    presets = {  # noqa: RUF012
        "default": {},
        "official": {},
        # Its reconstruction loss is printed without the square, which the code has.
        "paper": {},
        # Super-resolution of the public code, whose finest generator is passed again and again, too.
        "sr": {"reconstruction": 100.0, "coarsest": 18, "ratio": 2 ** (-1 / 3)},
    }

    @classmethod
    def fitted(cls, config: SinGANConfig, height: int, width: int) -> SinGANConfig:
        """Return `config` for an image of (height, width) px; raises ValueError where it is for another size."""
        if config.image_height is not None and config.image_px != (height, width):
            raise ValueError(
                f"image_height and image_width must be those of the image, {height} and {width} px, got "
                f"{config.image_height} and {config.image_width}: leave them out"
            )
        fitted = replace(config, image_height=height, image_width=width)
        return fitted if fitted.pyramid else config

    @classmethod
    def milestones(cls, config: SinGANConfig) -> tuple[int, ...]:
        """Return the first step of each scale."""
        return tuple(scale * config.iterations for scale in range(config.pyramid.scales))

    def build(self) -> dict[str, nn.Module]:
        """Return the networks of all scales, which exist from the start, and what they have in common."""
        self._scale: int | None = None
        networks: dict[str, nn.Module] = {"noise": self.restorer.noise}
        for scale, generator in enumerate(self.restorer.generators):
            networks[f"generator_{scale}"] = generator
            networks[f"critic_{scale}"] = ScaleCritic(self.config.width_of(scale))
        return networks

    def sides(self) -> dict[str, tuple[str, ...]]:
        """Return what each optimiser trains; of a scale that has no gradient yet, Adam knows nothing."""
        scales = range(self.config.pyramid.scales)
        return {f"{side}s": tuple(f"{side}_{scale}" for scale in scales) for side in ("critic", "generator")}

    def set_epoch(self, epoch: int) -> None:
        """Leave the learning rate to `step`, since it falls within an epoch."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the critic of a scale, then its generator, a few times each."""
        config = self.config
        scale = min(batch.step // config.iterations, config.pyramid.scales - 1)
        self.enter(scale, batch.sharp[:1])
        self._set_rate(batch.step - scale * config.iterations)
        for number in range(config.critic_updates):
            below = self.draw_below(scale, batch.noise, f"update {number}")
            critic_losses = self.critic_losses(batch, below, number)
            penalty = critic_losses.get("gradient_penalty", 0.0)
            self.update("critics", critic_losses["critic"] + config.gradient_penalty * penalty)
        for _ in range(config.generator_updates):
            losses = self.generator_losses(batch, below)
            self.update("generators", sum(weight * losses[name] for name, weight in config.weights.items()))
        average_over_processes(self._statistics(scale))
        return {name: loss.detach() for name, loss in (losses | critic_losses).items()}

    def critic_losses(self, batch: Batch, below: Tensor, number: int) -> dict[str, Tensor]:
        """Return the unweighted losses of the critic's update `number`, given images of the scale below."""
        critic, real = self.networks[f"critic_{self._scale}"], self._shown(batch)
        with torch.no_grad():
            fake = self._made(batch, below)
        losses = {"critic": wasserstein_critic(critic(real), critic(fake))}
        if self.config.gradient_penalty:
            share = batch.noise.common(f"penalty {number}")
            # What is called by this name is never compiled.
            losses["gradient_penalty"] = gradient_penalty(critic.forward, real, fake, share, per_pixel=True)
        return losses

    def generator_losses(self, batch: Batch, below: Tensor) -> dict[str, Tensor]:
        """Return the unweighted losses of the generator that have a weight, by name; the fake is made anew for each."""
        weights, losses = self.config.weights, {}
        if "adversarial" in weights:
            critic, fake = self.networks[f"critic_{self._scale}"], self._made(batch, below)
            with frozen(critic):
                losses["adversarial"] = wasserstein_generator(critic(fake))
        if "reconstruction" in weights:
            noise = self.restorer.noise.fixed.expand(-1, 3, -1, -1) if not self._scale else below.new_zeros(())
            made = self.networks[f"generator_{self._scale}"](noise, self._begin)
            losses["reconstruction"] = mean_square(made, self._real)
        return losses

    @torch.no_grad()
    def draw_below(self, scale: int, noise: Noise, purpose: str) -> Tensor:
        """Return images (B, 3, h, w) drawn from the scales below, at the size of `scale`: zero for the coarsest."""
        image = None
        for number in range(scale):
            below = self.restorer.begin_of(number, image)
            image = self.networks[f"generator_{number}"](self._noise_of(number, noise, purpose), below)
        return self.restorer.begin_of(scale, image).expand(len(noise.samples), -1, -1, -1)

    def _made(self, batch: Batch, below: Tensor) -> Tensor:
        noise = self._noise_of(self._scale, batch.noise, "scale")
        return self.networks[f"generator_{self._scale}"](noise, below)

    def _noise_of(self, scale: int, noise: Noise, purpose: str) -> Tensor:
        """Return noise of the amplitude of a scale, (B, 3, h, w), for the coarsest alike in all colours."""
        colors = 3 if scale else 1
        drawn = noise.normal(f"{purpose}, scale {scale}", colors, *self.restorer.pyramid.sizes[scale])
        return (self.restorer.noise.amplitudes[scale] * drawn).expand(-1, 3, -1, -1)

    def _shown(self, batch: Batch) -> Tensor:
        """Return what the critic is shown as real, (B, 3, h, w)."""
        real = self._real
        if self.config.flips:
            real = torch.where(batch.noise.common("flip") < 0.5, real.flip(3), real)
        return real.expand(len(batch.sharp), -1, -1, -1)

    def _set_rate(self, iteration: int) -> None:
        config = self.config
        lr = config.lr * (config.decay_rate if iteration >= config.decay_iteration else 1.0)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr

    @torch.no_grad()
    def enter(self, scale: int, image: Tensor) -> None:
        """Make ready to train a scale on `image`, (1, 3, H, W); the first time it begins."""
        if self._scale == scale:
            return
        for number in range(self.restorer.pyramid.scales):
            self.networks[f"generator_{number}"].train(number == scale)
        finest = resized(image.float(), self.restorer.pyramid.sizes[-1])
        for number in range(self.restorer.noise.reached, scale + 1):
            self._begin_scale(number, finest)
        self._real = resized(finest, self.restorer.pyramid.sizes[scale])
        self._begin, self._scale = self._reconstructed_below(scale), scale

    def _begin_scale(self, scale: int, finest: Tensor) -> None:
        config, noise = self.config, self.restorer.noise
        if scale and config.width_of(scale) == config.width_of(scale - 1):
            for part in ("generator", "critic"):
                self.networks[f"{part}_{scale}"].load_state_dict(self.networks[f"{part}_{scale - 1}"].state_dict())
        real, begin = resized(finest, self.restorer.pyramid.sizes[scale]), self._reconstructed_below(scale)
        noise.begin(config.noise * mean_square(real, begin).sqrt() if scale else torch.ones(()))
        self._updates = 0
        self.averaged.generators[scale].load_state_dict(self.restorer.generators[scale].state_dict())
        self.averaged.noise.load_state_dict(noise.state_dict())

    def _reconstructed_below(self, scale: int) -> Tensor:
        below = self.restorer.reconstruct(scale - 1)[1] if scale else None
        return self.restorer.begin_of(scale, below)

    def _statistics(self, scale: int) -> list[Tensor]:
        networks = (self.networks[f"{part}_{scale}"] for part in ("generator", "critic"))
        return [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]

    @torch.no_grad()
    def average_weights(self) -> None:
        """Move the averaged weights and statistics of the scale in training towards the current ones.

        It starts anew with every scale. The next scale learns what to add to what the current weights of this one
        make, so that with an `ema` above 0 the chain of averaged ones is only near to what was trained.
        """
        updates = self._updates = self._updates + 1
        decay = min(self.config.ema, (1 + updates) / (10 + updates))
        mine, theirs = (one.generators[self._scale].state_dict() for one in (self.averaged, self.restorer))
        averaged = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in averaged], [theirs[name] for name in averaged], 1 - decay)

    def reconstruction(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the enlarged image of the scale below, the reconstruction, and the image, at the scale in training."""
        if self._scale is None:
            return None
        begin, made = self.averaged.reconstruct(self._scale)
        return begin, made.clamp(-1, 1), self._real

    def load_extra_state(self, state: Any) -> None:
        """Forget what belongs to another state."""
        self._scale = None

    def load_initial(self, networks: Mapping[str, Tensor]) -> None:
        """Refuse the networks of another run: every scale begins from the one below, or at random."""
        raise ValueError(f"{self.name} begins every scale from the one below it: leave out --init-from")
