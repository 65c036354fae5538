"""Arrays to the bytes of a shard."""

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5f, h5fd, h5p

from blurgen.shards.backing import MemoryFile
from blurgen.shards.drafts import Piece, write_atomically
from blurgen.shards.layout import FORMAT, META, SOURCE, VERSION, Layout, attrs_checksum, seal_rows

CODECS = (None, "gzip")
_GZIP_LEVEL = 4
_MOST_ATTRS = 64
_ALIGNMENT = 4096


@dataclass(frozen=True)
class Skeleton:
    """A file without its data: what HDF5 wrote, where each dataset's data belongs, and the size of it all."""

    pieces: list[Piece]
    offsets: dict[str, int]
    size: int


def shard_bytes(
    layout: Layout,
    arrays: Mapping[str, np.ndarray],
    meta: np.ndarray,
    sources: np.ndarray,
    attrs: Mapping[str, Any],
    codec: str | None = None,
) -> bytearray:
    """Return the bytes of one shard; `shard_pieces` says the same without the copy.

    Parameters and errors are those of `shard_pieces`.
    """
    size, pieces = shard_pieces(layout, arrays, meta, sources, attrs, codec)
    data = bytearray(size)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return data


def shard_pieces(
    layout: Layout,
    arrays: Mapping[str, np.ndarray],
    meta: np.ndarray,
    sources: np.ndarray,
    attrs: Mapping[str, Any],
    codec: str | None = None,
) -> tuple[int, list[Piece]]:
    """Return the size of one shard and its bytes as (offset, bytes); a later piece overwrites an earlier one.

    Equal arguments give equal bytes. The checksums of `meta` and `sources` are computed here.

    Parameters
    ----------
    layout : Layout
        What a sample consists of.
    arrays : mapping
        For each name of ``layout.arrays`` an array (n, ...) of that shape and dtype; n may be 0.
    meta : ndarray (n,) META
        Ids ascend; ``source`` points into `sources`.
    sources : ndarray (m,) SOURCE
        The images that the samples were cut from.
    attrs : mapping
        Name -> anything that JSON can say: ``plan``, ``card`` and the like, stored as JSON text.
    codec : None or "gzip"
        How images and kernels are stored; raw is by far the fastest to read.

    Raises
    ------
    ValueError
        Arrays, rows or a codec that do not agree with the above.
    """
    if codec not in CODECS:
        raise ValueError(f"codec must be None or 'gzip', got {codec!r}")
    arrays = _agreeing(layout, arrays, meta, sources)
    meta, sources = sealed_meta(meta, arrays), seal_rows(sources.copy())
    texts = attr_texts(layout, attrs)
    if codec == "gzip":
        return _deflated(layout, arrays, meta, sources, texts)
    bones = skeleton(shapes(layout, len(meta), len(sources)), texts)
    data = {**arrays, "meta": meta, "source": sources}
    return bones.size, bones.pieces + [(bones.offsets[name], as_bytes(array)) for name, array in data.items()]


def file_bytes(layout: Layout, samples: int, sources: int, attrs: Mapping[str, Any] | None = None) -> int:
    """Return the size in bytes of a raw file of so many samples and sources."""
    return skeleton(shapes(layout, samples, sources), attr_texts(layout, attrs or {})).size


