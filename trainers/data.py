"""Shards as the data of a run: its training images, its validation and test pairs, and who is what."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from blurgen.options import option
from blurgen.shards import Shards, open_shards
from blurgen.words import text_of
from trainers.feed import Domain, Feed
from trainers.method import MethodConfig
from trainers.order import Images, Order
from trainers.splits import BLURRED_SIDE, PAIRED, UNPAIRED, all_but_test, deal, refuse_shared, samples_of, text

PAIRINGS = ("unpaired", "paired")
ARRAYS = ("sharp", "blurred")
SHARDS = Path("shards.h5")
# How shards with the maps that may guide a system are made.
GUIDES = {"label": "blurgen make --labels", "prior": "blurgen make --priors DIR"}


@dataclass(frozen=True)
class DataOptions:
    """Where the images of a run come from."""

    data: Path = option(SHARDS, "Shards of `blurgen make`: a file or a folder.")
    sharp: Path | None = option(None, "Shards to take the sharp images from, in place of --data; with --blurred.")
    blurred: Path | None = option(None, "Shards to take the blurred images from, in place of --data; with --sharp.")

    def __post_init__(self) -> None:
        """Refuse one side without the other."""
        if (self.sharp is None) != (self.blurred is None):
            raise ValueError("--sharp and --blurred must be given together: give the other one, too, or --data")
        if self.sharp is not None and self.data != SHARDS:
            raise ValueError(f"--sharp and --blurred stand in place of --data {self.data}: leave one or the others out")


class Pair(NamedTuple):
    """A blurred image and what it should look like, (H, W, 3) uint8 sRGB each.

    `key` is that of the source, followed by ``#`` and the number of the crop where sources have several; `transcript`
    is what is written in it, where shards keep that; `guide` the map that guides a system, as `PaddedImage` takes it.
    """

    blurred: np.ndarray
    sharp: np.ndarray
    key: str
    transcript: str | None = None
    guide: np.ndarray | None = None

    @property
    def guiding(self) -> dict[str, np.ndarray]:
        """What is said of the guide where the blurred image is restored: nothing where there is none."""
        return {} if self.guide is None else {"guide": self.guide}


class PairSet(Sequence):
    """Pairs to measure with: ``len(pairs)``, ``pairs[i]``, iteration.

    Parameters
    ----------
    shards : Shards
    samples : ndarray (n,)
        Numbers of its samples.
    arrays : (str, str) or (str, str, str)
        Names of the sharp and the blurred images, and of the maps that guide.
    """

    def __init__(self, shards: Shards, samples: np.ndarray, arrays: tuple[str, ...] = ARRAYS):
        self.shards, self.samples, self.arrays = shards, samples, arrays
        self._crops = bool(shards.meta["crop"].any())

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Pair:
        """Return pair `index`; a slice gives a PairSet."""
        if isinstance(index, slice):
            return PairSet(self.shards, self.samples[index], self.arrays)
        sample = int(self.samples[index])
        sharp, blurred, *guides = (self.shards.read(name, sample) for name in self.arrays)
        meta = self.shards.meta[sample]
        key = text(self.shards.sources["key"][meta["source"]])
        said = text_of(self.shards.read("transcript", sample)) if "transcript" in self.shards.layout.arrays else None
        return Pair(blurred, sharp, f"{key}#{meta['crop']}" if self._crops else key, said, next(iter(guides), None))

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def limited(self, limit: int | None) -> "PairSet":
        """Return at most `limit` pairs, spread evenly over all; None is no limit."""
        if limit is None or limit >= len(self):
            return self
        return PairSet(self.shards, self.samples[np.arange(limit) * len(self) // limit], self.arrays)


@dataclass(frozen=True)
class Data:
    """The data of a run.

    Attributes
    ----------
    sharp, blurred : Images
        The training images of both sides; of the same samples where they are paired.
    validation, test : PairSet
        What `best` is chosen on, and what the final figures are of; empty where there are no pairs.
    pairing : str
        "unpaired" or "paired".
    seed : int
        Order, crops and flips depend on it, roles do not.
    dealt : tuple of (Shards, dict)
        For each file, role -> rows of its sources.
    guide : str or None
        Name of the maps of both sides that guide the system.
    """

    sharp: Images
    blurred: Images
    validation: PairSet
    test: PairSet
    pairing: str
    seed: int
    dealt: tuple[tuple[Shards, dict[str, np.ndarray]], ...]
    guide: str | None = None
    # Of interest where a system is trained on one image.
    protocol: ClassVar[str | None] = None

    @property
    def classes(self) -> int:
        """Classes of the probability maps, 0 where shards hold none."""
        return self.blurred.shards.layout.prior

    def steps_per_epoch(self, batch: int) -> int:
        """Return the steps in which the larger side is seen once."""
        return math.ceil(max(len(self.sharp), len(self.blurred)) / batch)

    def feed(
        self,
        config: MethodConfig,
        device: torch.device | str = "cpu",
        workers: int = 2,
        resident: str = "auto",
        rank: int = 0,
        world: int = 1,
    ) -> Feed:
        """Return the batches of process `rank` of `world`; see `trainers.feed.Feed`.

        Raises
        ------
        ValueError
            Crops that are larger than the images, or cannot be cut out of the low-resolution ones.
        """
        sides = (self.sharp, self.blurred)
        guides = [Images(side.shards, self.guide, side.samples) for side in sides] if self.guide else []
        grid = math.lcm(*(images.factor for images in (*sides, *guides)))
        for images in sides:
            _require_crop(images, config, grid)
        orders = [self._order(images, config, grid) for images in sides]
        if self.pairing == "paired":
            orders[1] = orders[0]
        seen = [*zip(sides, orders, strict=True), *zip(guides, orders, strict=bool(guides))]
        domains = [Domain(images, order, config.fed_crop // images.factor) for images, order in seen]
        return Feed(tuple(domains), config.batch, self.seed, device, workers, resident, rank, world)

    def _order(self, images: Images, config: MethodConfig, grid: int) -> Order:
        slack = images.shards.layout.crop - config.fed_crop
        return Order(self.seed, images.array, len(images), slack, grid, config.flips)

    def roles(self) -> Iterator[tuple[str, str, str]]:
        """Yield (role, SHA-256 in hexadecimal, key) for every source image that has a role."""
        for shards, rows_of in self.dealt:
            for role, rows in rows_of.items():
                sources = shards.sources[rows]
                for digest, key in zip(sources["sha256"], sources["key"].tolist(), strict=True):
                    yield role, digest.tobytes().hex(), text(key)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Role -> number of samples."""
        return {role: len(samples_of(shards, rows)) for shards, rows_of in self.dealt for role, rows in rows_of.items()}


