"""A pool of past fakes, so that a critic does not forget what generators made before (Shrivastava et al. 2017)."""

import torch
import torch.distributed
from torch import Tensor

from trainers.noise import Noise


class ImagePool:
    """The last `size` generated images, in part: while full, each new image replaces a stored one half of the time.

    All processes of a run hold the same pool: it takes in the images of all of them, in the order of the samples.

    Parameters
    ----------
    size : int
        Images held; 0 hands every image back as it is.
    """

    def __init__(self, size: int):
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor, noise: Noise, purpose: str) -> Tensor:
        """Return (B, C, H, W): each of `images` as it is or, half of the time, an older one whose place it takes."""
        if not self.size:
            return images.detach()
        draws = noise.uniform(purpose, 2)
        everywhere, draws = _gather(images.detach()), _gather(draws).tolist()
        chosen = torch.stack([self._exchange(image, *draw) for image, draw in zip(everywhere, draws, strict=True)])
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return chosen[rank * len(images) : (rank + 1) * len(images)]

    def _exchange(self, image: Tensor, chance: float, place: float) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if chance < 0.5:
            return image
        index = int(place * self.size)
        old, self.images[index] = self.images[index], image.clone()
        return old

    def state(self) -> list[Tensor]:
        """Return the images held."""
        return self.images

    def load_state(self, images: list[Tensor], device: torch.device) -> None:
        """Hold `images` instead."""
        self.images = [image.to(device) for image in images]


def _gather(part: Tensor) -> Tensor:
    """Return the parts of all processes, joined in the order of their ranks."""
    if not torch.distributed.is_initialized():
        return part
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)