def shapes(layout: Layout, samples: int, sources: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return dataset name -> (shape, dtype) of a shard, in the order of the file."""
    images = {name: ((samples, *item.shape), item.dtype) for name, item in layout.arrays.items()}
    return {"meta": ((samples,), META), "source": ((sources,), SOURCE), **images}


def skeleton(datasets: Mapping[str, tuple[tuple[int, ...], np.dtype]], texts: Mapping[str, str]) -> Skeleton:
    """Return the structure of an HDF5 file whose raw datasets have fixed places and no contents yet.

    Space for a dataset is allocated when it is created, so that the chunks of one follow each other without an
    index ("implicit" in HDF5's words): sample i lies at offset + i * size. The file may be of any size.
    """
    memory = MemoryFile()
    with _create(memory) as file:
        _put_attrs(file, texts)
        ids = {name: _dataset(file, name, shape, dtype) for name, (shape, dtype) in datasets.items()}
        offsets = {name: _place(dataset) for name, dataset in ids.items()}
        del ids
    return Skeleton(memory.pieces(), offsets, memory.size)


def deflated(
    fileobj: MemoryFile,
    datasets: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    texts: Mapping[str, str],
    chunks: Mapping[str, Iterable[bytes]],
) -> dict[str, int]:
    """Write a file whose images and kernels are compressed, and return where the other datasets' data belongs.

    `chunks` gives for each compressed dataset its items, compressed already: inside of HDF5 this would run under its
    lock, one at a time.
    """
    with _create(fileobj) as file:
        _put_attrs(file, texts)
        tables = {name: item for name, item in datasets.items() if name not in chunks}
        offsets = {name: _place(_dataset(file, name, *item)) for name, item in tables.items()}
        for name, stored in chunks.items():
            dataset = _dataset(file, name, *datasets[name], gzip=True)
            for index, chunk in enumerate(stored):
                dataset.write_direct_chunk((index,) + (0,) * (dataset.rank - 1), chunk)
            del dataset
    return offsets


def attr_texts(layout: Layout, attrs: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of a shard as text, sealed with their checksum."""
    own = {"params": list(layout.params), "arrays": list(layout.arrays)}
    return sealed_texts({"format": FORMAT, "version": str(VERSION)}, {**attrs, **own})


def sealed_texts(marks: Mapping[str, str], attrs: Mapping[str, Any]) -> dict[str, str]:
    """Return `marks` as they are and `attrs` as JSON, with the checksum of all."""
    values = {name: json.dumps(value, sort_keys=True, separators=(",", ":")) for name, value in attrs.items()}
    texts = {**values, **marks}
    return {**texts, "attrs_crc32": str(attrs_checksum(texts))}


def sealed_meta(meta: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a copy of `meta` (n,) with the checksums of `arrays`, in their order, and of the rows."""
    meta = meta.copy()
    meta["crc32"] = 0
    for column, array in enumerate(arrays.values()):
        meta["crc32"][:, column] = [zlib.crc32(one) for one in array]
    return seal_rows(meta)


def as_bytes(array: np.ndarray) -> memoryview:
    """Return the bytes of a contiguous array, not copied."""
    return memoryview(array.reshape(-1).view(np.uint8))


def write_shard(
    path: str | os.PathLike,
    layout: Layout,
    arrays: Mapping[str, np.ndarray],
    meta: np.ndarray,
    sources: np.ndarray,
    attrs: Mapping[str, Any],
    codec: str | None = None,
) -> int:
    """Write one shard at `path`, whole or not at all, and return its size in bytes.

    Parameters and errors are those of `shard_pieces` and of `atomic_file`.
    """
    size, pieces = shard_pieces(layout, arrays, meta, sources, attrs, codec)
    write_atomically(path, pieces, size)
    return size


def _agreeing(
    layout: Layout, arrays: Mapping[str, np.ndarray], meta: np.ndarray, sources: np.ndarray
) -> dict[str, np.ndarray]:
    items, count = layout.arrays, len(meta)
    if set(arrays) != set(items):
        raise ValueError(f"the layout asks for the arrays {', '.join(items)}, got {', '.join(arrays) or 'none'}")
    for name, (shape, dtype) in items.items():
        if arrays[name].shape != (count, *shape) or arrays[name].dtype != dtype:
            given = f"{arrays[name].shape} {arrays[name].dtype}"
            raise ValueError(f"{name} must have shape {(count, *shape)} and dtype {dtype}, got {given}")
    if meta.dtype != META or sources.dtype != SOURCE:
        raise ValueError(f"meta and sources must have the dtypes META and SOURCE, got {meta.dtype}, {sources.dtype}")
    if np.any(meta["id"][1:] <= meta["id"][:-1]):
        raise ValueError("the ids of a shard must ascend, got some that do not")
    if np.any(meta["source"] >= len(sources)):
        raise ValueError(f"source must be a row of the {len(sources)} sources, got {meta['source'].max()}")
    return {name: np.ascontiguousarray(arrays[name]) for name in items}


def _create(fileobj) -> h5py.File:
    """Open a new HDF5 file whose bytes depend on its contents alone, its metadata in one block at the front."""
    access, creation = h5p.create(h5p.FILE_ACCESS), h5p.create(h5p.FILE_CREATE)
    access.set_fileobj_driver(h5fd.fileobj_driver, fileobj)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_meta_block_size(1 << 16)
    access.set_alignment(1 << 16, _ALIGNMENT)
    creation.set_obj_track_times(False)
    # Beyond eight attributes HDF5 would keep them in a heap, which readers would have to parse at their own risk.
    creation.set_attr_phase_change(_MOST_ATTRS, _MOST_ATTRS)
    return h5py.File(h5f.create(repr(fileobj).encode(), h5f.ACC_TRUNC, fapl=access, fcpl=creation))


def _put_attrs(file: h5py.File, texts: Mapping[str, str]) -> None:
    for name, text in sorted(texts.items()):
        file.attrs.create(name, np.bytes_(text.encode("ascii")))


def _dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype, gzip: bool = False):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # HDF5 refuses a chunk that is longer than its dataset, and compression without chunks.
    chunked = len(shape) > 1 and shape[0]
    if chunked:
        plist.set_chunk((1, *shape[1:]))
    if chunked and gzip:
        plist.set_deflate(_GZIP_LEVEL)
    else:
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    kind = h5py.h5t.py_create(dtype)
    return h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)


def _place(dataset) -> int:
    """Return the offset in the file of the first byte of a raw dataset, 0 where it is empty."""
    if dataset.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS:
        return dataset.get_offset() or 0
    return dataset.get_chunk_info_by_coord((0,) * dataset.rank).byte_offset


def _deflated(
    layout: Layout, arrays: Mapping[str, np.ndarray], meta: np.ndarray, sources: np.ndarray, texts: Mapping[str, str]
) -> tuple[int, list[Piece]]:
    memory, tables = MemoryFile(), {"meta": meta, "source": sources}
    chunks = {name: (zlib.compress(one, _GZIP_LEVEL) for one in array) for name, array in arrays.items()}
    offsets = deflated(memory, shapes(layout, len(meta), len(sources)), texts, chunks)
    return memory.size, memory.pieces() + [(offsets[name], as_bytes(table)) for name, table in tables.items()]
