"""One file of samples, read at known offsets, and the sources of many."""

import os
import weakref
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from blurgen.shards.layout import META, BadShard, row_checksums, seal_rows
from blurgen.shards.scanning import Region, identify, open_regular
from blurgen.shards.structure import Structure, chunk_table
from blurgen.words import text_of


@dataclass(frozen=True, eq=False)
class ShardSample:
    """One sample.

    Attributes
    ----------
    arrays : dict
        Name -> array: ``sharp`` and ``blurred`` (H, W, 3) uint8 sRGB, ``kernel`` (k, k) float32, the low-resolution
        variants ``sharp_x2``, ``blurred_x2``, ..., ``label`` (H, W) uint8 ids, ``prior`` (K, H/4, W/4) float16
        probabilities of classes, and ``transcript`` (n,) uint8; what the file does not hold is absent.
    meta : numpy.void
        Its row of ``/meta``; see `blurgen.shards.layout.META`.
    source : numpy.void
        The row of ``/source`` of the image it was cut from; see `blurgen.shards.layout.SOURCE`.
    """

    arrays: dict[str, np.ndarray]
    meta: np.void
    source: np.void

    @property
    def id(self) -> int:
        """Number of the sample."""
        return int(self.meta["id"])

    @property
    def sharp(self) -> np.ndarray | None:
        """The sharp image (H, W, 3) uint8 sRGB, or None."""
        return self.arrays.get("sharp")

    @property
    def blurred(self) -> np.ndarray | None:
        """The blurred image (H, W, 3) uint8 sRGB, or None."""
        return self.arrays.get("blurred")

    @property
    def kernel(self) -> np.ndarray | None:
        """The kernel (k, k) float32 that blurred it, or None."""
        return self.arrays.get("kernel")

    @property
    def transcript(self) -> str | None:
        """What is written in the image, a line feed between lines, or None where that is not known."""
        stored = self.arrays.get("transcript")
        return None if stored is None else text_of(stored)

    @property
    def key(self) -> str:
        """Key of the image it was cut from."""
        return bytes(self.source["key"]).decode("utf-8", "surrogateescape")


