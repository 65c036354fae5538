"""Deblurring and super-resolution at once through disentangled representations.

It is the system of Lu et al. 2019 with blurred images in low resolution: transposed convolutions enlarge what the
content encoder sees of them, and its last layers are those of the encoder of sharp images. "Paper" in the options
below is that of this extension, of which no reference can be given here; it gives neither the scale nor how many layers
are shared.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from blurgen.options import option
from trainers.blocks import Luma, ResidualBlock, initialise
from trainers.method import Batch, Restorer
from trainers.models.disentangled import COLOR_PX, Disentangled, DisentangledConfig, critic_names
from trainers.nets.blur_encoder import BlurEncoder
from trainers.nets.content_encoder import ContentEncoder, content_stem, enlarging_stem
from trainers.nets.content_generator import ContentGenerator, GeneratorBranch
from trainers.nets.multiscale_critic import MultiscaleCritic
from trainers.nets.reduction import Reduction

SCALES = (2, 4)
ENCODER_BLOCKS = 4
# A critic's finest scale reduces 16 times.
LEAST_CRITIC_PX = 16


@dataclass(frozen=True)
class DisentangledSRConfig(DisentangledConfig):
    """Options of `DisentangledSR`: those of disentangled deblurring, and what the resolution asks for."""

    crop: int = option(128, "Side of the training crops of sharp images, px; blurred ones are smaller by the scale.")
    domain: str = option("text", "Text needs no perceptual loss; paper text.", choices=("photo", "text"))
    scale: int = option(2, "How many times larger the sharp images are, 2 or 4; paper silent.")
    shared_blocks: int = option(4, "Last residual blocks, of 4, that both content encoders share; paper several.")
    reblurred: str = option(
        "low",
        "Where the generator of blurred images draws: in low resolution, or in high resolution, from which a fixed "
        "mean in linear light reduces; paper silent.",
        choices=("low", "high"),
    )
    blurred_scales: int | None = option(
        None, "Scales of the critics of blurred images; as scales, or as many as the smaller crop allows, if not given."
    )
    gray: bool = option(False, "Work in gray: coloured pages without partners make the system colour gray ones.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        if self.scale not in SCALES:
            raise ValueError(f"scale must be 2 or 4, got {self.scale}")
        if not 1 <= self.shared_blocks <= ENCODER_BLOCKS:
            raise ValueError(f"shared_blocks must be 1 to {ENCODER_BLOCKS}, got {self.shared_blocks}")
        if self.blurred_scales is not None and self.blurred_scales < 1:
            raise ValueError(f"blurred_scales must be at least 1, got {self.blurred_scales}")
        scales = self.blurred_scales or 1
        least = self.scale * LEAST_CRITIC_PX * 2 ** (scales - 1)
        if self.crop < least:
            raise ValueError(
                f"crop must be at least {least} px at scale {self.scale} for the critics of blurred images, got "
                f"{self.crop}: give a larger crop or {'a smaller scale' if scales == 1 else 'fewer blurred_scales'}"
            )

    @property
    def colors(self) -> int:
        """Channels of the images inside."""
        return 1 if self.gray else 3

    @property
    def blurred_doublings(self) -> int:
        """Stages of the generator of blurred images that double height and width: to full size, 2."""
        return 2 if self.reblurred == "high" else (4 // self.scale).bit_length() - 1

    @property
    def blurred_reduction(self) -> int:
        """How many times the images of that generator are reduced at its end."""
        return self.scale if self.reblurred == "high" else 1

    @property
    def critic_scales(self) -> dict[str, int]:
        """Critic -> its number of scales."""
        room = (self.crop // self.scale // LEAST_CRITIC_PX).bit_length()
        blurred = self.blurred_scales or min(self.scales, room)
        return {name: blurred if "blurred" in name else self.scales for name in critic_names(self)}


class DisentangledSRRestorer(Restorer):
    """G_S(E_B(b), z) of a blurred image in low resolution: a sharp one, `scale` times larger."""

    def __init__(self, config: DisentangledSRConfig):
        super().__init__()
        width, colors, shared = config.width, config.colors, config.shared_blocks
        self.latent, self.scale, self.multiple = config.latent, config.scale, 4 // config.scale
        self.is_gray = config.gray
        self.inner = Luma() if config.gray else nn.Identity()
        self.content = ContentEncoder(
            enlarging_stem(width, config.scale, colors, ENCODER_BLOCKS - shared),
            nn.Sequential(*(ResidualBlock(4 * width) for _ in range(shared))),
        )
        self.blur_encoder = BlurEncoder(width, config.latent, colors)
        self.generator = ContentGenerator(ResidualBlock(4 * width), GeneratorBranch(width, config.latent, colors))

    @property
    def caveat(self) -> str | None:
        """What gray results lack of coloured images."""
        return "it works in gray, and the lack of colours counts as an error" if self.is_gray else None

    def encode(self, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, latent) of the code of the blur of images (B, 3, H, W)."""
        return self.blur_encoder(self.inner(blurred))

    def restore(self, blurred: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the sharp images (B, 3, scale H, scale W), given the code `z` (B, latent) of the blur."""
        sharp = self.generator(self.content(self.inner(blurred)), z)
        return torch.cat((sharp, sharp, sharp), 1) if self.is_gray else sharp


class DisentangledSR(Disentangled):
    """`Disentangled` with blurred images in low resolution; what is compared with them is reduced to their size.

    The blur encoder is that of `Disentangled`, since the paper takes the blur to be the same at every scale. The
    generator of blurred images makes them in low resolution, where the cycle goes on.
    """

    name = "disentangled-sr"
    paper = "on Lu et al., CVPR 2019"
    Config = DisentangledSRConfig
    Restorer = DisentangledSRRestorer

    def __init__(self, config: DisentangledSRConfig, *arguments: object):
        self._reduce = Reduction(config.scale)
        self.color_px = COLOR_PX // config.scale
        super().__init__(config, *arguments)

    @classmethod
    def arrays(cls, config: DisentangledSRConfig) -> tuple[str, str]:
        """Return the names of the arrays of sharp images and of blurred ones in low resolution."""
        return "sharp", f"blurred_x{config.scale}"

    def build(self) -> dict[str, nn.Module]:
        """Return encoders, generators, and two critics, or four with the random branch."""
        config, restorer = self.config, self.restorer
        width, colors = config.width, config.colors
        stem = content_stem(width, colors, ENCODER_BLOCKS - config.shared_blocks)
        branch = GeneratorBranch(width, config.latent, colors, config.blurred_doublings, config.blurred_reduction)
        networks = {
            "content_sharp": ContentEncoder(stem, restorer.content.shared),
            "content_blurred": restorer.content,
            "blur_encoder": restorer.blur_encoder,
            "generator_sharp": restorer.generator,
            "generator_blurred": ContentGenerator(restorer.generator.shared, branch),
            **{name: MultiscaleCritic(width, scales, colors) for name, scales in config.critic_scales.items()},
        }
        return {name: initialise(network) for name, network in networks.items()}

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the critics, and every `generator_every` steps encoders and generators."""
        inner = self.restorer.inner
        return super().step(replace(batch, sharp=inner(batch.sharp), blurred=inner(batch.blurred)))

    def like_blurred(self, sharp: Tensor) -> Tensor:
        """Return sharp images (B, C, scale h, scale w) reduced to (B, C, h, w), the size of blurred ones."""
        return self._reduce(sharp)

    def features(self, images: Tensor) -> Tensor:
        """Return the features of VGG-19 of images (B, C, H, W), gray ones in three equal colours."""
        return super().features(images.expand(-1, 3, -1, -1))
