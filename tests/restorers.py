"""Small restorers with random weights, and photographs to try them on."""

import numpy as np
import torch
from torch import nn
from trainer_data import SYSTEMS

from trainers.blocks import InstanceNorm, LayerNorm, ResidualBlock, doubling_conv, reflected_conv
from trainers.method import Restorer
from trainers.models import method_class


def restorer_of(name, width=4):
    """Return the restorer of a system; biases are random, too, so that nothing cancels."""
    system = method_class(name)
    return _shaken(system.Restorer(system.Config(width=width)))


def _shaken(restorer, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in restorer.requires_grad_(False).parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(drawn / max(1, parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.2 * drawn + 0.5)
    return restorer.eval()


class Enlarging(Restorer):
    """Doubles height and width; takes sizes that are multiples of 2."""

    multiple, scale = 2, 2

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *reflected_conv(3, 6, 3),
            InstanceNorm(),
            nn.LeakyReLU(0.2),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            InstanceNorm(),
            ResidualBlock(8),
            doubling_conv(8, 6),
            LayerNorm(6),
            nn.ReLU(inplace=True),
            doubling_conv(6, 3),
            nn.Tanh(),
        )

    def restore(self, blurred, z=None):
        return self.layers(blurred)


SMALL = {name: lambda name=name: restorer_of(name) for name in SYSTEMS} | {"enlarging": lambda: _shaken(Enlarging())}


def photograph(height, width, dtype=np.uint8, channels=3):
    """Return smooth colours, an edge, a flat corner and some noise."""
    rng = np.random.default_rng([height, width])
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + band)) + np.cos(columns / (9 - band)) for band in range(channels)]
    image = 0.5 + 0.2 * np.stack(waves, axis=-1) + rng.normal(0, 0.02, (height, width, channels))
    image[: height // 3, : width // 3] = 0.9
    image[height // 2 :, width // 2 :] *= 0.4
    return (image.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)
