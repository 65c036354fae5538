"""The content encoder of disentangled deblurring (Lu et al. 2019): what an image shows, without its blur."""

from torch import Tensor, nn

from trainers.blocks import InstanceNorm, ResidualBlock, reflected_conv

STEM_BLOCKS = 3


def content_stem(width: int) -> nn.Sequential:
    """Return what the encoder of one domain has for itself: (B, 3, H, W) to (B, 4 width, H/4, W/4)."""
    return nn.Sequential(
        *reflected_conv(3, width, 7),
        nn.LeakyReLU(0.01),
        *reflected_conv(width, 2 * width, 3, stride=2),
        InstanceNorm(),
        nn.ReLU(),
        *reflected_conv(2 * width, 4 * width, 3, stride=2),
        InstanceNorm(),
        nn.ReLU(),
        *(ResidualBlock(4 * width) for _ in range(STEM_BLOCKS)),
    )


class ContentEncoder(nn.Module):
    """A stem, and the last block that the encoders of both domains share.

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
        """Return the content code (B, 4 width, H/4, W/4) of an image (B, 3, H, W)."""
        return self.shared(self.stem(image))
