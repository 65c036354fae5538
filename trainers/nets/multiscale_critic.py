"""A critic that judges an image at several scales, as in pix2pixHD and in disentangled deblurring."""

from itertools import pairwise

from torch import Tensor, nn

from trainers.blocks import reflected_conv


def critic_scale(width: int, colors: int = 3) -> nn.Sequential:
    """Return the critic of one scale: (B, colors, H, W) to logits (B, 1, H/16, W/16); no norms."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((colors, width, 2 * width, 4 * width, 8 * width)):
        layers += [*reflected_conv(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 1))


class MultiscaleCritic(nn.Module):
    """One critic for the image itself and one for each of its halvings.

    Parameters
    ----------
    width : int
        Channels of the first layer of each.
    scales : int
        How many; the side of an image must be at least 16 times 2 to the power of scales - 1.
    colors : int
        Channels of the images.
    """

    def __init__(self, width: int, scales: int, colors: int = 3):
        super().__init__()
        self.scales = nn.ModuleList(critic_scale(width, colors) for _ in range(scales))
        self.halve = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the logits (B, 1, h, w) of each scale, the finest first, of images (B, colors, H, W)."""
        logits = []
        for number, critic in enumerate(self.scales):
            image = self.halve(image) if number else image
            logits.append(critic(image))
        return logits
