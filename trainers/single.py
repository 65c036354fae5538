"""One image as the data of a run, and a blurred one to watch what is learned from it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from blurgen.options import option
from blurgen.sources import BadImage
from blurgen.sources.decode import decode
from blurgen.sources.files import read_whole, with_regular_file
from blurgen.torch import to_unit
from trainers.data import Pair
from trainers.eval_options import NEIGHBOUR, ORACLE
from trainers.method import Batch, CommonConfig
from trainers.noise import Noise

SINGLE = "single"


@dataclass(frozen=True)
class SingleOptions:
    """Where the image of a run comes from."""

    image: Path | None = option(None, "The sharp image to train on, of any format that blurgen reads.")
    test_blurred: Path | None = option(None, "A blurred image to restore while training; with --test-sharp.")
    test_sharp: Path | None = option(None, "What the blurred image should look like; with --test-blurred.")

    def __post_init__(self) -> None:
        """Refuse to train on nothing, and one image of a pair without the other."""
        if self.image is None:
            raise ValueError("--image is missing: this system is trained on one sharp image, name its file")
        if (self.test_blurred is None) != (self.test_sharp is None):
            raise ValueError("--test-blurred and --test-sharp must be given together: give the other one, too")


class Picture(NamedTuple):
    """An image file: its name, its pixels (H, W, 3) uint8 sRGB, and the SHA-256 of its bytes in hexadecimal."""

    name: str
    pixels: np.ndarray
    digest: str


class FewPairs(tuple):
    """Pairs that are held in memory, with what those of shards offer."""

    def limited(self, limit: int | None) -> "FewPairs":
        """Return the first `limit` pairs; None is no limit."""
        return FewPairs(self[:limit])


@dataclass(frozen=True)
class SingleData:
    """The data of a run that learns from one image.

    Attributes
    ----------
    image : Picture
        What is trained on.
    validation : FewPairs
        The pair to watch, if there is one.
    iterations : int
        Steps of an epoch.
    seed : int
        Of the run.
    tested : Picture or None
        The sharp image of that pair.
    dealt : tuple
        Empty: there are no shards.
    """

    image: Picture
    validation: FewPairs
    iterations: int
    seed: int
    tested: Picture | None = None
    dealt: tuple = field(default=(), repr=False)

    @property
    def protocol(self) -> str | None:
        """What a figure of the pair that is watched is worth; None without one."""
        return self.tested and protocol_of(self.image.digest, self.tested.digest)

    def steps_per_epoch(self, batch: int) -> int:
        """Return the steps that one scale is trained for."""
        return self.iterations

    def feed(
        self,
        config: CommonConfig,
        device: torch.device | str = "cpu",
        workers: int = 0,
        resident: str = "auto",
        rank: int = 0,
        world: int = 1,
    ) -> "SingleFeed":
        """Return the batches of process `rank` of `world`; the image always lies on the device."""
        return SingleFeed(self.image.pixels, config.batch, self.seed, torch.device(device), rank, world)

    def roles(self) -> Iterator[tuple[str, str, str]]:
        """Yield (role, SHA-256 in hexadecimal, name) of the image, and of that to compare with."""
        yield "train", self.image.digest, self.image.name
        if self.tested:
            yield "validation", self.tested.digest, self.tested.name

    @property
    def counts(self) -> dict[str, int]:
        """Role -> number of images."""
        return {"train": 1, "validation": len(self.validation)}


class SingleFeed:
    """Batches that hold nothing but one image, as often as the batch has places, and the noise of the step."""

    def __init__(self, pixels: np.ndarray, batch: int, seed: int, device: torch.device, rank: int = 0, world: int = 1):
        if batch % world:
            raise ValueError(f"--batch must be a multiple of the {world} processes of the run, got {batch}")
        self._batch, self._local, self._rank = batch, batch // world, rank
        self._seed, self._device = seed, device
        self._image = to_unit(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).to(device))

    def steps(self, start: int = 0) -> Iterator[Batch]:
        """Return the batches of step `start`, `start` + 1, ... without end."""
        image, step = self._image.expand(self._local, -1, -1, -1), start
        while True:
            first = step * self._batch + self._rank * self._local
            yield Batch(image, image, Noise(self._seed, step, range(first, first + self._local), self._device))
            step += 1

    def close(self) -> None:
        """Hold nothing that must be closed."""

    def __enter__(self) -> "SingleFeed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def protocol_of(trained: str, target: str) -> str:
    """Return "oracle" where the image trained on and the one to be restored have one SHA-256, else "neighbour"."""
    return ORACLE if trained == target else NEIGHBOUR


def open_single(options: SingleOptions, config: Any, seed: int = 0) -> SingleData:
    """Return the data of a run on one image.

    Parameters
    ----------
    options : SingleOptions
    config : Config of a system with `iterations`
    seed : int
        Of the run.

    Raises
    ------
    ValueError
        An image that can't be read (`BadImage`), or a pair of two sizes.
    """
    image = read_picture(options.image, "--image")
    if options.test_blurred is None:
        return SingleData(image, FewPairs(), config.iterations, seed)
    blurred = read_picture(options.test_blurred, "--test-blurred")
    sharp = read_picture(options.test_sharp, "--test-sharp")
    if blurred.pixels.shape != sharp.pixels.shape:
        given = " and ".join(f"{one.pixels.shape[1]}x{one.pixels.shape[0]}" for one in (blurred, sharp))
        raise ValueError(f"--test-blurred and --test-sharp must be of one size, got {given} px")
    pair = Pair(blurred.pixels, sharp.pixels, blurred.name)
    return SingleData(image, FewPairs([pair]), config.iterations, seed, sharp)


def read_picture(path: Path, flag: str) -> Picture:
    """Return the image in a file; raises `BadImage` with the option that named it."""
    try:
        data = with_regular_file(os.fspath(path), read_whole)
        return Picture(path.name, decode(data), sha256(data).hexdigest())
    except BadImage as error:
        raise BadImage(error.reason, f"{flag} {path}: {error}") from error
