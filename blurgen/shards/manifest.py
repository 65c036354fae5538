"""Which files a set of shards consists of: listed by a master, or found in a folder."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from blurgen.shards.files import ShardFile
from blurgen.shards.layout import MANIFEST, MASTER, VERSION, BadShard, Layout, seal_rows
from blurgen.shards.structure import Structure, parse
from blurgen.shards.writing import as_bytes, sealed_texts, skeleton, write_pieces


@dataclass(frozen=True)
class Part:
    """One file of a set, and what is expected of it."""

    path: Path
    count: int
    size: int
    digest: bytes | None = None

    def open(self, layout: Layout | None = None) -> ShardFile:
        """Return the opened file, after comparing it with what is expected."""
        file = ShardFile(self.path)
        found = file.structure
        if (found.identity[0], len(file)) != (self.size, self.count):
            raise BadShard(
                f"{self.path} has {found.identity[0]} bytes and {len(file)} samples instead of {self.size} and "
                f"{self.count}: it was replaced after it was listed"
            )
        if layout and found.layout != layout:
            raise BadShard(f"{self.path} has another layout than the shards before it: {found.layout}")
        return file


def parts(path: Path) -> tuple[list[Part], dict[str, Any]]:
    """Return the files of a set in the order of their samples, and the attributes that speak for all of it."""
    if path.is_dir():
        found = [parse(one) for one in shard_paths(path)]
        if not found:
            raise BadShard(f"{path} holds no finished shard: run `blurgen make` to fill it")
        return [_part(structure) for structure in found], found[0].attrs
    structure = parse(path)
    if structure.kind != MASTER:
        return [_part(structure)], structure.attrs
    return listed(structure), structure.attrs


def listed(structure: Structure) -> list[Part]:
    """Return the files that a master lists."""
    rows = ShardFile(structure.path).sealed_rows("manifest")
    return [_listed(structure.path.parent, row) for row in rows]


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a folder in the order of their numbers."""
    return sorted(folder.glob("[!.]*.h5"), key=lambda path: (len(path.name), path.name))


def digest(file: ShardFile) -> bytes:
    """Return the SHA-256 of the rows and attributes of a shard, which hold the checksums of all the rest."""
    hasher = sha256(repr(sorted(file.structure.texts.items())).encode("ascii"))
    for name in ("meta", "source"):
        hasher.update(as_bytes(file.rows(name)))
    return hasher.digest()


def write_master(
    paths: Iterable[str | os.PathLike], out: str | os.PathLike, attrs: Mapping[str, Any] | None = None
) -> int:
    """Write the master of finished shards, which `open_shards` reads as if it held them, and return its samples.

    Parameters
    ----------
    paths : iterable of paths
        The shards in the order of their samples, all below the folder of `out`.
    out : path
        The master; replaced where it exists.
    attrs : mapping, optional
        Attributes beside those of the shards, such as a summary of the run.

    Raises
    ------
    BadShard
        Shards that do not belong together, or ids that do not ascend from one to the next.
    OSError
        `out` can't be written.
    """
    out, rows, last, shared = Path(out), [], -1, None
    for path in map(Path, paths):
        file = ShardFile(path)
        shared, last = continues(file, shared, last)
        rows.append(_row(file, out.parent))
    if not rows:
        raise BadShard(f"{out} would list no shard at all: run `blurgen make` to make some")
    manifest = seal_rows(np.array(rows, MANIFEST))
    texts = sealed_texts({"format": MASTER, "version": str(VERSION)}, {**shared.attrs, **(attrs or {})})
    bones = skeleton({"manifest": (manifest.shape, MANIFEST)}, texts)
    write_pieces(out, bones.size, [*bones.pieces, (bones.offsets["manifest"], as_bytes(manifest))])
    return int(manifest["count"].sum())


def continues(file: ShardFile, shared: Structure | None, last: int) -> tuple[Structure, int]:
    """Return the structure that all shards agree with, and the last id, after checking that `file` comes next."""
    structure, ids = file.structure, file.sealed_rows("meta")["id"]
    if shared and maker(structure) != maker(shared):
        raise BadShard(f"{structure.path} was made by another plan than {shared.path}: keep one plan to a folder")
    if int(ids[0]) <= last or np.any(ids[1:] <= ids[:-1]):
        raise BadShard(f"{structure.path} has ids that do not ascend after {last}: shards are missing or doubled")
    return shared or structure, int(ids[-1])


def maker(structure: Structure) -> tuple:
    """Return what the files of one set have in common."""
    return structure.layout, structure.compressed, structure.texts


def _row(file: ShardFile, folder: Path) -> tuple:
    structure = file.structure
    name = Path(os.path.relpath(structure.path, folder)).as_posix().encode()
    return name, structure.identity[0], len(file), np.frombuffer(digest(file), np.uint8), 0


def _part(structure: Structure) -> Part:
    if structure.kind == MASTER:
        raise BadShard(f"{structure.path} is a master in a folder of shards: open it by its own name")
    return Part(structure.path, structure.regions["meta"].count, structure.identity[0])


def _listed(folder: Path, row: np.void) -> Part:
    name = PurePosixPath(bytes(row["name"]).decode("utf-8", "surrogateescape"))
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise BadShard(f"the manifest names a file outside of its folder, {str(name)!r}")
    return Part(folder / name, int(row["count"]), int(row["size"]), row["digest"].tobytes())
