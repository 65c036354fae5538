"""All that HDF5 is asked about a file that somebody else may have made: what it holds, and where."""

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5o, h5t, h5z

from blurgen.shards.confining import call_confined
from blurgen.shards.headers import check_start, is_simple
from blurgen.shards.layout import FORMAT, MANIFEST, MASTER, META, SOURCE, VERSION, BadShard

_MAX_LINKS, _MAX_ATTRS, _MAX_ATTR_BYTES, _MAX_ROWS = 64, 64, 1 << 26, 1 << 40
_NAMES = re.compile(r"meta|source|manifest|kernel|(sharp|blurred)(_x\d{1,3})?|label|prior|transcript")
_TABLES = {"meta": META, "source": SOURCE, "manifest": MANIFEST}
# All others hold bytes: levels, ids, or text.
_DTYPES = _TABLES | {"kernel": np.dtype("<f4"), "prior": np.dtype("<f2")}
# What h5py raises on a damaged file depends on where the damage is.
_H5PY_ERRORS = (RuntimeError, KeyError, ValueError, TypeError, AttributeError, ArithmeticError, NotImplementedError)


@dataclass(frozen=True)
class Region:
    """A dataset: item i lies at ``offset + i * item_bytes``, or, where ``offset`` is None, where its chunk is."""

    name: str
    count: int
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int | None

    @property
    def item_bytes(self) -> int:
        """Bytes of one item."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Scan:
    """What HDF5 says of a file, and what the file was on disk when it was asked."""

    regions: dict[str, Region]
    texts: dict[str, str]
    identity: tuple[int, ...]


def scan(path: Path) -> Scan:
    """Return what a file holds, after refusing what format 1 does not allow.

    Raises
    ------
    BadShard
        Without the path in its message.
    OSError
        The file can't be opened at all.
    """
    said = _asked(path, "facts")
    regions = {
        name: Region(name, count, tuple(shape), _dtype_of(name), at) for name, count, shape, at in said["regions"]
    }
    return Scan(regions, said["texts"], tuple(said["identity"]))


def scan_chunks(path: Path, name: str, count: int) -> np.ndarray:
    """Return offset and stored bytes (count, 2) int64 of the chunks of ``/name``, one an item; raises as `scan`."""
    return np.array(_asked(path, "chunks", name, count), np.int64).reshape(-1, 2)


def _asked(path: Path, what: str, *arguments: Any) -> Any:
    """Return what a function of this module says of a file: of an unusual one, in a process that may be lost."""
    with open_regular(path) as stream:
        check_start(stream.fileno())
        simple = is_simple(stream.fileno())
    function = {"facts": facts, "chunks": chunks}[what]
    where = os.fspath(path)
    return function(where, *arguments) if simple else call_confined(f"{__name__}:{what}", where, *arguments)


def facts(path: str) -> dict[str, Any]:
    """Return as plain data what `scan` returns."""
    with _hdf5_errors(), open_regular(Path(path)) as stream, h5py.File(stream, "r") as file:
        identity = identify(stream.fileno())
        texts = _texts(file.id)
        _check_kind(texts)
        regions = [_region(file.id, name, identity[0]) for name in _names(file.id)]
    listed = [(region.name, region.count, region.shape, region.offset) for region in regions]
    return {"regions": listed, "texts": texts, "identity": identity}


def chunks(path: str, name: str, count: int) -> list[list[int]]:
    """Return as plain data what `scan_chunks` returns."""
    table, found = np.zeros((count, 2), np.int64), 0

    def note(chunk) -> bool | None:
        nonlocal found
        found += 1
        index = chunk.chunk_offset[0]
        if found > count or index >= count or any(chunk.chunk_offset[1:]) or chunk.filter_mask:
            return True
        table[index] = chunk.byte_offset, chunk.size
        return None

    with _hdf5_errors(), open_regular(Path(path)) as stream, h5py.File(stream, "r") as file:
        stopped = h5d.open(file.id, name.encode()).chunk_iter(note)
    if stopped or found != count:
        raise BadShard(f"/{name} does not have one chunk for each of its {count} samples")
    return table.tolist()


def open_regular(path: Path) -> io.FileIO:
    """Return a regular file, opened for reading.

    HDF5 reads through it, which leaves out its locks: they fail on network and read-only file systems, and collide
    with those of a user who has the same file open.
    """
    # A FIFO would block here without O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadShard("not a regular file")
    return io.FileIO(descriptor)


def identify(descriptor: int) -> tuple[int, ...]:
    """Return size, device, inode and time of change; a file that is opened again must still have them."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns


@contextmanager
def _hdf5_errors() -> Iterator[None]:
    try:
        yield
    except BadShard:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadShard(f"HDF5 cannot read it ({error})") from error
    except _H5PY_ERRORS as error:
        raise BadShard(f"HDF5 cannot read it ({error})") from error


def _texts(file) -> dict[str, str]:
    count = h5a.get_num_attrs(file)
    if count > _MAX_ATTRS:
        raise BadShard(f"it has {count} attributes, and at most {_MAX_ATTRS} are allowed")
    attributes = [h5a.open(file, index=index) for index in range(count)]
    return {attribute.name.decode("utf-8", "replace"): _text(attribute) for attribute in attributes}


def _text(attribute) -> str:
    kind, name = attribute.get_type(), attribute.name.decode("utf-8", "replace")
    if kind.get_class() != h5t.STRING or kind.is_variable_str():
        raise BadShard(f"the attribute {name} is not a fixed-size string")
    if attribute.get_space().get_simple_extent_npoints() != 1 or not 0 < kind.get_size() <= _MAX_ATTR_BYTES:
        raise BadShard(f"the attribute {name} is not one string of at most {_MAX_ATTR_BYTES} bytes")
    value = np.empty((), f"S{kind.get_size()}")
    attribute.read(value)
    try:
        return value.item().decode("ascii")
    except UnicodeDecodeError:
        raise BadShard(f"the attribute {name} is not ASCII") from None


