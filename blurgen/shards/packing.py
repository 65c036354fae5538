"""Many shards into one plain file, without a byte that tells how they were divided."""

import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from blurgen.shards.backing import LatchedFile
from blurgen.shards.drafts import SYNC_BYTES, Draft, atomic_file, write_all
from blurgen.shards.files import ShardFile, SourceIndex
from blurgen.shards.layout import BadShard, Layout
from blurgen.shards.manifest import Part, Paths, gather, in_order
from blurgen.shards.structure import parse
from blurgen.shards.writing import as_bytes, attr_texts, deflated, shapes, skeleton

_BATCH_BYTES = 1 << 23
# What HDF5's index takes per compressed chunk, and the rest of the structure, both generously.
_INDEX_BYTES, _STRUCTURE_BYTES = 64, 1 << 20


def pack(paths: Paths, out: str | os.PathLike, attrs: Mapping[str, Any] | None = None) -> int:
    """Merge finished shards into the one plain file `out` and return its samples.

    The result depends on the samples and the attributes alone, not on how samples were divided into shards: sources
    appear once, in the order of first use. Every image and kernel is compared with its checksum on the way.

    Parameters
    ----------
    paths : path or iterable of paths
        Shards, folders of shards or masters, in the order of their samples; `out` itself may be among them.
    out : path
        Whole or untouched, whatever fails; its space is reserved before anything is copied.
    attrs : mapping, optional
        Its attributes; by default those on which all shards agree.

    Raises
    ------
    BadShard
        A damaged shard, shards that do not belong together, or ids that do not ascend from one to the next.
    OSError
        `out` can't be written, in one sentence.
    """
    members, shared = gather(paths)
    survey = _survey(members)
    texts = attr_texts(survey.layout, shared if attrs is None else attrs)
    copy = _copy_compressed if survey.compressed else _copy_raw
    copy(members, out, survey, texts)
    return survey.samples


@dataclass
class _Survey:
    """What is known of all shards before the first byte is copied."""

    layout: Layout
    samples: int = 0
    sources: int = 0
    stored_bytes: int = 0
    compressed: bool = False

    @property
    def datasets(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        return shapes(self.layout, self.samples, self.sources)


def _survey(members: list[Part]) -> _Survey:
    index, survey = SourceIndex(), None
    for file in in_order(members):
        survey = survey or _Survey(file.structure.layout)
        index.place(file)
        survey.samples += len(file)
        survey.sources = len(index)
        survey.stored_bytes += file.structure.identity[0]
        survey.compressed |= file.structure.compressed
    return survey


def _copy_raw(members: list[Part], out, survey: _Survey, texts: Mapping[str, str]) -> None:
    bones = skeleton(survey.datasets, texts)
    with atomic_file(out, bones.size) as draft:
        for offset, piece in bones.pieces:
            write_all(draft.descriptor, piece, offset)
        _copy_tables(members, draft, bones.offsets)
        ends, unsynced = dict(bones.offsets), 0
        for part in members:
            file = part.open(survey.layout)
            for name in survey.layout.arrays:
                for batch in _ahead(_checked_batches(file, name)):
                    write_all(draft.descriptor, as_bytes(batch), ends[name])
                    ends[name] += batch.nbytes
                    unsynced += batch.nbytes
                    if unsynced >= SYNC_BYTES:
                        os.fdatasync(draft.descriptor)
                        unsynced = 0
        parse(draft.path)


def _copy_compressed(members: list[Part], out, survey: _Survey, texts: Mapping[str, str]) -> None:
    room = survey.stored_bytes + survey.samples * len(survey.layout.arrays) * _INDEX_BYTES
    with atomic_file(out, room + _STRUCTURE_BYTES + len(repr(texts))) as draft:
        latched = LatchedFile(draft.descriptor)
        chunks = {name: _checked_chunks(members, name) for name in survey.layout.arrays}
        offsets = deflated(latched, survey.datasets, texts, chunks)
        if latched.error:
            raise latched.error
        _copy_tables(members, draft, offsets)
        parse(draft.path)


def _copy_tables(members: list[Part], draft: Draft, offsets: Mapping[str, int]) -> None:
    index, meta_end, source_end = SourceIndex(), offsets["meta"], offsets["source"]
    for part in members:
        meta, sources = index.place(part.open())
        write_all(draft.descriptor, as_bytes(meta), meta_end)
        write_all(draft.descriptor, as_bytes(sources), source_end)
        meta_end, source_end = meta_end + meta.nbytes, source_end + sources.nbytes


def _ahead(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the batches while another thread prepares the next; reading and checksums do not hold the interpreter."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            yield batch


def _checked_batches(file: ShardFile, name: str) -> Iterator[np.ndarray]:
    """Yield the items of a raw dataset, some MiB at a time."""
    region, expected = file.structure.regions[name], _checksums(file, name)
    step = max(1, _BATCH_BYTES // region.item_bytes)
    for start in range(0, region.count, step):
        batch = file.rows(name, start, min(step, region.count - start))
        for index, one in enumerate(batch, start):
            _compare(file, name, index, one, expected)
        yield batch


def _checked_chunks(members: list[Part], name: str) -> Iterator[bytes]:
    """Yield the compressed items of a dataset of all shards."""
    for part in members:
        file = part.open()
        expected = _checksums(file, name)
        for index in range(len(file)):
            _compare(file, name, index, file.item(name, index), expected)
            yield file.stored(name, index)


def _checksums(file: ShardFile, name: str) -> np.ndarray:
    return file.rows("meta")["crc32"][:, list(file.structure.layout.arrays).index(name)]


def _compare(file: ShardFile, name: str, index: int, item: np.ndarray, expected: np.ndarray) -> None:
    if zlib.crc32(item) != expected[index]:
        raise BadShard(f"{file.structure.path}: item {index} of /{name} does not agree with its checksum")
