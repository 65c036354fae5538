"""Everything that must hold in a finished set, checked one statement at a time."""

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from blurgen.shards.files import ShardFile
from blurgen.shards.layout import BadShard, row_checksums
from blurgen.shards.manifest import Part, digest, in_order, parts
from blurgen.shards.structure import index_problem

_BLOCK_ROWS = 1 << 14
# Summed in float64 and stored in float32, the sum of a kernel is off by a few 1e-8.
_SUM_TOLERANCE = 1e-5
# Probabilities in float16 are off by 2^-11 of each.
_PRIOR_TOLERANCE = 2e-3


def problems(path: str | os.PathLike) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with a file, a master or a folder of shards; none if it is sound.

    This reads every byte, in this process: `verify` does the same in one that may be lost.
    """
    found = False
    try:
        members = parts(Path(path))[0]
        for part in members:
            for sentence in _part_problems(part):
                found = True
                yield sentence
        # Files that are damaged already would only be named again.
        if len(members) > 1 and not found:
            deque(in_order(members), maxlen=0)
    except (BadShard, OSError) as error:
        yield _said(error)


def _said(error: BadShard | OSError) -> str:
    """Return what an error says of a file, without its number."""
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def _part_problems(part: Part) -> Iterator[str]:
    try:
        file = part.open()
        if part.digest is not None and part.digest != digest(file):
            yield f"{part.path}: its rows and attributes do not agree with the manifest"
        yield from file_problems(file)
    except (BadShard, OSError) as error:
        yield _said(error)


def file_problems(file: ShardFile) -> Iterator[str]:
    """Yield a sentence for everything that is wrong within one file."""
    yield from _index_problems(file)
    for check in (_source_problems, _meta_problems, _data_problems):
        for sentence in check(file):
            yield f"{file.structure.path}: {sentence}"


def _index_problems(file: ShardFile) -> Iterator[str]:
    for name in file.structure.layout.arrays:
        sentence = index_problem(file.structure, name)
        if sentence:
            yield sentence


def _source_problems(file: ShardFile) -> Iterator[str]:
    seen: set[bytes] = set()
    for start, rows in _blocks(file, "source"):
        wrong = {
            "does not agree with its checksum": rows["row_crc32"] != row_checksums(rows),
            "has no key": rows["key"] == b"",
            "has no group": rows["group"] == b"",
            "has no pixels": (rows["width"] == 0) | (rows["height"] == 0),
        }
        for claim, bad in wrong.items():
            yield from (f"source {start + row} {claim}" for row in np.flatnonzero(bad))
        for row, key in enumerate(rows["key"], start):
            if key in seen:
                yield f"source {row} has the key of another one, {bytes(key).decode('utf-8', 'replace')!r}"
            seen.add(key)


def _meta_problems(file: ShardFile) -> Iterator[str]:
    last, sources, crop = -1, file.structure.regions["source"].count, file.structure.layout.crop
    for _, rows in _blocks(file, "meta"):
        t0, t1 = rows["exposure"].T
        before = np.concatenate([[last], rows["id"][:-1].astype(np.int64)])
        with np.errstate(all="ignore"):
            wrong = {
                "does not agree with the checksum of its row": rows["row_crc32"] != row_checksums(rows),
                "has an id that does not ascend": rows["id"].astype(np.int64) <= before,
                "names a source that does not exist": rows["source"] >= sources,
                "has a number that is not finite": ~_finite(rows),
                "has a scale that is not crop / side": ~np.isclose(rows["scale"] * rows["side"], crop, rtol=1e-6),
                "has an exposure outside of 0 <= t0 <= t1 <= 1": ~((t0 >= 0) & (t0 <= t1) & (t1 <= 1)),
            }
        for claim, bad in wrong.items():
            yield from (f"sample {rows['id'][row]} {claim}" for row in np.flatnonzero(bad))
        last = int(rows["id"][-1].astype(np.int64))


def _finite(rows: np.ndarray) -> np.ndarray:
    floats = [name for name in rows.dtype.names if rows.dtype[name].base.kind == "f"]
    return np.all([np.isfinite(rows[name].reshape(len(rows), -1)).all(1) for name in floats], axis=0)


def _data_problems(file: ShardFile) -> Iterator[str]:
    names = list(file.structure.layout.arrays)
    for start, rows in _blocks(file, "meta"):
        for row, meta in enumerate(rows):
            for column, name in enumerate(names):
                for claim in _item_problems(file, name, start + row, meta["crc32"][column]):
                    yield f"/{name} of sample {meta['id']} {claim}"
            if np.any(meta["crc32"][len(names) :]):
                yield f"sample {meta['id']} has checksums of arrays that do not exist"


def _item_problems(file: ShardFile, name: str, index: int, checksum: int) -> Iterator[str]:
    try:
        item = file.item(name, index)
    except BadShard as error:
        yield f"cannot be read: {error}"
        return
    if zlib.crc32(item) != checksum:
        yield "does not agree with its checksum"
    if name in _CHECKS:
        yield from _CHECKS[name](item)


def _kernel_problems(kernel: np.ndarray) -> Iterator[str]:
    if not np.isfinite(kernel).all():
        yield "holds a value that is not finite"
    elif kernel.min() < 0:
        yield f"holds a negative value, {kernel.min()}"
    elif abs(kernel.sum(dtype=np.float64) - 1) > _SUM_TOLERANCE:
        yield f"sums to {kernel.sum(dtype=np.float64)} instead of 1"


def _prior_problems(prior: np.ndarray) -> Iterator[str]:
    with np.errstate(all="ignore"):
        sums = prior.sum(axis=0, dtype=np.float64)
    if not np.isfinite(sums).all():
        yield "holds a value that is not finite"
    elif prior.min() < 0:
        yield f"holds a negative value, {prior.min()}"
    elif np.abs(sums - 1).max() > _PRIOR_TOLERANCE:
        yield f"has classes that sum to {sums.flat[np.abs(sums - 1).argmax()]:g} instead of 1"


def _transcript_problems(transcript: np.ndarray) -> Iterator[str]:
    text = transcript.tobytes().rstrip(b"\0")
    if b"\0" in text:
        yield "holds a NUL within its text"
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        yield f"is no UTF-8: {error}"


# What the bytes of an array say beyond their checksum.
_CHECKS: dict[str, Callable[[np.ndarray], Iterator[str]]] = {
    "kernel": _kernel_problems,
    "prior": _prior_problems,
    "transcript": _transcript_problems,
}


def _blocks(file: ShardFile, name: str) -> Iterator[tuple[int, np.ndarray]]:
    count = file.structure.regions[name].count
    for start in range(0, count, _BLOCK_ROWS):
        yield start, file.rows(name, start, min(_BLOCK_ROWS, count - start))
