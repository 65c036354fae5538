"""How the images of training get to the device in time: read ahead by threads, or held there."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakSet

import cv2
import numpy as np
import torch
from torch import Tensor

from blurgen.torch import to_unit
from trainers.method import Batch
from trainers.noise import Noise
from trainers.order import Images, Order

RESIDENT = ("auto", "on", "off")
# Of the free memory of a GPU, what the images may take when nobody says so: training needs the rest.
RESIDENT_SHARE = 0.5

_LOADED_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Domain:
    """The images of one side, or their maps, the order in which they are seen, and the side of their crops in px."""

    images: Images
    order: Order
    crop: int

    def upright(self, stored: Any) -> Any:
        """Return a view (..., S, S, C) of stored images or maps, an array or a tensor."""
        if self.images.array == "label":
            return stored[..., None]
        if self.images.array == "prior":
            return torch.movedim(stored, -3, -1) if isinstance(stored, Tensor) else np.moveaxis(stored, -3, -1)
        return stored


class Span(NamedTuple):
    """The positions that one process sees in a step: `local` of the `batch` of all processes, from `offset` on."""

    batch: int
    offset: int
    local: int

    def start(self, step: int) -> int:
        """Return the first position of a step."""
        return step * self.batch + self.offset


class Feed:
    """Batches for one process of a run.

    What a step sees is a pure function of the seed and the step: it depends neither on `workers` and `resident`, nor
    on the number of processes, nor on where the run was resumed.

    Parameters
    ----------
    domains : (Domain, Domain) or (Domain, Domain, Domain, Domain)
        The sharp and the blurred side; and the maps of both that guide a system, in the orders of their images.
    batch : int
        Images of each side in a step, over all processes together.
    seed : int
        Of the run, for the noise of the steps.
    device : torch.device
        Where the batches lie.
    workers : int
        Threads that read ahead; 0 reads when a batch is asked for.
    resident : str
        "on" loads all images into the memory of the device first; "auto" does so on a GPU where they take at most
        half of what is free there, and not on the CPU, where the system keeps what was read as it is; "off" reads step
        by step.
    rank, world : int
        Number of this process, and of all.

    Attributes
    ----------
    resident : bool
        Whether the images lie in the memory of the device.

    Raises
    ------
    ValueError
        A batch that the processes cannot share evenly, or images that do not fit where they shall be resident.
    """

    def __init__(
        self,
        domains: tuple[Domain, ...],
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
        workers: int = 2,
        resident: str = "auto",
        rank: int = 0,
        world: int = 1,
    ):
        if batch % world:
            raise ValueError(f"--batch must be a multiple of the {world} processes of the run, got {batch}")
        if workers < 0:
            raise ValueError(f"--workers must be at least 0, got {workers}")
        local = batch // world
        self._factors = [domain.images.factor for domain in domains]
        self.seed, self.device, self.span = seed, torch.device(device), Span(batch, rank * local, local)
        self.resident = shall_be_resident([domain.images for domain in domains], self.device, resident)
        held = [load(domain.images, self.device) for domain in domains] if self.resident else None
        if held and self.device.type != "cpu":
            self._store: HeldOnDevice | Reader = HeldOnDevice(domains, self.span, held)
        else:
            self._store = Reader(domains, self.span, self.device, workers, held and [one.numpy() for one in held])
        self._running: WeakSet[Iterator] = WeakSet()

    def steps(self, start: int = 0) -> Iterator[Batch]:
        """Return the batches of step `start`, `start` + 1, ... without end."""
        batches = self._batches(start)
        self._running.add(batches)
        return batches

    def close(self) -> None:
        """End what `steps` returned, and the threads behind it."""
        for batches in list(self._running):
            batches.close()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batches(self, start: int) -> Iterator[Batch]:
        with closing(self._store.steps(start)) as steps:
            for step, (sharp, blurred, *guides) in enumerate(steps, start):
                first = self.span.start(step)
                noise = Noise(self.seed, step, range(first, first + self.span.local), self.device)
                spread = (_spread(guide, factor) for guide, factor in zip(guides, self._factors[2:], strict=True))
                yield Batch(to_unit(sharp), to_unit(blurred), noise, *spread)


def _spread(guide: Tensor, factor: int) -> Tensor:
    """Return maps (B, C, s, s) as float32 (B, C, factor s, factor s), each value in a square of its own."""
    return guide.float().repeat_interleave(factor, 2).repeat_interleave(factor, 3) if factor > 1 else guide.float()


class HeldOnDevice:
    """Crops out of images or maps `held`, (n, ...) for each domain, that the device holds."""

    def __init__(self, domains: Sequence[Domain], span: Span, held: Sequence[Tensor]):
        self.domains, self.span, self.held = domains, span, held

    def steps(self, start: int) -> Iterator[list[Tensor]]:
        """Yield the crops (B, C, crop, crop) of each domain, from step `start` on."""
        step = start
        while True:
            yield [self._cut_out(step, *side) for side in zip(self.domains, self.held, strict=True)]
            step += 1

    def _cut_out(self, step: int, domain: Domain, held: Tensor) -> Tensor:
        cuts = domain.order.cuts(self.span.start(step), self.span.local)
        rows, y, x, flip = torch.from_numpy(np.stack(cuts)).to(held.device)
        along = torch.arange(domain.crop, device=held.device)
        down = y[:, None] // domain.images.factor + along
        right = x[:, None] // domain.images.factor + torch.where(flip[:, None] > 0, along.flip(0), along)
        crops = domain.upright(held)[rows[:, None, None], down[:, :, None], right[:, None, :]]
        # Strides that run along the colours would follow the batch into the networks.
        return crops.permute(0, 3, 1, 2).contiguous()


class Reader:
    """Crops read from the shards, or from images or maps `held` (n, ...) in memory, by threads that read ahead."""

    def __init__(
        self,
        domains: Sequence[Domain],
        span: Span,
        device: torch.device,
        workers: int,
        held: Sequence[np.ndarray] | None = None,
    ):
        self.domains, self.span, self.device, self.workers, self.held = domains, span, device, workers, held

    def steps(self, start: int) -> Iterator[list[Tensor]]:
        """Yield the crops (B, C, crop, crop) of each domain on the device, from step `start` on."""
        if self.workers:
            yield from self._ahead(start)
        step, places = start, self._places()
        while True:
            yield self.fill(step, places).on_device()
            step += 1

    def _ahead(self, start: int) -> Iterator[list[Tensor]]:
        # One step is in use, one ready, and one in the hands of each thread.
        depth = self.workers + 2
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="feed")
        try:
            waiting = deque(pool.submit(self.fill, start + ahead, self._places()) for ahead in range(depth))
            step = start + depth
            while True:
                places = waiting.popleft().result()
                crops = places.on_device()
                waiting.append(pool.submit(self.fill, step, places))
                step += 1
                yield crops
        finally:
            pool.shutdown(cancel_futures=True)

    def _places(self) -> "Places":
        kinds = [
            ((self.span.local, domain.images.channels, domain.crop, domain.crop), domain.images.item.dtype)
            for domain in self.domains
        ]
        return Places(kinds, self.device)

    def fill(self, step: int, places: "Places") -> "Places":
        """Return `places` with the crops of a step in it."""
        places.wait()
        for side, (domain, out) in enumerate(zip(self.domains, places.arrays, strict=True)):
            cuts = domain.order.cuts(self.span.start(step), self.span.local)
            whole = np.empty(domain.images.item.shape, domain.images.item.dtype)
            for row, y, x, flip, place in zip(*(column.tolist() for column in cuts), out, strict=True):
                image = self.held[side][row] if self.held else domain.images.read(row, whole)
                y, x = y // domain.images.factor, x // domain.images.factor
                crop = domain.upright(image)[y : y + domain.crop, x : x + domain.crop]
                place[:] = (_mirrored(crop) if flip else crop).transpose(2, 0, 1)
        return places


def _mirrored(crop: np.ndarray) -> np.ndarray:
    # NumPy takes 25 times as long to mirror pixels of three bytes.
    return cv2.flip(crop, 1) if crop.dtype == np.uint8 and crop.shape[2] == 3 else crop[:, ::-1]


class Places:
    """Room for the crops of one step, of a shape and dtype of `kinds` each, pinned where they go on to a GPU."""

    def __init__(self, kinds: Sequence[tuple[tuple[int, ...], np.dtype]], device: torch.device):
        self.device, cuda = device, device.type == "cuda"
        self.tensors = [torch.empty(shape, dtype=_torch_dtype(dtype), pin_memory=cuda) for shape, dtype in kinds]
        self.arrays = [tensor.numpy() for tensor in self.tensors]
        self._left = torch.cuda.Event() if cuda else None

    def on_device(self) -> list[Tensor]:
        """Return copies of the crops on the device."""
        copies = [tensor.to(self.device, non_blocking=True, copy=True) for tensor in self.tensors]
        if self._left:
            self._left.record(torch.cuda.current_stream(self.device))
        return copies

    def wait(self) -> None:
        """Wait until the last copies have been made, so that the places may be written to."""
        if self._left:
            self._left.synchronize()


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def load(images: Images, device: torch.device) -> Tensor:
    """Return all images or maps, (n, ...) as they are stored, in the memory of the device."""
    shape, dtype = images.item.shape, _torch_dtype(images.item.dtype)
    held = torch.empty((len(images), *shape), dtype=dtype, device=device)
    staged = torch.empty((_LOADED_AT_ONCE, *shape), dtype=dtype, pin_memory=device.type == "cuda")
    for start in range(0, len(images), _LOADED_AT_ONCE):
        rows = range(start, min(start + _LOADED_AT_ONCE, len(images)))
        for row, place in zip(rows, staged.numpy(), strict=False):
            images.read(row, place)
        held[rows.start : rows.stop] = staged[: len(rows)]
    return held


def shall_be_resident(images: Sequence[Images], device: torch.device, resident: str) -> bool:
    """Tell whether all images shall lie in the memory of the device; `Feed` says what `resident` means."""
    if resident not in RESIDENT:
        raise ValueError(f"--resident must be one of {', '.join(RESIDENT)}, got {resident!r}")
    if device.type != "cuda" or resident == "off":
        return resident == "on"
    needed, free = sum(one.nbytes for one in images), torch.cuda.mem_get_info(device)[0]
    if resident == "on" and needed > free:
        raise ValueError(
            f"--resident on needs {needed / 2**30:.1f} GiB for the images, and {free / 2**30:.1f} GiB are free on "
            f"{device}: use --resident off"
        )
    return resident == "on" or needed <= RESIDENT_SHARE * free
