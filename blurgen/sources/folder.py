"""Images in a folder: all of them, those that match globs, or those that a text file names."""

import codecs
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from blurgen.sources import BadImage, Entry, Picture, sorted_once
from blurgen.sources.decode import decode, image_size
from blurgen.sources.files import OnDemand, read_whole, with_regular_file
from blurgen.sources.globs import find, leads_inside
from blurgen.sources.keys import MAX_SPLIT_BYTES, check_text, decode_key, encode_key, group_of

EVERYTHING = (("", "**/*"),)
# More makes no list of paths or groups.
_MAX_LIST_BYTES = 1 << 28


@dataclass(frozen=True)
class FolderSource:
    """The images below a folder.

    Hidden files and folders are left out in silence. What has the name of an image and cannot be one (a folder, a pipe,
    a link that leads out of `root`) is listed, so that `read` can say so.

    Parameters
    ----------
    root : str
        The folder.
    globs : tuple of (split, pattern)
        Which files, by patterns relative to `root`; ``**`` stands for any number of folders.
    listing : str
        A text file with one path a line, relative to `root` or absolute, that takes the place of `globs`. Blank lines
        and those that start with ``#`` are comments; ``./#1.png`` is a path.
    group : str
        Regular expression whose groups, found in a key, name what the image shows (see `keys.group_of`).
    group_file : str
        A text file below `root` that gives the group of each file name: ``000001.jpg 2880``.
    split_lists : tuple of (split, file)
        Text files below `root` with the paths of a split, any number a line.
    split_table : str
        A text file below `root` with a file name and a value a line, which `split_values` turns into a split.
    split_values : tuple of (value, split)
        What the values of `split_table` mean.
    labels : tuple of (pattern, paths)
        Rules that lead from the path of an image to those that its label map may have (see `maps.Beside`).
    splits : tuple of str
        Only these splits, where any are given.
    name, licence, author : str
        What the shards say of the images.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("group", "licence", "author")

    root: str
    globs: tuple[tuple[str, str], ...] = EVERYTHING
    listing: str = ""
    group: str = ""
    group_file: str = ""
    split_lists: tuple[tuple[str, str], ...] = ()
    split_table: str = ""
    split_values: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    splits: tuple[str, ...] = ()
    name: str = "folder"
    licence: str = ""
    author: str = ""

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return all entries, sorted by key; `count` changes nothing."""
        groups = {name: encode_key(group) for name, group, *_ in _rows(self.root, self.group_file)}
        splits = self._splits_by_path()
        found = []
        for split, path in self._paths():
            key, file_name = encode_key(path), os.path.basename(path)
            group = groups.get(file_name) or group_of(key, self.group)
            entry = Entry(key, group, splits.get(path) or splits.get(file_name) or split)
            if not self.splits or entry.split in self.splits:
                found.append(entry)
        return sorted_once(found)

    def read(self, key: str) -> Picture:
        """Return the picture with a key; raises `BadImage`."""
        data = self._with_file(key, read_whole)
        return Picture(decode(data), None, sha256(data).digest())

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) in px, from the header alone; raises `BadImage`."""
        return self._with_file(key, lambda descriptor, size: image_size(OnDemand(descriptor, size)))

    def has_images(self) -> bool:
        """Return whether there is anything to list, without listing it all."""
        return next(self._paths(), None) is not None

    def _paths(self) -> Iterator[tuple[str, str]]:
        """Yield (split, path relative to the root)."""
        if self.listing:
            yield from (("", path) for path in _listed_paths(self.root, self.listing))
            return
        for split, pattern in self.globs:
            yield from ((split, path) for path in find(self.root, pattern))

    def _splits_by_path(self) -> dict[str, str]:
        """Return the split of each path or file name that a list or the table mentions."""
        splits = {}
        for split, file in self.split_lists:
            for words in _rows(self.root, file):
                splits.update(dict.fromkeys(words, split))
        names = dict(self.split_values)
        for name, value, *_ in _rows(self.root, self.split_table):
            splits[name] = names.get(value) or _fitting(value, self.split_table)
        return splits

    def _with_file(self, key: str, use: Callable[[int, int], Any]) -> Any:
        path = os.path.join(self.root, decode_key(key))
        if not self.listing and not leads_inside(self.root, path):
            raise BadImage("outside-root", "the path leads out of the source; name the place it leads to as the source")
        return with_regular_file(path, use)


def _rows(root: str, file: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each line of a text file; nothing where the file is missing, since such files come apart."""
    path = Path(root, file)
    if not file or not path.is_file():
        return
    if not leads_inside(root, os.fspath(path)):
        raise ValueError(f"a file of groups or splits must lie below {root}, got {file}")
    for line in _lines(path):
        words = line.replace(",", " ").split()
        if len(words) >= 2:
            yield tuple(words)


def _fitting(split: str, file: str) -> str:
    encoded = encode_key(split)
    check_text(f"a split in {file}", encoded, MAX_SPLIT_BYTES)
    return encoded


def _listed_paths(root: str, listing: str) -> Iterator[str]:
    """Yield the paths that a text file names, relative to the root where they lie below it."""
    for line in _lines(Path(listing)):
        if line.strip() and not line.lstrip().startswith("#"):
            path = os.path.normpath(os.path.join(root, line))
            inside = path.startswith(os.path.join(os.path.normpath(root), ""))
            yield os.path.relpath(path, root) if inside else path


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file as file names are decoded, since names are what they hold."""
    if path.exists() and not path.is_file():
        raise ValueError(f"a list must be a file, got {path}")
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise ValueError(f"a list must have at most {_MAX_LIST_BYTES:,} bytes, but {path} has {path.stat().st_size:,}")
    for line in path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"):
        yield os.fsdecode(line.removesuffix(b"\r"))