def _check_kind(texts: dict[str, str]) -> None:
    kind, version = texts.get("format"), texts.get("version")
    if kind not in (FORMAT, MASTER):
        raise BadShard(f"its attribute format is {kind!r}, neither {FORMAT!r} nor {MASTER!r}")
    if version != str(VERSION):
        raise BadShard(f"its version is {version}, and this blurgen reads {VERSION}: get a newer one")


def _names(file) -> list[str]:
    names: list[str] = []

    def visit(name: bytes) -> bool | None:
        names.append(name.decode("utf-8", "replace"))
        return len(names) > _MAX_LINKS or None

    file.links.iterate(visit)
    if len(names) > _MAX_LINKS:
        raise BadShard(f"it has more than {_MAX_LINKS} entries")
    return names


def _region(file, name: str, size: int) -> Region:
    if not _NAMES.fullmatch(name):
        raise BadShard(f"/{name} is not part of the format")
    link = file.links.get_info(name.encode()).type
    if link != h5l.TYPE_HARD:
        kinds = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link"}
        raise BadShard(f"/{name} is {kinds.get(link, 'a link of an unknown kind')}, not data of its own")
    about = h5o.get_info(file, name.encode())
    if about.type != h5o.TYPE_DATASET:
        raise BadShard(f"/{name} is not a dataset")
    if about.num_attrs:
        raise BadShard(f"/{name} has attributes of its own, which are not part of the format")
    dataset = h5d.open(file, name.encode())
    plist = dataset.get_create_plist()
    dtype = _dtype(name, dataset.get_type())
    shape = dataset.shape
    count = shape[0] if shape else -1
    gzip = _check_storage(name, plist, count)
    space = dataset.get_space()
    if space.get_simple_extent_dims(True) != shape or not 0 <= count < _MAX_ROWS:
        raise BadShard(f"/{name} has the absurd or growing shape {shape}")
    item = Region(name, count, tuple(shape[1:]), dtype, None)
    if plist.get_layout() == h5d.CHUNKED and plist.get_chunk() != (1, *item.shape):
        raise BadShard(f"/{name} has chunks of shape {plist.get_chunk()} instead of one sample each")
    if item.item_bytes > 1 << 30 or (not gzip and count * item.item_bytes > size):
        raise BadShard(f"/{name} has the shape {shape}, more than a file of {size} bytes can hold")
    return item if gzip else Region(name, count, item.shape, dtype, _offset(name, dataset, plist, item))


def _dtype(name: str, kind) -> np.dtype:
    for label, test in (("variable-length data", h5t.VLEN), ("references", h5t.REFERENCE)):
        if kind.detect_class(test) or (test == h5t.VLEN and _variable_string(kind)):
            raise BadShard(f"/{name} holds {label}, which are not allowed")
    expected = _dtype_of(name)
    if not kind.equal(h5t.py_create(expected)):
        raise BadShard(f"/{name} has the type {_described(kind)} instead of {expected}")
    return expected


def _dtype_of(name: str) -> np.dtype:
    return _DTYPES.get(name, np.dtype("u1"))


def _variable_string(kind) -> bool:
    return kind.get_class() == h5t.STRING and kind.is_variable_str()


def _described(kind) -> str:
    try:
        return str(kind.dtype)[:200]
    except (TypeError, ValueError, NotImplementedError):
        return f"class {kind.get_class()}"


def _check_storage(name: str, plist, count: int) -> bool:
    """Return whether the dataset is compressed, after refusing every kind of storage but two."""
    if plist.get_layout() == h5d.VIRTUAL:
        raise BadShard(f"/{name} is a virtual dataset, whose data would lie in other files")
    if plist.get_external_count():
        raise BadShard(f"/{name} has external storage: its data would lie in another file")
    in_one_piece = name in _TABLES or not count
    if plist.get_layout() != (h5d.CONTIGUOUS if in_one_piece else h5d.CHUNKED):
        raise BadShard(f"/{name} is not stored in {'one piece' if in_one_piece else 'chunks'}")
    filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    if filters not in ([], [h5z.FILTER_DEFLATE]):
        raise BadShard(f"/{name} uses the filters {filters}, and none but gzip is allowed")
    return bool(filters)


def _offset(name: str, dataset, plist, item: Region) -> int:
    """Return where a raw dataset begins, in a file where its items follow each other."""
    if plist.get_layout() == h5d.CONTIGUOUS:
        start = dataset.get_offset()
        if start is None and item.count:
            raise BadShard(f"/{name} has no data")
        return start or 0
    if plist.get_alloc_time() != h5d.ALLOC_TIME_EARLY:
        raise BadShard(f"/{name} was not allocated when it was created, as blurgen does")
    zeros = (0,) * len(item.shape)
    probes = {0, item.count // 2, item.count - 1}
    infos = {index: dataset.get_chunk_info_by_coord((index, *zeros)) for index in probes}
    start = infos[0].byte_offset
    for index, info in infos.items():
        if info.byte_offset is None or info.filter_mask or info.size != item.item_bytes:
            raise BadShard(f"chunk {index} of /{name} is missing, short or over-long")
        if info.byte_offset != start + index * item.item_bytes:
            raise BadShard(f"chunk {index} of /{name} does not follow those before it")
    return start
