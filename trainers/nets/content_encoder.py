"""The content encoder of disentangled deblurring (Lu et al. 2019): what an image shows, without its blur."""

from torch import Tensor, nn

from trainers.blocks import InstanceNorm, LayerNorm, ResidualBlock, doubling_conv, reflected_conv

STEM_BLOCKS = 3


def content_stem(width: int, colors: int = 3, blocks: int = STEM_BLOCKS) -> nn.Sequential:
    """Return what the encoder of one domain has for itself: (B, colors, H, W) to (B, 4 width, H/4, W/4)."""
    return nn.Sequential(
        *reflected_conv(colors, width, 7),
        nn.LeakyReLU(0.01),
        *reflected_conv(width, 2 * width, 3, stride=2),
        InstanceNorm(),
        nn.ReLU(),
        *reflected_conv(2 * width, 4 * width, 3, stride=2),
        InstanceNorm(),
        nn.ReLU(),
        *(ResidualBlock(4 * width) for _ in range(blocks)),
    )


def enlarging_stem(width: int, scale: int, colors: int = 3, blocks: int = STEM_BLOCKS) -> nn.Sequential:
    """Return a stem for images that are `scale` (a power of 2) times smaller: features of full size, then the stem."""
    enlarging: list[nn.Module] = []
    for inputs in (colors, *[width] * (scale.bit_length() - 2)):
        enlarging += [doubling_conv(inputs, width), LayerNorm(width), nn.ReLU()]
    return nn.Sequential(*enlarging, *content_stem(width, width, blocks))


class ContentEncoder(nn.Module):
    """A stem, and the last blocks that the encoders of both domains share.

    Parameters
    ----------
    stem : Module
        As from `content_stem`.
    shared : Module
        (B, 4 width, h, w) to the same shape; one object in both encoders.
    """

    def __init__(self, stem: nn.Module, shared: nn.Module):
        super().__init__()
        self.stem, self.shared = stem, shared

    def forward(self, image: Tensor) -> Tensor:
        """Return the content code (B, 4 width, H/4, W/4) of an image."""
        return self.shared(self.stem(image))
