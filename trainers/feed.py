"""The batches of training: which images, crops and flips a step sees, and how they get to the device in time."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from blurgen.rng import stream
from blurgen.shards import Shards
from blurgen.torch import to_unit
from trainers.method import Batch, MethodConfig
from trainers.noise import Noise

RESIDENT = ("auto", "on", "off")
# Of the free memory of a GPU, what the images may take when nobody says so: networks and activations need the rest.
RESIDENT_SHARE = 0.5

_BLOCK = 1024
_LOADED_AT_ONCE = 64


@dataclass(frozen=True)
class Images:
    """The images of one domain: the array `array` of the samples `samples` (n,) of `shards`."""

    shards: Shards
    array: str
    samples: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def side(self) -> int:
        """Side of an image in px."""
        return self.shards.layout.arrays[self.array].shape[0]

    @property
    def factor(self) -> int:
        """How many times smaller it is than the images at full resolution."""
        return self.shards.layout.crop // self.side

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return len(self) * self.side**2 * 3

    def read(self, row: int, out: np.ndarray) -> None:
        """Read image `row`, (side, side, 3) uint8 sRGB, into `out`."""
        self.shards.read(self.array, int(self.samples[row]), out)


class Cuts(NamedTuple):
    """What is cut out of which image, (B,) each: its row, the upper left corner in px at full resolution, mirrored."""

    rows: np.ndarray
    y: np.ndarray
    x: np.ndarray
    flip: np.ndarray


class Order:
    """The endless sequence of cuts of one domain, a pure function of (seed, name, position).

    It is a chain of passes, each a permutation of all images. A position's crop and flip do not depend on its image.

    Parameters
    ----------
    seed : int
    name : str
        Of the domain; the two sides of a pair share one Order.
    count : int
        Number of images.
    slack : int
        Side of the images minus that of the crops, px at full resolution.
    grid : int
        Corners are multiples of it, so that low-resolution variants can be cut at the same place.
    flips : bool
        Whether crops are mirrored at random.
    """

    def __init__(self, seed: int, name: str, count: int, slack: int, grid: int, flips: bool):
        self.seed, self.name, self.count = seed, name, count
        self.slack, self.grid, self.flips = slack, grid, flips
        # Reader threads are at most a few steps apart.
        self._permutation = lru_cache(maxsize=3)(self._permutation)
        self._draws = lru_cache(maxsize=8)(self._draws)

    def cuts(self, start: int, count: int) -> Cuts:
        """Return the cuts at positions `start` to `start + count`."""
        positions = np.arange(start, start + count)
        rows = self._gathered(self._permutation, self.count, positions)
        draws = self._gathered(self._draws, _BLOCK, positions)
        corners = (draws[:, :2] * (self.slack // self.grid + 1)).astype(np.int64) * self.grid
        return Cuts(rows, corners[:, 0], corners[:, 1], (draws[:, 2] < 0.5) & self.flips)

    def _permutation(self, number: int) -> np.ndarray:
        return stream(self.seed, self.name, "order", number).permutation(self.count)

    def _draws(self, number: int) -> np.ndarray:
        """Return the random numbers of one block of positions: to make a stream for each costs more than its use."""
        return stream(self.seed, self.name, "cut", number).random((_BLOCK, 3))

    @staticmethod
    def _gathered(of_block, size: int, positions: np.ndarray) -> np.ndarray:
        blocks, places = np.divmod(positions, size)
        parts = [of_block(int(block))[places[blocks == block]] for block in np.unique(blocks)]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Domain:
    """The images of one side and the order in which they are seen."""

    images: Images
    order: Order


class Feed:
    """Batches for one process of a run, read ahead by threads or cut out of images that the device holds.

    What a step sees is a pure function of the seed and the step: it does not depend on `workers`, `resident`, the
    number of processes, or where the run was resumed.

    Parameters
    ----------
    sharp, blurred : Domain
    config : MethodConfig
        Its ``batch`` (over all processes together) and ``crop`` are used.
    seed : int
        Of the run, for the noise of the steps.
    device : torch.device
        Where the batches lie.
    workers : int
        Threads that read ahead; 0 reads when a batch is asked for.
    resident : str
        "on" loads all images into the memory of the device first; "auto" does so on a GPU where they take at most
        half of its free memory (on the CPU, the system's cache of the file is as good); "off" reads batch by batch.
    rank, world : int
        Number of this process and of all.

    Raises
    ------
    ValueError
        A batch that the processes cannot share evenly, or images that do not fit where they should be resident.
    """

    def __init__(
        self,
        sharp: Domain,
        blurred: Domain,
        config: MethodConfig,
        seed: int,
        device: torch.device | str = "cpu",
        workers: int = 2,
        resident: str = "auto",
        rank: int = 0,
        world: int = 1,
    ):
        if config.batch % world:
            raise ValueError(
                f"batch must be a multiple of the {world} processes of the run, got {config.batch}: change --batch"
            )
        self.seed, self.batch, self.local = seed, config.batch, config.batch // world
        self.device, self.workers, self.rank = torch.device(device), workers, rank
        self.domains = (sharp, blurred)
        self._sides = tuple(config.crop // domain.images.factor for domain in self.domains)
        self._pools: list[ThreadPoolExecutor] = []
        self._stores: list[Tensor] | None = None
        self.resident = _fits([domain.images for domain in self.domains], self.device, resident)
        if self.resident:
            self._stores = [_loaded(domain.images, self.device) for domain in self.domains]

    def steps(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of step `start`, `start` + 1, ... without end."""
        levels = self._cut_out(start) if self.resident else self._read_ahead(start)
        for step, (sharp, blurred) in enumerate(levels, start):
            first = self._first(step)
            noise = Noise(self.seed, step, range(first, first + self.local), self.device)
            yield Batch(to_unit(sharp), to_unit(blurred), noise)

    def close(self) -> None:
        """End the threads; what `steps` returned before yields no further batch."""
        while self._pools:
            self._pools.pop().shutdown(cancel_futures=True)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _first(self, step: int) -> int:
        """Return the position of this process' first sample in a step."""
        return step * self.batch + self.rank * self.local

    def _cuts(self, step: int) -> list[Cuts]:
        return [domain.order.cuts(self._first(step), self.local) for domain in self.domains]

    def _cut_out(self, start: int) -> Iterator[list[Tensor]]:
        """Yield (B, 3, crop, crop) uint8 of both sides, cut out on the device."""
        step = start
        while True:
            pairs = zip(self.domains, self._stores, self._sides, self._cuts(step), strict=True)
            yield [_cut(store, cuts, domain.images.factor, side) for domain, store, side, cuts in pairs]
            step += 1

    def _read_ahead(self, start: int) -> Iterator[list[Tensor]]:
        """Yield (B, 3, crop, crop) uint8 of both sides on the device, read from the shards."""
        depth = self.workers + 2 if self.workers else 1
        buffers = [Buffers(self.local, self._sides, self.device) for _ in range(depth)]
        if not self.workers:
            step = start
            while True:
                self._fill(step, buffers[0])
                yield buffers[0].on_device()
                step += 1
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="feed")
        self._pools.append(pool)
        try:
            waiting: deque[Future] = deque()
            for number, into in enumerate(buffers):
                waiting.append(pool.submit(self._fill, start + number, into))
            step = start + depth
            while True:
                into = waiting.popleft().result()
                levels = into.on_device()
                waiting.append(pool.submit(self._fill, step, into))
                step += 1
                yield levels
        finally:
            pool.shutdown(cancel_futures=True)

    def _fill(self, step: int, into: "Buffers") -> "Buffers":
        into.wait()
        for domain, cuts, out in zip(self.domains, self._cuts(step), into.arrays, strict=True):
            images, side = domain.images, out.shape[1]
            whole = np.empty((images.side, images.side, 3), np.uint8)
            for place, (row, y, x, flip) in enumerate(zip(*(column.tolist() for column in cuts), strict=True)):
                images.read(row, whole)
                y, x = y // images.factor, x // images.factor
                part = whole[y : y + side, x : x + side]
                if flip:
                    cv2.flip(part, 1, out[place])
                else:
                    out[place] = part
        return into