def open_data(options: DataOptions, pairing: str = "unpaired", seed: int = 0, arrays: tuple[str, ...] = ARRAYS) -> Data:
    """Return the data that a system with this `pairing` trains on.

    Parameters
    ----------
    options : DataOptions
    pairing : str
        "unpaired": sharp and blurred images of disjoint groups; "paired": both of the same samples.
    seed : int
        Of the run.
    arrays : (str, str) or (str, str, str)
        The arrays that are the sharp and the blurred images, such as ``("sharp", "blurred_x2")``, and "label" or
        "prior", where maps of both guide the system.

    Raises
    ------
    FileNotFoundError
        There are no such shards.
    ValueError
        Shards that lack a side or have too few groups, two files that share images, or pairs asked of two files.
    """
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing must be one of {', '.join(PAIRINGS)}, got {pairing!r}")
    if options.sharp is None:
        return _open_one(options.data, pairing, seed, arrays)
    if pairing == "paired":
        raise ValueError("this system trains on pairs, which two files cannot give: use --data")
    return _open_two(options.sharp, options.blurred, seed, arrays)


def _open_one(path: Path, pairing: str, seed: int, arrays: tuple[str, ...]) -> Data:
    shards = _opened(path, "--data")
    for name in arrays:
        _require_array(shards, name)
    rows_of = deal(shards, PAIRED if pairing == "paired" else UNPAIRED)
    samples = {role: samples_of(shards, rows) for role, rows in rows_of.items()}
    training = ("train", "train") if pairing == "paired" else ("sharp", "blurred")
    sharp, blurred = (Images(shards, name, samples[role]) for name, role in zip(arrays[:2], training, strict=True))
    validation, test = (PairSet(shards, samples[role], arrays) for role in ("validation", "test"))
    return Data(sharp, blurred, validation, test, pairing, seed, ((shards, rows_of),), *arrays[2:])


