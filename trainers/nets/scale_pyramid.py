"""What the scales of SinGAN have in common beside their networks: the noise, and how many of them have begun."""

import torch
from torch import Tensor, nn


class ScaleNoise(nn.Module):
    """Numbers that are not trained, but that the networks mean nothing without.

    Parameters
    ----------
    scales : int
    coarsest : (int, int)
        Height and width of the coarsest scale, px.

    Attributes
    ----------
    fixed : Tensor
        (1, 1, h, w), the noise z* of the coarsest scale that the image is reconstructed from.
    amplitudes : Tensor
        (scales,), the standard deviation sigma of the noise of each scale; 0 before it has begun.
    begun : Tensor
        (), how many scales are trained or have been.
    reached : int
        The same, on the host.
    """

    def __init__(self, scales: int, coarsest: tuple[int, int]):
        super().__init__()
        self.register_buffer("fixed", torch.randn(1, 1, *coarsest))
        self.register_buffer("amplitudes", torch.zeros(scales))
        self.register_buffer("begun", torch.zeros((), dtype=torch.int64))
        self.reached = 0
        self.register_load_state_dict_post_hook(_read_begun)

    def begin(self, amplitude: Tensor) -> None:
        """Let the next scale begin, with noise of this amplitude, ()."""
        self.amplitudes[self.reached] = amplitude
        self.reached += 1
        self.begun.fill_(self.reached)


def _read_begun(noise: ScaleNoise, _: object) -> None:
    noise.reached = int(noise.begun)
