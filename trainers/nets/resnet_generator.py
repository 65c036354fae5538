"""The residual generator of Johnson et al. 2016 as CycleGAN uses it."""

from torch import Tensor, nn

from trainers.blocks import InstanceNorm, ResidualBlock, doubling_conv, reflected_conv


class ResnetGenerator(nn.Module):
    """Two reductions by two, residual blocks, two enlargements; image in, image out.

    Parameters
    ----------
    width : int
        Channels of the first layer.
    blocks : int
        Residual blocks at a quarter of the size: 9, or 6 for images of at most 128 px.
    """

    def __init__(self, width: int, blocks: int):
        super().__init__()
        layers = [*reflected_conv(3, width, 7), InstanceNorm(), nn.ReLU()]
        for inputs in (width, 2 * width):
            layers += [nn.Conv2d(inputs, 2 * inputs, 3, stride=2, padding=1), InstanceNorm(), nn.ReLU()]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for inputs in (4 * width, 2 * width):
            layers += [doubling_conv(inputs, inputs // 2), InstanceNorm(), nn.ReLU()]
        self.layers = nn.Sequential(*layers, *reflected_conv(width, 3, 7), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, 3, H, W) in [-1, 1]; H and W must be multiples of 4."""
        return self.layers(image)
