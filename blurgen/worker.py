"""The unit of work: one shard, built in memory from its images and written as a whole."""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from blurgen.plan import Crop
from blurgen.recipes import BUILT_IN
from blurgen.rng import stream
from blurgen.sample import Look, Rendered, TooSmall, render
from blurgen.shards import META, SOURCE, Layout, source_row, write_shard
from blurgen.sources import BadImage, Picture, Source
from blurgen.words import TooMuchText

TRIES = 2
_WARM_UP_PX = 64
# Why an image is left out that a source did not call bad: found out by trying, and so kept in mind for other shards.
RAISED, DIED, TOO_SLOW = "raised-an-error", "ended-its-worker", "took-too-long"
# Why some crops of an image are left out, and not the image.
TOO_MUCH_TEXT = "too-much-text"


class Bad(NamedTuple):
    """An image that made no sample, or lacks some of its crops, and why."""

    key: str
    reason: str
    message: str

    @property
    def whole(self) -> bool:
        """Whether it made no sample at all."""
        return self.reason != TOO_MUCH_TEXT


@dataclass(frozen=True)
class Job:
    """What a worker needs to build one shard.

    Images of `left_out` are not touched: they have ended workers before.
    """

    path: Path
    source: Source
    look: Look
    layout: Layout
    seed: int
    first_sample: int
    last_sample: int
    crops: list[Crop]
    attrs: dict[str, Any]
    codec: str
    left_out: Mapping[str, Bad] = field(default_factory=dict)


class Rows:
    """The samples of a shard as they gather: images in their final arrays, and the tables that describe them.

    Attributes
    ----------
    count : int
        How many there are; may be set back to forget the last ones.
    """

    def __init__(self, job: Job):
        self._job = job
        capacity = job.last_sample - job.first_sample
        self._arrays = {name: np.empty((capacity, *item.shape), item.dtype) for name, item in job.layout.arrays.items()}
        self._meta = np.zeros(capacity, META)
        self._sources: list[np.void] = []
        self._places: dict[str, int] = {}
        self.count = 0

    def add(self, number: int, crop: Crop, picture: Picture, sample: Rendered) -> None:
        """Take in sample `number`, whose pixels come from `crop` of `picture`."""
        for name in self._arrays:
            self._arrays[name][self.count] = sample.kernel if name == "kernel" else sample.images[name]
        key = crop.entry.key
        if key not in self._places:
            self._places[key] = len(self._sources)
            self._sources.append(self._source_row(crop, picture))
        params = self._job.layout.params
        self._meta[self.count] = meta_row(number, self._places[key], crop.index, sample, params)
        self.count += 1

    def _source_row(self, crop: Crop, picture: Picture) -> np.void:
        entry, source = crop.entry, self._job.source
        height, width = (picture.blurred if picture.sharp is None else picture.sharp).shape[:2]
        return source_row(
            entry.key, picture.sha256, width, height, entry.group, entry.split, source.licence, source.author
        )

    def write(self, attrs: dict[str, Any], without: Collection[str]) -> None:
        """Write the shard with what was gathered, but for the images with these keys."""
        meta, sources = self._meta[: self.count].copy(), np.array(self._sources, SOURCE)
        kept: slice | np.ndarray = slice(self.count)
        dropped = [place for key, place in self._places.items() if key in without]
        if dropped:
            kept = np.flatnonzero(~np.isin(meta["source"], dropped))
            used, places = np.unique(meta["source"][kept], return_inverse=True)
            meta, sources = meta[kept], sources[used]
            meta["source"] = places
        arrays = {name: array[kept] for name, array in self._arrays.items()}
        codec = None if self._job.codec == "none" else self._job.codec
        write_shard(self._job.path, self._job.layout, arrays, meta, sources, attrs, codec)


