"""Which files a set of shards consists of: listed by a master, or found in a folder."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from blurgen.shards.drafts import write_atomically
from blurgen.shards.files import ShardFile
from blurgen.shards.layout import MANIFEST, MASTER, MAX_KEY, VERSION, BadShard, Layout, seal_rows
from blurgen.shards.structure import Structure, parse
from blurgen.shards.writing import as_bytes, sealed_texts, skeleton

_SEEN = np.dtype([("key", np.uint64), ("contents", np.uint64), ("file", np.uint32)])

Paths = str | os.PathLike | Iterable[str | os.PathLike]


@dataclass(frozen=True)
class Part:
    """One file of a set, and what is expected of it."""

    path: Path
    count: int
    size: int
    digest: bytes | None = None
    structure: Structure | None = None

    def open(self, layout: Layout | None = None) -> ShardFile:
        """Return the opened file, after comparing it with what is expected."""
        file = ShardFile(self.structure or parse(self.path))
        found = file.structure
        if found.kind == MASTER or (found.identity[0], len(file)) != (self.size, self.count):
            raise BadShard(f"{self.path} is not the shard of {self.count} samples, {self.size} bytes that was listed")
        if layout and found.layout != layout:
            raise BadShard(f"{self.path} has another layout than the shards before it: {found.layout}")
        return file


def parts(path: Path) -> tuple[list[Part], dict[str, Any]]:
    """Return the files of a set in the order of their samples, and the attributes on which they agree."""
    if path.is_dir():
        # Numbered names ascend by length first.
        names = sorted(path.glob("[!.]*.h5"), key=lambda one: (len(one.name), one.name))
        found = [parse(name) for name in names]
        if not found:
            raise BadShard(f"{path} holds no finished shard: run `blurgen make` to fill it")
        return [_part(structure) for structure in found], _agreed([structure.attrs for structure in found])
    structure = parse(path)
    if structure.kind != MASTER:
        return [_part(structure)], structure.attrs
    return listed(structure), structure.attrs


def listed(structure: Structure) -> list[Part]:
    """Return the files that a master lists."""
    rows = ShardFile(structure).sealed_rows("manifest")
    return [_listed(structure.path.parent, row) for row in rows]


def shard_paths(path: str | os.PathLike) -> list[Path]:
    """Return the files of a set, of a folder, a master or one shard, in the order of their samples."""
    return [part.path for part in parts(Path(path))[0]]


def digest(file: ShardFile) -> bytes:
    """Return the SHA-256 of the rows and attributes of a shard, which hold the checksums of all the rest."""
    hasher = sha256(repr(sorted(file.structure.texts.items())).encode("ascii"))
    for name in ("meta", "source"):
        hasher.update(as_bytes(file.rows(name)))
    return hasher.digest()


def gather(paths: Paths) -> tuple[list[Part], dict[str, Any]]:
    """Return the files behind shards, masters and folders, and the attributes on which all of them agree.

    Raises
    ------
    BadShard
        There are none.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    found = [parts(Path(path)) for path in several]
    if not found:
        raise BadShard("there is no shard among the paths: run `blurgen make` to make some")
    return [part for listing, _ in found for part in listing], _agreed([attrs for _, attrs in found])


def write_master(paths: Paths, out: str | os.PathLike, attrs: Mapping[str, Any] | None = None) -> int:
    """Write the master of finished shards, which `open_shards` reads as if it held them, and return its samples.

    Parameters
    ----------
    paths : path or iterable of paths
        Shards, folders of shards or masters, in the order of their samples, all below the folder of `out`.
    out : path
        The master; replaced where it exists.
    attrs : mapping, optional
        Its attributes; by default those on which all shards agree.

    Raises
    ------
    BadShard
        Shards that do not belong together, or ids that do not ascend from one to the next.
    OSError
        `out` can't be written.
    """
    out = Path(out)
    members, shared = gather(paths)
    rows = [_row(file, out.parent) for file in in_order(members)]
    manifest = seal_rows(np.array(rows, MANIFEST))
    texts = sealed_texts({"format": MASTER, "version": str(VERSION)}, shared if attrs is None else attrs)
    bones = skeleton({"manifest": (manifest.shape, MANIFEST)}, texts)
    write_atomically(out, [*bones.pieces, (bones.offsets["manifest"], as_bytes(manifest))], bones.size)
    return int(manifest["count"].sum())