class Buffers:
    """Room for the crops of one step of both sides, pinned where they go to a GPU."""

    def __init__(self, count: int, sides: Sequence[int], device: torch.device):
        self.device, self.cuda = device, device.type == "cuda"
        self.tensors = [torch.empty((count, side, side, 3), dtype=torch.uint8, pin_memory=self.cuda) for side in sides]
        self.arrays = [tensor.numpy() for tensor in self.tensors]
        self._copied = torch.cuda.Event() if self.cuda else None

    def on_device(self) -> list[Tensor]:
        """Return the crops (B, 3, side, side) on the device, copies."""
        levels = [_planes(tensor.to(self.device, non_blocking=True)) for tensor in self.tensors]
        if self._copied:
            self._copied.record(torch.cuda.current_stream(self.device))
        return levels

    def wait(self) -> None:
        """Wait until the crops have reached the device, so that they may be overwritten."""
        if self._copied:
            self._copied.synchronize()


def _planes(levels: Tensor) -> Tensor:
    """Return (B, H, W, 3) as (B, 3, H, W), a copy that is contiguous: strides would follow the image into the nets."""
    return levels.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def _cut(store: Tensor, cuts: Cuts, factor: int, side: int) -> Tensor:
    """Return the crops (B, 3, side, side) uint8 out of `store` (n, S, S, 3)."""
    rows, y, x, flip = torch.from_numpy(np.stack(cuts)).to(store.device)
    along = torch.arange(side, device=store.device)
    down = y[:, None] // factor + along
    right = x[:, None] // factor + torch.where(flip[:, None] > 0, side - 1 - along, along)
    return _planes(store[rows[:, None, None], down[:, :, None], right[:, None, :]])


def _fits(images: Sequence[Images], device: torch.device, resident: str) -> bool:
    """Tell whether the images shall lie in the memory of the device."""
    if resident not in RESIDENT:
        raise ValueError(f"resident must be one of {', '.join(RESIDENT)}, got {resident!r}")
    if device.type != "cuda" or resident == "off":
        return resident == "on"
    # Both sides of a pair may be one array.
    needed, free = sum(one.nbytes for one in images), torch.cuda.mem_get_info(device)[0]
    if resident == "on" and needed > free:
        raise ValueError(
            f"the images take {needed / 2**30:.1f} GiB and {device} has {free / 2**30:.1f} GiB free: use --resident off"
        )
    return resident == "on" or needed <= RESIDENT_SHARE * free


def _loaded(images: Images, device: torch.device) -> Tensor:
    """Return all images (n, side, side, 3) uint8 on the device."""
    shape = (images.side, images.side, 3)
    store = torch.empty((len(images), *shape), dtype=torch.uint8, device=device)
    staged = torch.empty((_LOADED_AT_ONCE, *shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start in range(0, len(images), _LOADED_AT_ONCE):
        count = min(_LOADED_AT_ONCE, len(images) - start)
        for place in range(count):
            images.read(start + place, staged[place].numpy())
        store[start : start + count] = staged[:count]
    return store


def steps_per_epoch(batch: int, *counts: int) -> int:
    """Return the steps in which the largest of the domains is seen once."""
    return math.ceil(max(counts) / batch)