def meta_row(number: int, source: int, crop: int, sample: Rendered, params: tuple[str, ...]) -> np.void:
    """Return the row of ``/meta`` that describes a sample, its checksums still open."""
    row = np.zeros(1, META)
    row["id"], row["source"], row["crop"] = number, source, crop
    row["y"], row["x"], row["side"] = sample.box
    row["scale"], row["length_px"], row["shift"] = sample.scale, sample.length_px, sample.shift
    row["exposure"] = 0.0, sample.exposure
    row["params"][0, : len(params)] = [sample.params[name] for name in params]
    row["noise"][0, : len(sample.noise)] = list(sample.noise.values())
    row["saturation"] = sample.saturation
    return row[0]


def build(job: Job, take_up: Callable[[str], None] = lambda key: None) -> Path:
    """Build one shard in memory, write it as a whole, and return its path.

    An image that cannot be read or raises anything at all makes no sample: it is named in the attribute ``bad``.

    Parameters
    ----------
    job : Job
    take_up : callable
        Told the key of an image before each of its crops is made, and ``""`` when the work on images is over.
    """
    cv2.setNumThreads(1)
    rows = Rows(job)
    bad: dict[str, Bad] = {}
    for key, crops in groupby(job.crops, lambda crop: crop.entry.key):
        if key in bad and bad[key].whole:
            continue
        bad_one = job.left_out.get(key) or _make_samples(job, list(crops), rows, take_up)
        if bad_one:
            bad[key] = bad_one
    take_up("")
    rows.write(job.attrs | {"bad": sorted(bad.values())}, without={one.key for one in bad.values() if one.whole})
    return job.path


def _make_samples(job: Job, crops: list[Crop], rows: Rows, take_up: Callable[[str], None]) -> Bad | None:
    """Add the samples of some crops of one image; return why there are none, or not all."""
    key, before = crops[0].entry.key, rows.count
    for left in reversed(range(TRIES)):
        try:
            return _render_into(rows, job, crops, take_up)
        except BadImage as error:
            return Bad(key, error.reason, str(error))
        except TooSmall as error:
            return Bad(key, "too-small", str(error))
        except Exception as error:  # one image, whatever it does to a decoder, is not worth the run
            rows.count = before
            if not left:
                return Bad(key, RAISED, f"{type(error).__name__}: {error}".splitlines()[0])
    return None


def _render_into(rows: Rows, job: Job, crops: list[Crop], take_up: Callable[[str], None]) -> Bad | None:
    key, picture, bad = crops[0].entry.key, None, None
    for crop in crops:
        take_up(key)
        picture = picture or job.source.read(key)
        drawn = streams(job.seed, key, crop.index)
        try:
            samples = render(picture.sharp, picture.blurred, job.look, drawn, picture.maps, picture.words)
        except TooMuchText as error:  # other crops of the image have less, in this shard and in others
            bad = Bad(key, TOO_MUCH_TEXT, str(error))
            continue
        for number, sample in enumerate(samples, crop.first_sample):
            if job.first_sample <= number < job.last_sample:
                rows.add(number, crop, picture, sample)
    return bad


def warm_up(job: Job) -> None:
    """Compile what a job needs, on pictures that do no harm."""
    with suppress(Exception):  # what is wrong with the job is told when it is done
        if job.source.name in BUILT_IN:
            job.source.read(job.crops[0].entry.key)
        look = _in_small(job.look)
        plain = np.zeros((2 * look.rule.crop, 2 * look.rule.crop, 3), np.uint8)
        render(plain, plain, look, streams(job.seed, "", 0))


def _in_small(look: Look) -> Look:
    """Return a look with crops as small as its low-resolution variants allow; it needs the same compiled code."""
    step, rule = math.lcm(*look.lowres), look.rule
    crop = min(rule.crop, -(-_WARM_UP_PX // step) * step)
    return replace(look, rule=replace(rule, crop=crop, resize_short=crop if rule.resize_short else None))


def streams(seed: int, key: str, index: int) -> Callable[[str], np.random.Generator]:
    """Return the generators of one crop, by purpose."""
    return lambda purpose: stream(seed, key, index, purpose)