def _open_two(sharp_path: Path, blurred_path: Path, seed: int, arrays: tuple[str, ...]) -> Data:
    """Return data whose blurred side, validation and test are of other shards than the sharp side."""
    sharp, blurred = _opened(sharp_path, "--sharp"), _opened(blurred_path, "--blurred")
    for shards, name in zip((sharp, blurred), arrays[:2], strict=True):
        for held in (name, *arrays[2:]):
            _require_array(shards, held)
    if "prior" in arrays and sharp.layout.prior != blurred.layout.prior:
        raise ValueError(
            f"the probability maps of both sides must have the same classes, got {sharp.layout.prior} in {sharp_path} "
            f"and {blurred.layout.prior} in {blurred_path}: make both with the same segmenter"
        )
    refuse_shared(sharp, blurred)
    # Without their sharp images, blurred ones can only be trained on.
    pairs = arrays[0] in blurred.layout.arrays
    rows_of = deal(blurred, BLURRED_SIDE) if pairs else {"blurred": all_but_test(blurred)}
    sharp_rows = all_but_test(sharp)
    nothing = np.empty(0, np.int64)
    sets = [
        PairSet(blurred, samples_of(blurred, rows_of[role]) if pairs else nothing, arrays)
        for role in ("validation", "test")
    ]
    return Data(
        Images(sharp, arrays[0], samples_of(sharp, sharp_rows)),
        Images(blurred, arrays[1], samples_of(blurred, rows_of["blurred"])),
        *sets,
        "unpaired",
        seed,
        ((sharp, {"sharp": sharp_rows}), (blurred, rows_of)),
        *arrays[2:],
    )


def _opened(path: Path, flag: str) -> Shards:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: make it with `blurgen make --src text --out {path}`, "
            f"or name shards that exist with {flag}"
        )
    return open_shards(path)


def _require_array(shards: Shards, name: str) -> None:
    held = [one for one in shards.layout.arrays if one != "kernel"]
    if name in held:
        return
    if name in ARRAYS:
        way = "give shards of both sides, or one file for each with --sharp and --blurred"
    elif name in GUIDES:
        raise ValueError(f"{shards.path} holds no {name} maps: make shards with `{GUIDES[name]}`")
    else:
        way = f"make shards with `blurgen make --lowres {name.rpartition('_x')[2]}`"
    raise ValueError(f"{shards.path} holds no {name} images, only {', '.join(held)}: {way}")


def _require_crop(images: Images, config: MethodConfig, grid: int) -> None:
    stored, path, crop = images.shards.layout.crop, images.shards.path, config.fed_crop
    if stored < crop and crop > config.crop:
        raise ValueError(
            f"the images of {path} have a side of {stored} px, and the random scales of this system ask for {crop}: "
            f"make larger ones with `blurgen make --crop {crop}`, or let it ask for less"
        )
    if stored < crop:
        raise ValueError(
            f"the images of {path} have a side of {stored} px, and --crop asks for {crop}: "
            f"train with --crop {stored} or less, or make larger ones with `blurgen make --crop {crop}`"
        )
    if crop % grid:
        raise ValueError(f"--crop must be a multiple of {grid}, the factor of low-resolution images, got {crop}")
