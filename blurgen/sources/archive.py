"""Images in a .zip or .tar file, read one by one without unpacking it into a folder."""

import bz2
import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import IO, ClassVar, Protocol

from blurgen.sources import BadImage, Entry, Picture, sorted_once
from blurgen.sources.decode import decode, image_size
from blurgen.sources.files import MAX_FILE_BYTES
from blurgen.sources.folder import EVERYTHING
from blurgen.sources.globs import matches
from blurgen.sources.keys import decode_member, encode_member, group_of, is_data_name, is_image_name

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Images hardly shrink any more: what unpacks to more than this is a bomb.
_MAX_RATIO = 100
_PIECE = 1 << 20
# What zipfile unpacks in pieces; of the others, which may grow a million times as long, it gives all at once.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What the readers of the standard library let escape when an archive is malformed.
_FAULTS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
)


@dataclass(frozen=True)
class ArchiveSource:
    """The images in one archive, with keys of the form ``archive!member``.

    A compressed tar can only be read from its start, so every process unpacks it once into a temporary file without a
    name. Members that are links, encrypted, larger than 400 MB, or named by an absolute path or through ``..``, are
    listed and refused.

    Parameters
    ----------
    path : str
        The archive.
    globs, group, splits
        As in `blurgen.sources.folder.FolderSource`, for the names of the members.
    name, licence, author : str
        What the shards say of the images.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("group", "licence", "author")

    path: str
    globs: tuple[tuple[str, str], ...] = EVERYTHING
    group: str = ""
    splits: tuple[str, ...] = ()
    name: str = "archive"
    licence: str = ""
    author: str = ""

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return all entries, sorted by key; `count` changes nothing."""
        found = []
        archive = os.path.basename(self.path)
        for member in _archive(self.path).members:
            split = self._split(member)
            if split is None or (self.splits and split not in self.splits):
                continue
            key = encode_member(archive, member)
            found.append(Entry(key, group_of(key, self.group), split))
        return sorted_once(found)

    def read(self, key: str) -> Picture:
        """Return the picture with a key; raises `BadImage`."""
        data = self._bytes(key)
        return Picture(decode(data), None, sha256(data).digest())

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) in px of what `read` would return; raises `BadImage`."""
        return image_size(self._bytes(key))

    def has_images(self) -> bool:
        """Return whether there is anything to list."""
        return any(self._split(member) is not None for member in _archive(self.path).members)

    def _split(self, member: str) -> str | None:
        """Return the split of a member, or None for one that is not asked for."""
        parts = member.split("/")
        if not is_image_name(member) or not all(part == ".." or is_data_name(part) for part in parts):
            return None
        return next((split for split, pattern in self.globs if matches(parts, pattern)), None)

    def _bytes(self, key: str) -> bytes:
        member = decode_member(key)
        parts = member.split("/")
        if member.startswith("/") or ".." in parts:
            raise BadImage("unsafe-name", "a member of an archive must not have an absolute path, or one with '..'")
        try:
            archive = _archive(self.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise BadImage("vanished", f"the archive cannot be opened any more: {error.strerror}") from error
        except ValueError as error:
            raise BadImage("corrupt", str(error)) from error
        return archive.read(member)


class _Archive(Protocol):
    """The names of an open archive's members, and how to read one."""

    members: Mapping[str, object]

    def read(self, member: str) -> bytes: ...


class _Zip:
    """An open zip file."""

    def __init__(self, path: str):
        self._file = zipfile.ZipFile(path)
        self.members = {_plain(info.filename): info for info in self._file.infolist() if not info.is_dir()}

    def read(self, member: str) -> bytes:
        info = self.members.get(member)
        if info is None:
            raise BadImage("vanished", "the archive has no such member any more")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadImage("not-a-file", "the member of the archive is a link")
        if info.flag_bits & 1:
            raise BadImage("unsupported", "the member of the archive is encrypted; unpack it")
        if info.compress_type not in _BOUNDED:
            raise BadImage("unsupported", "the member is packed in another way than by deflate; unpack it by hand")
        _check_member_size(info.file_size)
        try:
            return self._unpacked(info)
        except NotImplementedError as error:  # what zipfile raises for a feature that it lacks
            raise BadImage("unsupported", f"the member of the archive cannot be unpacked: {error}") from error
        except MemoryError as error:
            raise BadImage("too-large", "the member of the archive needs too much memory to be unpacked") from error
        except (*_FAULTS, OSError) as error:
            raise BadImage("corrupt", f"the member of the archive is damaged: {error}") from error

    def _unpacked(self, info: zipfile.ZipInfo) -> bytes:
        """Return the bytes of a member; it says how many they are, and may lie."""
        pieces, missing = [], info.file_size
        with self._file.open(info) as stream:
            while piece := stream.read(min(_PIECE, missing + 1)):
                pieces.append(piece)
                missing -= len(piece)
        if missing:
            raise EOFError(f"{missing} bytes are missing")
        return b"".join(pieces)


