"""The generator of disentangled deblurring (Lu et al. 2019): an image from a content code and a blur code."""

from torch import Tensor, nn

from trainers.blocks import LayerNorm, ResidualBlock, doubling_conv, reflected_conv, with_code
from trainers.nets.reduction import Reduction

BRANCH_BLOCKS, STAGES = 3, 2


class GeneratorBranch(nn.Module):
    """What the generator of one domain has for itself; the blur code joins the channels at every stage.

    Parameters
    ----------
    width : int
        The content code has 4 width channels.
    latent : int
        Size of the blur code.
    colors : int
        Channels of the image.
    doublings : int
        How many of its two stages double height and width, the first ones; the others leave them as they are.
    reduction : int
        How many times the image is reduced at the end, as in `Reduction`.
    """

    def __init__(self, width: int, latent: int, colors: int = 3, doublings: int = STAGES, reduction: int = 1):
        super().__init__()
        channels = 4 * width + latent
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(BRANCH_BLOCKS)))
        self.ups = nn.ModuleList()
        for stage in range(STAGES):
            inputs, channels = channels + latent, (channels + latent) // 2
            convs = [doubling_conv(inputs, channels)] if stage < doublings else reflected_conv(inputs, channels, 3)
            self.ups.append(nn.Sequential(*convs, LayerNorm(channels), nn.ReLU()))
        self.image = nn.Sequential(nn.ConvTranspose2d(channels + latent, colors, 1), nn.Tanh())
        if reduction > 1:
            self.image.append(Reduction(reduction))

    def forward(self, content: Tensor, z: Tensor) -> Tensor:
        """Return an image (B, colors, 4h, 4w), or smaller, in [-1, 1] from (B, 4 width, h, w) and (B, latent)."""
        x = self.blocks(with_code(content, z))
        for up in self.ups:
            x = up(with_code(x, z))
        return self.image(with_code(x, z))


class ContentGenerator(nn.Module):
    """The first block, which the generators of both domains share, and a branch.

    Parameters
    ----------
    shared : Module
        (B, 4 width, h, w) to the same shape; one object in both generators.
    branch : GeneratorBranch
    """

    def __init__(self, shared: nn.Module, branch: nn.Module):
        super().__init__()
        self.shared, self.branch = shared, branch

    def forward(self, content: Tensor, z: Tensor) -> Tensor:
        """Return an image in [-1, 1] from a content code (B, 4 width, h, w) and z (B, latent)."""
        return self.branch(self.shared(content), z)
