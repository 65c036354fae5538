"""Photographs in and out: which files are meant, under which names their results are written, and the PNG itself."""

import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path, PurePath
from typing import NamedTuple

import cv2
import numpy as np

from blurgen.shards import write_atomically
from blurgen.sources.files import read_whole, with_regular_file
from blurgen.sources.full_depth import Pixels, decode_full_depth
from blurgen.sources.keys import is_data_name, is_image_name

_END_OF_PNG_HEADER = 33


class Input(NamedTuple):
    """A file that is meant to be an image, and its name relative to the folder or file that was asked for."""

    path: Path
    name: PurePath


def find_inputs(paths: Iterable[Path], out: Path) -> list[Input]:
    """Return the files that `paths` name: files as they are, folders with the images below them, in order of name.

    Hidden files, and those below `out`, are not looked for in folders.

    Raises
    ------
    ValueError
        A folder is `out` itself, so that results would be taken for inputs; or there is nothing to be done.
    """
    inputs: dict[Input, None] = {}
    paths = list(paths)
    for path in paths:
        if not path.is_dir():
            inputs[Input(path, PurePath(path.name))] = None
            continue
        if out.is_dir() and path.samefile(out):
            raise ValueError(f"--out {out} is the folder of the inputs: name another one")
        inputs.update(dict.fromkeys(_below(path, out)))
    if not inputs:
        raise ValueError(f"there are no images in {', '.join(map(str, paths))}")
    return list(inputs)


def _below(root: Path, out: Path) -> Iterator[Input]:
    out = out.resolve()
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if is_data_name(name) and Path(folder, name).resolve() != out)
        for name in sorted(files):
            if is_data_name(name) and is_image_name(name):
                path = Path(folder, name)
                yield Input(path, path.relative_to(root))


def name_outputs(names: Sequence[PurePath]) -> list[PurePath]:
    """Return a name for the result of each input, relative to the folder of results, without its ``.png``.

    It is the input's without the suffix; with the suffix where inputs differ in nothing else; and with a number where
    they do not even differ in that. No two are equal, and none is the folder of another, upper and lower case alike.

    Examples
    --------
    >>> [str(name) for name in name_outputs([PurePath("a/b.jpg"), PurePath("c.jpg"), PurePath("c.png")])]
    ['a/b', 'c.jpg', 'c.png']
    """
    stems = [name.with_suffix("") if is_image_name(name.name) else name for name in names]
    users = Counter(map(_folded, stems))
    folders = {_folded(folder) for name in names for folder in name.parents}
    taken: set[str] = set()
    chosen = []
    for name, stem in zip(names, stems, strict=True):
        wanted = candidate = name if users[_folded(stem)] > 1 else stem
        number = 1
        while _folded(candidate) in taken or _folded(candidate) + ".png" in folders:
            number += 1
            candidate = wanted.with_name(f"{wanted.name}-{number}")
        taken.add(_folded(candidate))
        chosen.append(candidate)
    return chosen


def _folded(path: PurePath) -> str:
    return str(path).casefold()


def refuse_inputs_as_outputs(inputs: Iterable[Input], outputs: Iterable[Path]) -> None:
    """Raise a ValueError where an output is one of the inputs, by whatever name."""
    sources = {os.path.realpath(one.path) for one in inputs}
    for path in outputs:
        if os.path.realpath(path) in sources:
            raise ValueError(f"{path} is an input and would be overwritten: name another folder with --out")


def read_photograph(path: Path) -> tuple[Pixels, bytes]:
    """Return the pixels of an image file at their full depth, and the digest of its bytes; raises `BadImage`."""
    data = with_regular_file(os.fspath(path), read_whole)
    return decode_full_depth(data), sha256(data).digest()


def write_png(path: Path, pixels: Pixels) -> None:
    """Write an image as PNG of its own depth, whole or not at all; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = encode_png(pixels)
    write_atomically(path, [(0, data)], len(data))


def encode_png(pixels: Pixels) -> bytes:
    """Return a PNG of 8 or 16 bits with the alpha and the profile of the pixels, and no other tag."""
    channels = [pixels.colors[..., ::-1]] + ([] if pixels.alpha is None else [pixels.alpha[..., None]])
    encoded, data = cv2.imencode(".png", np.concatenate(channels, axis=2))
    if not encoded:
        raise ValueError(f"an image of {pixels.colors.shape[1]}x{pixels.colors.shape[0]} px cannot be written as PNG")
    png = data.tobytes()
    if pixels.profile is None:
        return png
    profile = _chunk(b"iCCP", b"profile\0\0" + zlib.compress(pixels.profile))
    return png[:_END_OF_PNG_HEADER] + profile + png[_END_OF_PNG_HEADER:]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
