"""How much memory a network will need for an image, told before it is run, and how much there is."""

import contextlib
import copy
import os
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers.method import Restorer
from trainers.noise import Noise

# More memory makes nothing faster on a CPU; and other programs want theirs.
MOST_OF_RAM_BYTES = 6 << 30
SHARE_OF_RAM, SHARE_OF_GPU = 0.5, 0.8
# Beside the tensors: code that is loaded late, and what the allocator does not give back. Measured.
OVERHEAD_BYTES, OVERHEAD_SHARE = 200 << 20, 0.1


class _LiveBytes(TorchDispatchMode):
    """Context that counts the bytes of all tensors that are made in it and still alive, and their peak.

    Tensors that share a storage are counted once. Sums are kept by the storages' addresses, which serve on the meta
    device, too, where there is nothing to measure because nothing is computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        if func is torch.ops.aten.convolution.default:
            # Both are copied into blocks of channels for the time of the convolution.
            self.peak = max(self.peak, self._now + args[0].nbytes + result.nbytes)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._users:
            self._now += size
            self.peak = max(self.peak, self._now)
        self._users[key] = self._users.get(key, 0) + 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._now -= size


def meta_twin(module: nn.Module) -> Any:
    """Return a copy of a module on the meta device; its weights are not copied on the way."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors})


class _Sizes(Noise):
    """Random numbers without values."""

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        return torch.empty(len(self.samples), *shape, device=self.device)


def activation_bytes(restorer: Restorer, height: int, width: int, dropping: bool = False) -> int:
    """Return the peak of the feature maps of `restorer` on one image of a size that is a multiple of its own, float32.

    With `dropping` a dropout is drawn and applied.

    Nothing is computed: the pass runs on the meta device, whose tensors have sizes alone.
    """
    twin, nowhere = meta_twin(restorer), torch.device("meta")
    with torch.no_grad(), _LiveBytes() as live:
        image = torch.empty(1, restorer.channels, height, width, device=nowhere)
        twin.restore_dropping(image, _Sizes(0, 0, (0,), nowhere)) if dropping else twin(image)
    return live.peak


def whole_image_bytes(restorer: Restorer, height: int, width: int, dropping: bool = False) -> int:
    """Return what a pass over the whole image needs beside the weights and what was there before: a bound."""
    return int((1 + OVERHEAD_SHARE) * activation_bytes(restorer, height, width, dropping)) + OVERHEAD_BYTES


def weight_bytes(module: nn.Module) -> int:
    """Return the size of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def usable_bytes(device: torch.device) -> int:
    """Return how much memory may be used: of a GPU four fifths of what is free, else half of it, but at most 6 GiB."""
    if device.type == "cuda":
        return int(SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0])
    return min(MOST_OF_RAM_BYTES, int(SHARE_OF_RAM * min(_available_bytes(), _bytes_below_limit())))


def _available_bytes() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    # Elsewhere than on Linux: what is installed, of which a quarter may well be in use.
    return int(0.75 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else 4 << 30


def _bytes_below_limit() -> int:
    """Return what is left below the limit of this process' control group, as in a container; very much without one."""
    for limit, current in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            return max(0, int(Path(limit).read_text()) - int(Path(current).read_text()))
    return 1 << 62
