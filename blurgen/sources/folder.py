"""Images in a folder: all of them, those that match globs, or those that a text file names."""

import codecs
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, TypeVar

from blurgen.sources import BadImage, Entry, Picture
from blurgen.sources.decode import decode, image_size
from blurgen.sources.keys import decode_key, encode_key, group_of, is_data_name, is_image_name, name_pattern

MAX_FILE_BYTES = 400_000_000
EVERYTHING = (("", "**/*"),)
_Result = TypeVar("_Result")


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
    splits: tuple[str, ...] = ()
    name: str = "folder"
    licence: str = ""
    author: str = ""

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return all entries, sorted by key; `count` changes nothing."""
        groups = {name: group for name, group, *_ in _rows(self.root, self.group_file)}
        splits = self._splits_by_path()
        found: dict[str, Entry] = {}
        for split, path in self._paths():
            key, file_name = encode_key(path), os.path.basename(path)
            group = groups.get(file_name) or group_of(key, self.group)
            entry = Entry(key, group, splits.get(path) or splits.get(file_name) or split)
            if not self.splits or entry.split in self.splits:
                found.setdefault(key, entry)
        return [found[key] for key in sorted(found)]

    def read(self, key: str) -> Picture:
        """Return the picture with a key; raises `BadImage`."""
        data = self._with_file(key, lambda descriptor, size: _read_all(descriptor))
        return Picture(decode(data), None, sha256(data).digest())

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) in px, from the header alone; raises `BadImage`."""
        return self._with_file(key, _mapped_image_size)

    def has_images(self) -> bool:
        """Return whether there is anything to list, without listing it all."""
        return next(self._paths(), None) is not None

    def _paths(self) -> Iterator[tuple[str, str]]:
        """Yield (split, path relative to the root)."""
        if self.listing:
            yield from (("", path) for path in _listed_paths(self.root, self.listing))
            return
        for split, pattern in self.globs:
            for path in _descend(self.root, "", pattern.split("/")):
                yield split, path

    def _splits_by_path(self) -> dict[str, str]:
        """Return the split of each path or file name that a list or the table mentions."""
        splits = {}
        for split, file in self.split_lists:
            for words in _rows(self.root, file):
                splits.update(dict.fromkeys(words, split))
        names = dict(self.split_values)
        for name, value, *_ in _rows(self.root, self.split_table):
            splits[name] = names.get(value, value)
        return splits

    def _with_file(self, key: str, use: Callable[[int, int], _Result]) -> _Result:
        path = os.path.join(self.root, decode_key(key))
        if not self.listing and not _leads_inside(self.root, path):
            raise BadImage("outside-root", "the path leads out of the source; name the place it leads to as the source")
        return with_regular_file(path, use)


def with_regular_file(path: str, use: Callable[[int, int], _Result]) -> _Result:
    """Return ``use(descriptor, size in bytes)`` of a regular file; raises `BadImage` for anything else."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage("vanished", "there is no such file") from error
    except OSError as error:
        raise BadImage("unreadable", f"the file cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not-a-file", "the path has the name of an image, but is a folder, a pipe or a device")
        if status.st_size > MAX_FILE_BYTES:
            raise BadImage("too-large", f"a file must have at most {MAX_FILE_BYTES} bytes, got {status.st_size}")
        return use(descriptor, status.st_size)
    except OSError as error:
        raise BadImage("unreadable", f"the file cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False, buffering=0) as file:
        return file.readall()


def _mapped_image_size(descriptor: int, size: int) -> tuple[int, int]:
    if not size:
        return image_size(b"")
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as data:
        return image_size(data)


def _leads_inside(root: str, path: str) -> bool:
    return os.path.realpath(path).startswith(_prefix(os.path.abspath(root)))


@lru_cache(maxsize=64)
def _prefix(root: str) -> str:
    return os.path.join(os.path.realpath(root), "")


def _descend(root: str, folder: str, parts: list[str]) -> Iterator[str]:
    """Yield the paths below ``root/folder``, relative to the root, that match the parts of a glob.

    A link to a folder that leads out of the root is yielded itself, for `read` to refuse; one that stays inside is
    followed where the glob names its level, and not by ``**``, which could run in circles.
    """
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _descend(root, folder, rest)
    for entry, path in _listing(root, folder):
        if head != "**" and not name_pattern(head).match(entry.name):
            continue
        if head != "**" and not rest:
            if is_image_name(entry.name):
                yield path
        elif entry.is_dir(follow_symlinks=False):
            yield from _descend(root, path, parts if head == "**" else rest)
        elif entry.is_symlink() and os.path.isdir(entry.path):
            if not _leads_inside(root, entry.path):
                yield path
            elif head != "**":
                yield from _descend(root, path, rest)


def _listing(root: str, folder: str) -> Iterator[tuple[os.DirEntry, str]]:
    """Yield the entries of a folder that are not hidden, with their paths relative to the root."""
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                if is_data_name(entry.name):
                    yield entry, os.path.join(folder, entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return


def _rows(root: str, file: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each line of a text file; nothing where the file is missing, since such files come apart."""
    path = Path(root, file)
    if not file or not path.is_file():
        return
    for line in _lines(path):
        words = line.replace(",", " ").split()
        if len(words) >= 2:
            yield tuple(words)


def _listed_paths(root: str, listing: str) -> Iterator[str]:
    """Yield the paths that a text file names, relative to the root where they lie below it."""
    for line in _lines(Path(listing)):
        if line.strip() and not line.lstrip().startswith("#"):
            path = os.path.normpath(os.path.join(root, line))
            inside = path.startswith(os.path.join(os.path.normpath(root), ""))
            yield os.path.relpath(path, root) if inside else path


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file as file names are decoded, since names are what they hold."""
    for line in path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"):
        yield os.fsdecode(line.removesuffix(b"\r"))