def in_order(members: Iterable[Part]) -> Iterator[ShardFile]:
    """Yield the files of a set, after checking that each belongs to it and comes next.

    Raises
    ------
    BadShard
        Another layout or codec, ids that do not ascend, or an image that changed from one to the next.
    """
    first, last, images = None, -1, _Images()
    for part in members:
        file = part.open()
        ids = file.sealed_rows("meta")["id"].astype(np.int64)
        if first and not _alike(file, first):
            raise BadShard(f"{part.path} holds other arrays than {first.structure.path}, or in another codec")
        if np.any(np.diff(ids, prepend=last) <= 0):
            raise BadShard(f"{part.path} has ids that do not ascend after {last}: a shard is doubled or out of order")
        images.take(part, file)
        first = first if first and len(first) else file
        last = int(ids[-1]) if len(file) else last
        yield file
    images.check()


class _Images:
    """The images of a set, to notice one that was changed while the set was made."""

    def __init__(self):
        self._parts: list[Part] = []
        # A few bits of each key and of its contents: a set may have ten million images.
        self._seen: list[np.ndarray] = []

    def take(self, part: Part, file: ShardFile) -> None:
        """Take in the images of a file, opened."""
        sources = file.sealed_rows("source")
        seen = np.empty(len(sources), _SEEN)
        seen["key"] = [_key_bits(key) for key in sources["key"].tolist()]
        seen["contents"] = np.ascontiguousarray(sources["sha256"][:, :8]).view(np.uint64)[:, 0]
        seen["file"] = len(self._parts)
        self._parts.append(part)
        self._seen.append(seen)

    def check(self) -> None:
        """Raise BadShard where an image is another one than in a file before."""
        seen = np.concatenate(self._seen) if self._seen else np.empty(0, _SEEN)
        seen = seen[np.argsort(seen["key"], kind="stable")]
        before, after = seen[:-1], seen[1:]
        changed = (before["key"] == after["key"]) & (before["contents"] != after["contents"])
        for earlier, later in zip(before[changed], after[changed], strict=True):
            part, other = self._parts[later["file"]], self._parts[earlier["file"]]
            keys = part.open().sealed_rows("source")["key"].tolist()
            key = next(key for key in keys if _key_bits(key) == later["key"])
            raise BadShard(
                f"{part.path}: the image {key.decode('utf-8', 'replace')!r} is another one than in {other.path}: "
                "it changed while the set was made; put it back, or remove both files"
            )


def _key_bits(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest())


def _alike(file: ShardFile, other: ShardFile) -> bool:
    """Whether two files may belong to one set; one without samples has no codec."""
    same_codec = file.structure.compressed == other.structure.compressed
    return file.structure.layout == other.structure.layout and (same_codec or not len(file) or not len(other))


def _agreed(several: list[dict[str, Any]]) -> dict[str, Any]:
    first = several[0]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in several)}


def _row(file: ShardFile, folder: Path) -> tuple:
    structure = file.structure
    name = os.fsencode(Path(os.path.relpath(structure.path, folder)).as_posix())
    if len(name) > MAX_KEY or name.startswith(b"../"):
        raise BadShard(f"{structure.path} must lie below {folder.absolute()}, where its master is to be")
    return name, structure.identity[0], len(file), np.frombuffer(digest(file), np.uint8), 0


def _part(structure: Structure) -> Part:
    if structure.kind == MASTER:
        raise BadShard(f"{structure.path} is a master in a folder of shards: open it by its own name")
    return Part(structure.path, structure.regions["meta"].count, structure.identity[0], structure=structure)


def _listed(folder: Path, row: np.void) -> Part:
    name = PurePosixPath(os.fsdecode(bytes(row["name"])))
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise BadShard(f"the manifest names a file outside of its folder, {str(name)!r}")
    return Part(folder / name, int(row["count"]), int(row["size"]), row["digest"].tobytes())
