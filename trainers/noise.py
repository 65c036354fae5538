"""Random tensors that depend on what they are for, never on when, where or beside what they are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

ALL = "all"


@dataclass(frozen=True)
class Noise:
    """The random numbers of one step: each sample of the batch has streams of its own.

    A stream is keyed by (seed, step, global sample, purpose). A resumed run therefore draws what it would have drawn,
    and two processes with half the batch each draw what one process with the whole batch draws.

    Parameters
    ----------
    seed : int
        Seed of the run.
    step : int
        Number of the step, from 0.
    samples : sequence of int
        Global numbers of the samples in this process' part of the batch.
    device : torch.device
        Where the tensors lie. Numbers differ between kinds of device.

    Examples
    --------
    >>> noise = Noise(seed=0, step=3, samples=(0, 1), device=torch.device("cpu"))
    >>> noise.normal("latent", 8).shape
    torch.Size([2, 8])
    >>> other = Noise(seed=0, step=3, samples=(1,), device=torch.device("cpu"))
    >>> bool((noise.normal("latent", 8)[1] == other.normal("latent", 8)[0]).all())
    True
    """

    seed: int
    step: int
    samples: Sequence[int]
    device: torch.device

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Return (B, *shape) float32 numbers from N(0, 1)."""
        drawn = torch.empty(len(self.samples), *shape, device=self.device)
        for row, sample in zip(drawn, self.samples, strict=True):
            row.normal_(generator=self._generator(purpose, sample))
        return drawn

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Return (B, *shape) float32 numbers from [0, 1)."""
        drawn = torch.empty(len(self.samples), *shape, device=self.device)
        for row, sample in zip(drawn, self.samples, strict=True):
            row.uniform_(generator=self._generator(purpose, sample))
        return drawn

    def kept(self, purpose: str, rate: float, *shape: int) -> Tensor:
        """Return (B, *shape) bool, false with the probability `rate`: what a dropout keeps."""
        return self.uniform(purpose, *shape) >= rate

    def common(self, purpose: str, *shape: int) -> Tensor:
        """Return (*shape) float32 numbers from [0, 1) that the samples of all processes have in common."""
        drawn = torch.empty(shape, device=self.device)
        return drawn.uniform_(generator=self._generator(purpose, ALL))

    def _generator(self, purpose: str, sample: int | str) -> torch.Generator:
        digest = blake2b(repr((self.seed, self.step, sample, purpose)).encode(), digest_size=8).digest()
        # Seeds of a Generator are signed on the way through Python.
        return torch.Generator(self.device).manual_seed(int.from_bytes(digest, "little") >> 1)
