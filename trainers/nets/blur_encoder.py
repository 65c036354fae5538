"""The blur encoder of disentangled deblurring (Lu et al. 2019): how an image is blurred, as a short code."""

from torch import Tensor, nn

from trainers.blocks import Float32Linear, reflected_conv


class DownBlock(nn.Module):
    """A pre-activation residual block that halves height and width and has no norm."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.LeakyReLU(0.2),
            *reflected_conv(inputs, inputs, 3),
            nn.LeakyReLU(0.2),
            *reflected_conv(inputs, outputs, 3),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H/2, W/2)."""
        return self.shortcut(x) + self.residual(x)


class BlurEncoder(nn.Module):
    """Four reductions by two, a mean over the pixels that are left, and two linear heads.

    Norms are left out on purpose: they would take away the contrast by which a blur is told.

    Parameters
    ----------
    width : int
        Channels of the first layer.
    latent : int
        Size of the code.
    colors : int
        Channels of the image.
    """

    def __init__(self, width: int, latent: int, colors: int = 3):
        super().__init__()
        self.features = nn.Sequential(
            *reflected_conv(colors, width, 4, stride=2, padding=1),
            *(DownBlock(times * width, (times + 1) * width) for times in (1, 2, 3)),
            nn.LeakyReLU(0.2),
        )
        self.mean = Float32Linear(4 * width, latent)
        self.log_variance = Float32Linear(4 * width, latent)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, latent), float32, of the code of an image (B, colors, H, W)."""
        pooled = self.features(image).mean((2, 3))
        return self.mean(pooled), self.log_variance(pooled)