class ShardFile:
    """One plain file, parsed once by HDF5 and then read at known offsets.

    No HDF5 handle stays open, so that an instance survives a fork and any number of threads.
    """

    def __init__(self, structure: Structure):
        self.structure = structure
        self._stream = open_regular(structure.path)
        weakref.finalize(self, self._stream.close)
        if identify(self._stream.fileno()) != structure.identity:
            raise BadShard(f"{structure.path} was replaced after it was opened: open it again")
        self._descriptor = self._stream.fileno()
        self._tables: dict[str, np.ndarray] = {}
        raw = (region for region in structure.regions.values() if region.offset is not None)
        # Looked up once: a small image is read in less time than the properties of its region take.
        self._raw = {r.name: (r.count, r.offset, r.item_bytes, r.shape, r.dtype) for r in raw}

    def __len__(self) -> int:
        return self.structure.regions["meta"].count

    def rows(self, name: str, start: int = 0, count: int | None = None) -> np.ndarray:
        """Return items `start` to `start + count` of a raw dataset, (count, ...)."""
        stored, offset, item_bytes, shape, dtype = self._raw[name]
        count = stored - start if count is None else count
        if not 0 <= start <= start + count <= stored:
            raise IndexError(f"/{name} has {stored} items, asked for {start} to {start + count}")
        return self._read(name, np.empty((count, *shape), dtype), offset + start * item_bytes)

    def sealed_rows(self, name: str) -> np.ndarray:
        """Return all rows of ``/meta``, ``/source`` or ``/manifest``, after comparing each with its checksum."""
        rows = self.rows(name)
        bad = np.flatnonzero(rows["row_crc32"] != row_checksums(rows))
        if len(bad):
            raise BadShard(f"{self.structure.path}: row {bad[0]} of /{name} does not agree with its checksum")
        return rows

    def item(self, name: str, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return item `index` of an image or kernel dataset, in `out` where one is given."""
        if name not in self._raw:
            item = self._inflated(self.structure.regions[name], index)
            if out is None:
                return item
            np.copyto(_fitting(out, item.shape, item.dtype, name), item)
            return out
        count, offset, item_bytes, shape, dtype = self._raw[name]
        if not 0 <= index < count:
            raise IndexError(f"/{name} has {count} items, asked for item {index}")
        into = np.empty(shape, dtype) if out is None else _fitting(out, shape, dtype, name)
        return self._read(name, into, offset + index * item_bytes)

    def sample(self, index: int, names: Iterable[str]) -> ShardSample:
        """Return sample `index` with the arrays of `names`."""
        meta = self.item("meta", index)[()]
        row = int(meta["source"])
        if row >= self._raw["source"][0]:
            raise BadShard(f"{self.structure.path}: sample {meta['id']} names a source that does not exist, {row}")
        return ShardSample({name: self.item(name, index) for name in names}, meta, self.item("source", row)[()])

    def stored(self, name: str, index: int) -> bytes:
        """Return the compressed bytes of item `index`."""
        offset, size = self.table(name)[index]
        return self._read(name, np.empty(size, np.uint8), int(offset)).tobytes()

    def table(self, name: str) -> np.ndarray:
        """Return offset and stored bytes (n, 2) of the items of a compressed dataset."""
        if name not in self._tables:
            self._tables[name] = chunk_table(self.structure, name)
        return self._tables[name]

    def _inflated(self, region: Region, index: int) -> np.ndarray:
        where = f"{self.structure.path}: item {index} of /{region.name}"
        inflater = zlib.decompressobj()
        try:
            # One byte more than expected is asked for, so that a bomb stops there.
            data = inflater.decompress(self.stored(region.name, index), region.item_bytes + 1)
        except zlib.error as error:
            raise BadShard(f"{where} cannot be decompressed: {error}") from error
        if len(data) != region.item_bytes or not inflater.eof or inflater.unused_data:
            raise BadShard(f"{where} does not decompress to the {region.item_bytes} bytes of a sample")
        return np.frombuffer(bytearray(data), region.dtype).reshape(region.shape)

    def _read(self, name: str, out: np.ndarray, offset: int) -> np.ndarray:
        """Return `out` after filling it from `offset` on; ``pread`` needs no position, so threads do not collide."""
        got = os.preadv(self._descriptor, (out,), offset)
        if got == out.nbytes:
            return out
        rest = memoryview(out.reshape(-1).view(np.uint8))[got:]
        while got and rest:
            got = os.preadv(self._descriptor, (rest,), offset + out.nbytes - len(rest))
            rest = rest[got:]
        if rest:
            raise BadShard(f"{self.structure.path} was cut short after it was opened, within /{name}")
        return out


def _fitting(out: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, name: str) -> np.ndarray:
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be a contiguous {dtype} array of {shape} for /{name}, got {out.dtype} of {out.shape}"
        )
    return out


class SourceIndex:
    """The distinct sources of many shards, numbered in the order in which samples use them."""

    def __init__(self):
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def place(self, file: ShardFile) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of ``/meta`` of `file`, its sources numbered anew, and the sources that are new."""
        meta, sources = file.sealed_rows("meta"), file.sealed_rows("source")
        used, first = np.unique(meta["source"], return_index=True)
        if np.any(used >= len(sources)):
            raise BadShard(f"{file.structure.path}: a sample names source {used[-1]}, and there are {len(sources)}")
        numbers, new = np.zeros(len(sources), META["source"]), []
        for row in used[np.argsort(first)]:
            digest = blake2b(sources[row].tobytes(), digest_size=16).digest()
            if digest not in self._numbers:
                self._numbers[digest] = len(self._numbers)
                new.append(row)
            numbers[row] = self._numbers[digest]
        meta["source"] = numbers[meta["source"]]
        return seal_rows(meta), sources[np.array(new, np.int64)]
