"""The processes of one run, on this machine or on many: who am I, where do I compute, what do we agree on."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from blurgen.commands import Terminated

SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@dataclass(frozen=True)
class Processes:
    """One of the processes that train together.

    Attributes
    ----------
    device : torch.device
        Where this one computes.
    rank, world : int
        Its number, and how many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes what there is to write."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """Return how many images of a batch each process gets."""
        if batch % self.world:
            raise ValueError(f"batch must be a multiple of the {self.world} processes, got {batch}")
        return batch // self.world

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process."""
        if self.world == 1:
            return flag
        flags = torch.tensor([float(flag)])
        dist.all_reduce(flags)
        return bool(flags.item())

    def spread(self, data: bytes | None) -> bytes | None:
        """Return the bytes that the first process gives, in all of them; None where it has none."""
        if self.world == 1:
            return data
        size = torch.tensor([-1 if data is None else len(data)])
        dist.broadcast(size, 0)
        if size.item() < 0:
            return None
        joint = torch.frombuffer(bytearray(data) if self.is_first else bytearray(int(size)), dtype=torch.uint8)
        dist.broadcast(joint, 0)
        return joint.numpy().tobytes()

    def spread_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors on the device by those of the first process."""
        for tensor in tensors if self.world > 1 else ():
            dist.broadcast(tensor, 0)


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Context of the run's processes; with torchrun there are many, else one.

    Parameters
    ----------
    device : str
        "auto", "cpu" or "cuda".

    Raises
    ------
    ValueError
        There is no GPU for "cuda", or fewer than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    chosen = device_named(device, int(os.environ.get("LOCAL_RANK", 0)))
    if world == 1:
        yield Processes(chosen)
        return
    # Flags and states travel through the CPU, so that no step waits for the GPU because of them.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(chosen, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def device_named(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of a process for "auto", "cpu" or "cuda"; raises ValueError where there is no GPU for it."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if local_rank >= available:
        fewer = "start fewer processes, or " if local_rank else ""
        raise ValueError(
            f"--device {name} needs a GPU for each process, and torch finds {available} here: {fewer}use --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


class Stop:
    """Context in which Ctrl-C and SIGTERM are noted, for the end of the step; a second Ctrl-C ends at once.

    Parameters
    ----------
    processes : Processes
        They stop together.
    """

    def __init__(self, processes: Processes):
        self.processes = processes
        self._wanted: type[BaseException] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._noting(error)) for number, error in SIGNALS.items()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Return whether any process shall stop; all must ask after the same step."""
        return self.processes.any(self._wanted is not None)

    def obey(self) -> NoReturn:
        """Raise what the signal stands for."""
        raise self._wanted or Terminated

    def _noting(self, error: type[BaseException]) -> Callable:
        def note(*_: Any) -> None:
            # torchrun passes on a Ctrl-C that the terminal has sent already, and ends who is late itself.
            if self._wanted is not None and self.processes.world == 1:
                raise error
            self._wanted = error
            # print may be at work below this handler.
            os.write(2, b"\nfinishing the step, and saving\n")

        return note


def device_name(device: torch.device) -> str:
    """Return what the device is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def peak_memory_mib(device: torch.device) -> int:
    """Return the most memory that was in use: on a GPU by tensors, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