class _Tar:
    """An open tar file, uncompressed or unpacked."""

    def __init__(self, path: str):
        self._file = open(path, "rb") if path.lower().endswith(".tar") else _unpacked(path)  # noqa: SIM115
        with tarfile.open(fileobj=self._file, mode="r:", encoding="utf-8") as tar:
            self.members = {_plain(info.name): info for info in _ahead(tar, self._file) if not info.isdir()}

    def read(self, member: str) -> bytes:
        info = self.members.get(member)
        if info is None:
            raise BadImage("vanished", "the archive has no such member any more")
        if not info.isreg() or info.issparse():
            raise BadImage("not-a-file", "the member of the archive is a link, a device, or sparse")
        _check_member_size(info.size)
        # pread moves no file offset, so that threads do not disturb each other.
        try:
            data = os.pread(self._file.fileno(), info.size, info.offset_data)
        except (OSError, OverflowError) as error:
            raise BadImage("corrupt", f"the archive leads to its member wrongly: {error}") from error
        if len(data) < info.size:
            raise BadImage("truncated", "the archive ends within its member")
        return data


def _ahead(tar: tarfile.TarFile, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file up to the zeros at its end.

    A negative size would lead back, again and again; at a damaged header `tarfile` ends in silence.
    """
    at = -1
    while (info := tar.next()) is not None:
        if info.size < 0 or tar.offset <= at:
            raise tarfile.ReadError("a member has a size below zero")
        at = tar.offset
        yield info
    if os.pread(file.fileno(), tarfile.BLOCKSIZE, tar.offset) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it was cut, or a header within it is damaged")


@lru_cache(maxsize=8)
def _opened(path: str, identity: tuple[int, ...], process: int) -> _Archive:
    """Return the open archive; by process, since a forked child would share its parent's file offset."""
    try:
        return _Zip(path) if path.lower().endswith(ZIP_SUFFIXES) else _Tar(path)
    except (*_FAULTS, OSError, RuntimeError, MemoryError) as error:
        # Readers that are led astray seek to where there is nothing; other numbers tell of disks and rights.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"an archive must be a whole .zip or .tar file, but {path} is damaged: {error}") from error


def _archive(path: str) -> _Archive:
    """Return the open archive, opened anew where the file has changed."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"an archive must be a file, and {path} is none")
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _opened(path, identity, os.getpid())


def _plain(name: str) -> str:
    """Return a member's name without the leading ``./`` that tar likes."""
    return name.removeprefix("./")


def _check_member_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise BadImage("too-large", f"a file must have at most {MAX_FILE_BYTES} bytes, got {size}")


def _unpacked(path: str) -> IO[bytes]:
    """Return a temporary file, without a name, that holds what a compressed tar unpacks to.

    Raises
    ------
    ValueError
        If that is more than 100 times as large as the archive.
    """
    limit = _MAX_RATIO * os.path.getsize(path)
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        _unpack(path, unpacked, limit)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        folder = tempfile.gettempdir()
        way_out = "TMPDIR names another folder, or unpack it by hand"
        raise OSError(error.errno, f"{folder} has no room for what {path} unpacks to; {way_out}") from error
    unpacked.seek(0)
    return unpacked


def _unpack(path: str, unpacked: IO[bytes], limit: int) -> None:
    openers = {"gz": gzip.open, "tgz": gzip.open, "bz2": bz2.open, "tbz2": bz2.open, "xz": lzma.open, "txz": lzma.open}
    with openers[path.lower().rpartition(".")[2]](path, "rb") as packed:
        while block := packed.read(1 << 20):
            if unpacked.tell() > limit:
                raise ValueError(f"{path} unpacks to more than {_MAX_RATIO} times its size; unpack it by hand")
            unpacked.write(block)
    unpacked.flush()
