"""Many shards into one plain file, without a byte that tells how they were divided."""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blurgen.shards.backing import LatchedFile
from blurgen.shards.files import ShardFile, SourceIndex
from blurgen.shards.layout import BadShard
from blurgen.shards.manifest import continues
from blurgen.shards.structure import Structure, parse
from blurgen.shards.writing import Draft, as_bytes, atomic_file, attr_texts, deflated, shapes, skeleton, write_all

_BATCH_BYTES = 1 << 23
# What HDF5's index takes per compressed chunk, and the rest of the structure, both generously.
_INDEX_BYTES, _STRUCTURE_BYTES = 64, 1 << 20


def pack(paths: Iterable[str | os.PathLike], out: str | os.PathLike, attrs: Mapping[str, Any] | None = None) -> int:
    """Merge finished shards into the one plain file `out` and return its samples.

    The result depends on the samples and the attributes alone, not on how samples were divided into shards: sources
    appear once, in the order of first use. Every image and kernel is compared with its checksum on the way.

    Parameters
    ----------
    paths : iterable of paths
        The shards in the order of their samples.
    out : path
        Whole or untouched, whatever fails; its space is reserved before anything is copied.
    attrs : mapping, optional
        Attributes beside those of the shards, such as a summary of the run.

    Raises
    ------
    BadShard
        A damaged shard, shards that do not belong together, or ids that do not ascend from one to the next.
    OSError
        `out` can't be written, in one sentence.
    """
    paths = [Path(path) for path in paths]
    first, samples, sources, stored = _survey(paths)
    datasets = shapes(first.layout, samples, sources)
    texts = attr_texts(first.layout, {**first.attrs, **(attrs or {})})
    if first.compressed:
        _pack_compressed(paths, out, first, datasets, texts, stored)
    else:
        _pack_raw(paths, out, datasets, texts)
    return samples


def _survey(paths: list[Path]) -> tuple[Structure, int, int, int]:
    """Return the structure that all shards share, and their samples, distinct sources and stored bytes."""
    index, shared, last, samples, stored = SourceIndex(), None, -1, 0, 0
    for path in paths:
        file = ShardFile(path)
        shared, last = continues(file, shared, last)
        index.place(file)
        samples, stored = samples + len(file), stored + file.structure.identity[0]
    if shared is None:
        raise BadShard("there is no shard to pack: run `blurgen make` to make some")
    return shared, samples, len(index), stored


def _pack_raw(paths: list[Path], out, datasets, texts: Mapping[str, str]) -> None:
    bones = skeleton(datasets, texts)
    with atomic_file(out, bones.size) as draft:
        for offset, piece in bones.pieces:
            write_all(draft.descriptor, piece, offset)
        _copy_tables(paths, draft, bones.offsets)
        ends = dict(bones.offsets)
        for path in paths:
            file = ShardFile(path)
            for name in file.structure.layout.arrays:
                for batch in _checked_batches(file, name):
                    write_all(draft.descriptor, as_bytes(batch), ends[name])
                    ends[name] += batch.nbytes
        parse(draft.path)


def _pack_compressed(paths: list[Path], out, first: Structure, datasets, texts: Mapping[str, str], stored: int) -> None:
    samples = datasets["meta"][0][0]
    room = stored + samples * len(first.layout.arrays) * _INDEX_BYTES + _STRUCTURE_BYTES + len(repr(texts))
    with atomic_file(out, room) as draft:
        latched = LatchedFile(draft.descriptor)
        chunks = {name: _checked_chunks(paths, name) for name in first.layout.arrays}
        offsets = deflated(latched, datasets, texts, chunks)
        if latched.error:
            raise latched.error
        _copy_tables(paths, draft, offsets)
        parse(draft.path)


def _copy_tables(paths: list[Path], draft: Draft, offsets: Mapping[str, int]) -> None:
    index, meta_end, source_end = SourceIndex(), offsets["meta"], offsets["source"]
    for path in paths:
        meta, sources = index.place(ShardFile(path))
        write_all(draft.descriptor, as_bytes(meta), meta_end)
        write_all(draft.descriptor, as_bytes(sources), source_end)
        meta_end, source_end = meta_end + meta.nbytes, source_end + sources.nbytes


def _checked_batches(file: ShardFile, name: str) -> Iterator[np.ndarray]:
    """Yield the items of a raw dataset, some MiB at a time."""
    region, expected = file.structure.regions[name], _checksums(file, name)
    step = max(1, _BATCH_BYTES // region.item_bytes)
    for start in range(0, region.count, step):
        batch = file.rows(name, start, min(step, region.count - start))
        for index, one in enumerate(batch, start):
            _compare(file, name, index, one, expected)
        yield batch


def _checked_chunks(paths: list[Path], name: str) -> Iterator[bytes]:
    """Yield the compressed items of a dataset of all shards."""
    for path in paths:
        file = ShardFile(path)
        expected = _checksums(file, name)
        for index in range(len(file)):
            _compare(file, name, index, file.item(name, index), expected)
            yield file.stored(name, index)


def _checksums(file: ShardFile, name: str) -> np.ndarray:
    return file.rows("meta")["crc32"][:, list(file.structure.layout.arrays).index(name)]


def _compare(file: ShardFile, name: str, index: int, item: np.ndarray, expected: np.ndarray) -> None:
    if zlib.crc32(item) != expected[index]:
        raise BadShard(f"{file.structure.path}: item {index} of /{name} does not agree with its checksum")
