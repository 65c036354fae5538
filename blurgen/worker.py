"""The unit of work: one shard, built in memory from its images and written as a whole."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from blurgen.plan import Crop
from blurgen.rng import stream
from blurgen.sample import Look, Rendered, TooSmall, render
from blurgen.shards import META, SOURCE, Layout, open_shards, source_row, write_shard
from blurgen.sources import BadImage, Picture, Source


class Bad(NamedTuple):
    """An image that made no sample, and why."""

    key: str
    reason: str
    message: str


@dataclass(frozen=True)
class Job:
    """What a worker needs to build one shard."""

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


class Rows:
    """The samples of a shard as they gather: images in their final arrays, and the tables that describe them."""

    def __init__(self, job: Job):
        self._job = job
        capacity = job.last_sample - job.first_sample
        self._arrays = {name: np.empty((capacity, *item.shape), item.dtype) for name, item in job.layout.arrays.items()}
        self._meta = np.zeros(capacity, META)
        self._sources: list[np.void] = []
        self._places: dict[str, int] = {}
        self._count = 0

    def add(self, number: int, crop: Crop, picture: Picture, sample: Rendered) -> None:
        """Take in sample `number`, whose pixels come from `crop` of `picture`."""
        for name in self._arrays:
            self._arrays[name][self._count] = sample.kernel if name == "kernel" else sample.images[name]
        key = crop.entry.key
        if key not in self._places:
            self._places[key] = len(self._sources)
            self._sources.append(self._source_row(crop, picture))
        params = self._job.layout.params
        self._meta[self._count] = meta_row(number, self._places[key], crop.index, sample, params)
        self._count += 1

    def _source_row(self, crop: Crop, picture: Picture) -> np.void:
        entry, source = crop.entry, self._job.source
        height, width = (picture.blurred if picture.sharp is None else picture.sharp).shape[:2]
        return source_row(
            entry.key, picture.sha256, width, height, entry.group, entry.split, source.licence, source.author
        )

    def write(self, attrs: dict[str, Any]) -> None:
        """Write the shard with what was gathered."""
        arrays = {name: array[: self._count] for name, array in self._arrays.items()}
        sources = np.array(self._sources, SOURCE)
        codec = None if self._job.codec == "none" else self._job.codec
        write_shard(self._job.path, self._job.layout, arrays, self._meta[: self._count], sources, attrs, codec)


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


def build(job: Job) -> Path:
    """Build one shard in memory, write it as a whole, and return its path."""
    cv2.setNumThreads(1)
    rows = Rows(job)
    bad: dict[str, Bad] = {}
    key, picture = None, None
    for crop in job.crops:
        if crop.entry.key != key:
            key, picture = crop.entry.key, None
            try:
                picture = job.source.read(key)
            except BadImage as error:
                bad[key] = Bad(key, error.reason, str(error))
        if picture is None:
            continue
        try:
            samples = render(picture.sharp, picture.blurred, job.look, streams(job.seed, key, crop.index))
        except TooSmall as error:
            bad[key] = Bad(key, "too-small", str(error))
            continue
        for number, sample in enumerate(samples, crop.first_sample):
            if job.first_sample <= number < job.last_sample:
                rows.add(number, crop, picture, sample)
    rows.write(job.attrs | {"bad": sorted(bad.values())})
    return job.path


def is_done(job: Job) -> bool:
    """Whether the shard of a job is there, with all of its samples and no more."""
    if not job.path.exists():
        return False
    return open_shards(job.path).attrs["range"] == [job.first_sample, job.last_sample]


def streams(seed: int, key: str, index: int) -> Callable[[str], np.random.Generator]:
    """Return the generators of one crop, by purpose."""
    return lambda purpose: stream(seed, key, index, purpose)
