"""The residual generator of Johnson et al. 2016 as CycleGAN, DeblurGAN and AS-CycleGAN use it."""

from torch import Tensor, nn

from trainers.blocks import Channels, InstanceNorm, ResidualBlock, doubling_conv, reflected_conv
from trainers.nets.preactivation import CONDITION_CHANNELS, PreactivationBlock
from trainers.noise import Noise


class ResnetGenerator(nn.Module):
    """Two reductions by two, residual blocks, two enlargements; image in, image out.

    Parameters
    ----------
    width : int
        Channels of the first layer.
    blocks : int
        Residual blocks at a quarter of the size: 9, or 6 for images of at most 128 px.
    dropout : float
        Share of the values inside a block that are dropped, where a call says which.
    residual : bool
        Add what the layers make to the image.
    preactivation : bool
        Norm and activation stand before the convolutions of a block, not behind.
    condition : Module, optional
        Image to (B, 32, H/4, W/4), which transforms the features of preactivation blocks.
    guided : bool
        Images have channels behind their colours, which the condition alone is given.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        dropout: float = 0.0,
        residual: bool = False,
        preactivation: bool = False,
        condition: nn.Module | None = None,
        guided: bool = False,
    ):
        super().__init__()
        self.colors = Channels(0, 3) if guided else nn.Identity()
        self.dropout, self.residual, self.condition = dropout, residual, condition
        self._channels = 4 * width
        encoder = [*reflected_conv(3, width, 7), InstanceNorm(), nn.ReLU()]
        for inputs in (width, 2 * width):
            encoder += [nn.Conv2d(inputs, 2 * inputs, 3, stride=2, padding=1), InstanceNorm(), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder)
        self.blocks = nn.ModuleList(self._block(preactivation) for _ in range(blocks))
        decoder = [InstanceNorm(), nn.ReLU()] if preactivation else []
        for inputs in (4 * width, 2 * width):
            decoder += [doubling_conv(inputs, inputs // 2), InstanceNorm(), nn.ReLU()]
        self.decoder = nn.Sequential(*decoder, *reflected_conv(width, 3, 7), nn.Tanh())

    def _block(self, preactivation: bool) -> nn.Module:
        if not preactivation:
            return ResidualBlock(self._channels, self.dropout)
        return PreactivationBlock(self._channels, self.dropout, 0 if self.condition is None else CONDITION_CHANNELS)

    def forward(self, image: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return (B, 3, H, W) in [-1, 1]; H and W must be multiples of 4.

        `kept` (B, blocks, 4 width, H/4, W/4) bool says what is not dropped; without it nothing is.
        """
        condition = () if self.condition is None else (self.condition(image),)
        image = self.colors(image)
        x = self.encoder(image)
        for number, block in enumerate(self.blocks):
            x = block(x, None if kept is None else kept[:, number], *condition)
        x = self.decoder(x)
        return (image + x).clamp(-1, 1) if self.residual else x

    def dropping(self, image: Tensor, noise: Noise, purpose: str) -> Tensor:
        """Return what `forward` does with a dropout that is drawn from `noise` for `purpose`."""
        if not self.dropout:
            return self(image)
        height, width = (side // 4 for side in image.shape[2:])
        return self(image, noise.kept(purpose, self.dropout, len(self.blocks), self._channels, height, width))
