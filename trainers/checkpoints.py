"""Training states on the disk: each whole or absent, checked when read, the newest few kept."""

import io
import pickle
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blurgen.shards import write_atomically

STATES = "states"
# torch reads an archive with something behind it.
SEAL_BYTES = 4


class States:
    """The training states of a run, ``states/00001000.pt`` and so on.

    Parameters
    ----------
    run : Path
        The folder of the run.
    keep : int
        How many stay; the older ones are removed.
    """

    def __init__(self, run: Path, keep: int = 2):
        self.folder, self.keep = run / STATES, keep

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state after `step` steps, then remove those that are too many.

        Raises
        ------
        ValueError
            A tensor holds a value that is not finite; nothing is written then.
        """
        broken = first_not_finite(state)
        if broken:
            raise ValueError(f"the run has diverged: {broken} is not finite at step {step}; {self.last_good()}")
        self.folder.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        torch.save(dict(state), stream)
        path = self.folder / f"{step:08d}.pt"
        data, size = stream.getbuffer(), stream.tell()
        seal = zlib.crc32(data).to_bytes(SEAL_BYTES, "little")
        write_atomically(path, [(0, data), (size, memoryview(seal))], size + SEAL_BYTES)
        for old in self.paths()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def paths(self) -> list[Path]:
        """Return the files, the newest first."""
        named = (path for path in self.folder.glob("*.pt") if path.stem.isdecimal())
        return sorted(named, key=lambda path: int(path.stem), reverse=True)

    def last_good(self) -> str:
        """Return the end of a sentence that names the state before a run went wrong, and the way out."""
        newest = next(iter(self.paths()), None)
        kept = f"the last good state is {newest}" if newest else "no state was saved yet"
        return f"{kept}: begin another --out with a lower --lr, with --clip-norm or another --seed"

    def read_newest(self) -> bytes | None:
        """Return the bytes of the newest state that is whole; a damaged one is warned of on stderr.

        Raises
        ------
        ValueError
            There are states, and all are damaged.
        """
        paths = self.paths()
        for path in paths:
            data = path.read_bytes()
            if is_whole(data):
                return data
            print(f"{path} is damaged: the state before it is taken", file=sys.stderr)
        if paths:
            raise ValueError(f"all states in {self.folder} are damaged: name another --out to begin anew")
        return None


def is_whole(data: bytes) -> bool:
    """Return whether the bytes of a state agree with the checksum at their end; torch itself checks none."""
    return zlib.crc32(memoryview(data)[:-SEAL_BYTES]) == int.from_bytes(data[-SEAL_BYTES:], "little") and bool(data)


def parse_state(data: bytes) -> dict[str, Any]:
    """Return a state from its bytes, on the CPU; raises ValueError where it holds more than tensors and values."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"a state holds what no run has written: {str(error).splitlines()[0]}") from error


def tensors_of(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of nested mappings and sequences with its dotted name."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from tensors_of(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, (list, tuple)):
        for number, value in enumerate(state):
            yield from tensors_of(value, f"{name}.{number}")


def first_not_finite(state: Any) -> str | None:
    """Return the name of the first tensor with NaN or infinity, waiting for the device once."""
    named = [(name, tensor) for name, tensor in tensors_of(state) if tensor.is_floating_point() and tensor.numel()]
    flags: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor in named:
        flags.setdefault(tensor.device, []).append((name, tensor.isfinite().all()))
    for group in flags.values():
        good = torch.stack([flag for _, flag in group]).tolist()
        if not all(good):
            return group[good.index(False)][0]
    return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return ``name: was -> is`` for each value that is not the same."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name}: {before.get(name, 'nothing')} -> {now.get(name, 'nothing')}"
        for name in names
        if before.get(name, ...) != now.get(name, ...)
    ]
