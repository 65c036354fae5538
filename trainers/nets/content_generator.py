"""The generator of disentangled deblurring (Lu et al. 2019): an image from a content code and a blur code."""

from torch import Tensor, nn

from trainers.blocks import LayerNorm, ResidualBlock, doubling_conv, with_code

BRANCH_BLOCKS = 3


class GeneratorBranch(nn.Module):
    """What the generator of one domain has for itself; the blur code joins the channels at every stage.

    Parameters
    ----------
    width : int
        The content code has 4 width channels.
    latent : int
        Size of the blur code.
    """

    def __init__(self, width: int, latent: int):
        super().__init__()
        channels = 4 * width + latent
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(BRANCH_BLOCKS)))
        self.ups = nn.ModuleList()
        for _ in range(2):
            inputs, channels = channels + latent, (channels + latent) // 2
            self.ups.append(nn.Sequential(doubling_conv(inputs, channels), LayerNorm(channels), nn.ReLU()))
        self.image = nn.Sequential(nn.ConvTranspose2d(channels + latent, 3, 1), nn.Tanh())

    def forward(self, content: Tensor, z: Tensor) -> Tensor:
        """Return an image (B, 3, 4h, 4w) in [-1, 1] from (B, 4 width, h, w) and (B, latent)."""
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
        """Return an image (B, 3, 4h, 4w) in [-1, 1] from a content code (B, 4 width, h, w) and z (B, latent)."""
        return self.branch(self.shared(content), z)
