"""Shards for PyTorch."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blurgen.shards import Shards, open_shards

try:
    import torch
except ImportError as error:
    raise ImportError(
        "blurgen.torch needs PyTorch, which is not installed: run `pip install torch`, or see pytorch.org"
    ) from error

IMAGE_AXES = 3


class ShardDataset(torch.utils.data.Dataset):
    """Finished shards as a map-style dataset of dicts of tensors, for a DataLoader with any start method.

    Parameters
    ----------
    path : path
        A packed file, a master or a folder of shards.
    arrays : sequence of str, optional
        What to read of each sample, such as ("blurred", "sharp"); everything by default. Less is faster.
    dtype : torch.dtype
        Of the images: ``torch.float32`` in [-1, 1], or ``torch.uint8`` in 0 to 255, which leaves the conversion to the
        device and moves a quarter of the bytes.
    transform : callable, optional
        Applied to each dict; it must be picklable where workers are spawned.

    Raises
    ------
    ValueError
        Arrays that the shards do not hold, or another dtype.

    Notes
    -----
    ``dataset[i]`` holds each image as (3, H, W), sRGB, RGB; ``kernel`` as (k, k) float32 that sums to 1; ``label`` as
    (H, W) uint8 ids; ``prior`` as (K, H/4, W/4) float16; ``transcript`` as (n,) uint8, UTF-8 padded with NULs; and
    ``index``, the int `i`, negative ones counted from the end.

    Examples
    --------
    >>> loader = torch.utils.data.DataLoader(ShardDataset("shards.h5"), 16, shuffle=True)  # doctest: +SKIP
    >>> next(iter(loader))["blurred"].shape  # doctest: +SKIP
    torch.Size([16, 3, 256, 256])
    """

    def __init__(
        self,
        path: str | os.PathLike,
        arrays: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ):
        if dtype not in (torch.float32, torch.uint8):
            raise ValueError(f"dtype must be torch.float32 or torch.uint8, got {dtype}")
        self.shards: Shards = open_shards(path)
        held = self.shards.layout.arrays
        self.arrays = tuple(held if arrays is None else arrays)
        missing = [name for name in self.arrays if name not in held]
        if missing:
            raise ValueError(f"arrays must be among {', '.join(held)}, got {', '.join(missing)}")
        self.dtype, self.transform = dtype, transform

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Any:
        position = range(len(self))[index]
        sample = {name: self._tensor(self.shards.read(name, position)) for name in self.arrays}
        sample["index"] = position
        return self.transform(sample) if self.transform else sample

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if array.dtype != np.uint8 or array.ndim != IMAGE_AXES:
            return tensor
        planes = tensor.permute(2, 0, 1).contiguous()
        return planes if self.dtype == torch.uint8 else to_unit(planes)


def to_unit(levels: torch.Tensor) -> torch.Tensor:
    """Return uint8 levels 0 to 255 as float32 in [-1, 1], on the device they are on."""
    return levels.to(torch.float32).mul_(1 / 127.5).sub_(1)
