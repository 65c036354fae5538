"""Where everything lies in a file that somebody else may have made: parsed once, nothing taken on trust."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blurgen.shards.layout import FORMAT, BadShard, Layout, attrs_checksum
from blurgen.shards.scanning import Region, scan, scan_chunks


@dataclass(frozen=True)
class Structure:
    """A parsed file: what it is, where its data lies, and what it was on disk when it was parsed."""

    path: Path
    kind: str
    regions: dict[str, Region]
    texts: dict[str, str]
    attrs: dict[str, Any]
    layout: Layout | None
    identity: tuple[int, ...]

    @property
    def compressed(self) -> bool:
        """Whether images, kernels and maps are compressed."""
        return any(region.offset is None for region in self.regions.values())


def parse(path: str | os.PathLike) -> Structure:
    """Return the structure of a shard or of a master, after checking all of it that can be checked quickly.

    Raises
    ------
    BadShard
        The file is damaged, or holds what format 1 does not allow; the message names it.
    OSError
        The file can't be opened at all.
    """
    path = Path(path)
    with _refusing(path):
        found = scan(path)
        regions, texts, kind = found.regions, found.texts, found.texts["format"]
        layout = _layout(regions, texts) if kind == FORMAT else None
        _check_regions(kind, regions, layout, found.identity[0])
        attrs = _attrs(texts)
        if layout and attrs.get("arrays") != list(layout.arrays):
            raise BadShard(f"its attribute arrays names {attrs.get('arrays')}, and it holds {list(layout.arrays)}")
    return Structure(path, kind, regions, texts, attrs, layout, found.identity)


def chunk_table(structure: Structure, name: str) -> np.ndarray:
    """Return offset and stored bytes (n, 2) int64 of the chunks of ``/name``, checked: one for each item.

    Raises
    ------
    BadShard
        Chunks that are missing, doubled, too long, overlapping or outside of the file.
    """
    region, size = structure.regions[name], structure.identity[0]
    longest = region.item_bytes + (region.item_bytes >> 3) + 1024 if region.offset is None else region.item_bytes
    with _refusing(structure.path):
        table = scan_chunks(structure.path, name, region.count)
        if table[:, 1].min() <= 0 or table[:, 1].max() > longest:
            raise BadShard(f"/{name} has a chunk that is short or over-long")
        placed = table[np.argsort(table[:, 0])]
        if np.any(placed.sum(1) > [*placed[1:, 0], size]):
            raise BadShard(f"/{name} has chunks that overlap or reach beyond the end of the file")
    return table


def index_problem(structure: Structure, name: str) -> str | None:
    """Return what is wrong with where HDF5 finds the items of ``/name``, or None."""
    region = structure.regions[name]
    if not region.count:
        return None
    try:
        table = chunk_table(structure, name)
    except BadShard as error:
        return str(error)
    steps = None if region.offset is None else region.offset + region.item_bytes * np.arange(region.count)
    if steps is not None and not (np.array_equal(table[:, 0], steps) and np.all(table[:, 1] == region.item_bytes)):
        return f"{structure.path} is not a sound shard: the chunks of /{name} do not follow each other"
    return None


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except BadShard as error:
        raise BadShard(f"{path} is not a sound shard: {error}") from error


def _attrs(texts: dict[str, str]) -> dict[str, Any]:
    """Return the attributes decoded from JSON, after comparing them with their checksum."""
    if texts.get("attrs_crc32") != str(attrs_checksum(texts)):
        raise BadShard("its attributes do not agree with their checksum")
    return {name: _json(texts, name) for name in sorted(texts) if name not in ("format", "attrs_crc32")}


def _json(texts: dict[str, str], name: str) -> Any:
    try:
        return json.loads(texts[name])
    except (ValueError, RecursionError) as error:
        raise BadShard(f"its attribute {name} is not JSON: {error}") from error


def _layout(regions: dict[str, Region], texts: dict[str, str]) -> Layout:
    images = [name for name in regions if re.fullmatch("sharp|blurred", name)]
    if not images:
        raise BadShard("it holds neither /sharp nor /blurred")
    variants = {match[1] for name in regions if (match := re.fullmatch(r"(?:sharp|blurred)_x(\d{1,3})", name))}
    params = _json(texts, "params") if "params" in texts else []
    try:
        return Layout(
            crop=_first_side(regions, images[0]),
            kernel_side=_first_side(regions, "kernel"),
            lowres=tuple(sorted(int(factor) for factor in variants)),
            sides="both" if len(images) == 2 else images[0],
            params=tuple(str(name) for name in params),
            label="label" in regions,
            prior=_first_side(regions, "prior"),
            transcript=_first_side(regions, "transcript"),
        )
    except (ValueError, TypeError) as error:
        raise BadShard(str(error)) from error


def _first_side(regions: dict[str, Region], name: str) -> int:
    """Return the first side of the items of a dataset, 0 where it is missing or its items have none."""
    return regions[name].shape[0] if name in regions and regions[name].shape else 0


def _check_regions(kind: str, regions: dict[str, Region], layout: Layout | None, size: int) -> None:
    expected: dict[str, tuple[int, ...]] = {"manifest": ()}
    if layout:
        expected = {"meta": (), "source": ()} | {name: item.shape for name, item in layout.arrays.items()}
    for name in sorted({*expected, *regions}):
        if name not in regions:
            raise BadShard(f"/{name} is missing")
        if name not in expected:
            raise BadShard(f"/{name} is not part of the format")
        if regions[name].shape != expected[name]:
            raise BadShard(f"/{name} has items of shape {regions[name].shape} instead of {expected[name]}")
    counts = {name: region.count for name, region in regions.items() if name not in ("source", "manifest")}
    if len(set(counts.values())) > 1:
        raise BadShard(f"its datasets have different lengths: {counts}")
    _check_overlap(regions, size)


def _check_overlap(regions: dict[str, Region], size: int) -> None:
    placed = sorted(
        (r.offset, r.offset + r.count * r.item_bytes, r.name) for r in regions.values() if r.offset is not None
    )
    for (_, stop, name), (start, _, other) in zip(placed, [*placed[1:], (size, size, "")], strict=True):
        if stop > start:
            beyond = f"overlaps /{other}" if other else "reaches beyond the end of the file"
            raise BadShard(f"/{name} {beyond}")
