"""The PatchGAN critic of Isola et al. 2017: it judges overlapping patches of 70 px."""

from torch import Tensor, nn

from trainers.blocks import InstanceNorm


class PatchCritic(nn.Module):
    """Five 4x4 convolutions, the first three with stride 2, instance norms in between.

    Parameters
    ----------
    width : int
        Channels of the first layer.
    padding : int
        Zeros around each layer's input: 1 gives 30 x 30 logits at 256 px, 2 gives 35 x 35.
    offset : bool
        Train the last bias, which moves all logits alike; in losses of their differences it cancels.
    """

    def __init__(self, width: int, padding: int = 1, offset: bool = True):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, padding), nn.LeakyReLU(0.2)]
        for inputs, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
            layers += [nn.Conv2d(inputs, 2 * inputs, 4, stride, padding), InstanceNorm(), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, padding))
        self.layers[-1].bias.requires_grad_(offset)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) of images (B, 3, H, W) of at least 24 px."""
        return self.layers(image)
