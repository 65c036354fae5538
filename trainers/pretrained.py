"""Weights that others published: read without trusting them, download once, keep what is used in the user's cache."""

import contextlib
import fcntl
import hashlib
import os
import pickle
import re
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from blurgen.shards import write_atomically

SECONDS_OF_SILENCE = 30
CHUNK_BYTES = 1 << 20
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")
_UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, EOFError)


@dataclass(frozen=True)
class Published:
    """A file of weights that its authors published.

    Attributes
    ----------
    url : str
    sha256 : str
        Of the whole file.
    size : int
        Bytes.
    """

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


def cache_folder() -> Path:
    """Return the folder where what was downloaded is kept: ``blurgen`` in XDG_CACHE_HOME, else in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "blurgen"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_name(path: Path, sha256: str) -> None:
    """Raise a ValueError where the name of a file carries the first digits of another SHA-256 than its own."""
    match = _DIGITS_IN_NAME.search(path.name)
    if match and not sha256.startswith(match[1]):
        raise ValueError(
            f"{path} is damaged or misnamed: its SHA-256 starts with {sha256[:8]}, its name says {match[1]}"
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` or a ``torch.save`` file by name; nothing in it is executed.

    Raises
    ------
    ValueError
        A file that is neither, is damaged, or holds anything but tensors; or one made by `write_kept` that has changed.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} is no file of weights, or is damaged: {reason or type(error).__name__}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path} must hold a state dict, names with tensors and nothing else")
    return dict(tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = (file.metadata() or {}).get("sha256")
    if said is not None and said != tensors_sha256(tensors):
        raise ValueError("the tensors do not have the SHA-256 that the file states")
    return tensors


def write_kept(path: Path, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Write tensors with a SHA-256 of their own and where they are from, whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    encoded = save(tensors, {"sha256": tensors_sha256(tensors), "origin": origin})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [(0, encoded)], len(encoded))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal digits, of the names, shapes, types and values of tensors on the CPU."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_named(
    path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], what: str
) -> dict[str, Tensor]:
    """Return those of `tensors` that are `wanted`, as float32; `what` names the network in messages.

    Raises
    ------
    ValueError
        A tensor is missing, has another shape, or holds values that are not finite.
    """
    chosen = {}
    for name, shape in wanted.items():
        if name not in tensors:
            raise ValueError(f"{path} holds no {name}: these are not the weights of {what}")
        if tensors[name].shape != shape:
            raise ValueError(
                f"{path}: {name} must have the shape {tuple(shape)} in {what}, got {tuple(tensors[name].shape)}"
            )
        chosen[name] = tensors[name].float()
        if not chosen[name].isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite")
    return chosen


@contextlib.contextmanager
def downloaded(published: Published) -> Iterator[Path]:
    """Context with the path of the file, fetched and verified; it is gone afterwards.

    Raises
    ------
    OSError
        It can't be fetched, or what arrived is another file; the message is the reason alone.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download.", dir=cache_folder()) as folder:
        path = Path(folder) / published.name
        try:
            _fetch(published, path)
        except (HTTPException, ValueError) as error:
            raise OSError(f"{published.url}: {error}") from error
        yield path


def _fetch(published: Published, path: Path) -> None:
    digest, arrived = hashlib.sha256(), 0
    with urllib.request.urlopen(published.url, timeout=SECONDS_OF_SILENCE) as response, open(path, "wb") as file:
        while arrived <= published.size and (chunk := response.read(CHUNK_BYTES)):
            digest.update(chunk)
            file.write(chunk)
            arrived += len(chunk)
    if arrived != published.size or digest.hexdigest() != published.sha256:
        raise OSError(f"what came from {published.url} is not the published file: its SHA-256 is another")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Context in which no other process of this user downloads, so that processes of one run fetch a file once."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with open(cache_folder() / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
