"""Keys: names of images that fit into fixed-size ASCII fields, and the rules that tell and group them.

A key is the path of an image relative to its source, with ``/`` between the parts and everything but printable ASCII
percent-encoded, so that line breaks, bytes that are no UTF-8 and names of any script come back exactly.
"""

import os
import re
from hashlib import blake2b
from urllib.parse import quote, unquote_to_bytes

from blurgen.sources import BadImage

# What the fields of a shard hold.
MAX_KEY_BYTES, MAX_SPLIT_BYTES, MAX_LICENCE_BYTES, MAX_AUTHOR_BYTES = 512, 16, 128, 256
# ``!`` divides an archive from its member, and a backslash means a folder elsewhere.
_AS_THEY_ARE = "".join(set(map(chr, range(0x20, 0x7F))) - set("%!\\"))
# Never made by encoding: marks a key that was cut, which cannot be read back.
_CUT = "%~"
_IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif", ".hif"}
)
_NOT_DATA = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "lost+found"})


def check_text(name: str, text: str, limit: int) -> None:
    """Raise ValueError for a text that the field of a shard does not hold."""
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > limit or "\0" in text:
        raise ValueError(f"{name} must have at most {limit} bytes and no NUL, got {size} bytes: {text[:60]!r}")


def encode_key(path: str) -> str:
    r"""Return the key of a relative path, cut and marked where it is longer than 512 bytes.

    Examples
    --------
    >>> encode_key("scene 1/caf\u00e9.png")
    'scene 1/caf%C3%A9.png'
    """
    return _limited(_quoted(os.fsencode(path)))


def encode_member(archive: str, member: str) -> str:
    """Return the key of a member of an archive, ``archive!member``; members are named in UTF-8 in every locale."""
    return _limited(f"{_quoted(os.fsencode(archive))}!{_quoted(member.encode('utf-8', 'surrogateescape'))}")


def _quoted(path: bytes) -> str:
    return quote(path, safe=_AS_THEY_ARE)


def _limited(key: str) -> str:
    if len(key) <= MAX_KEY_BYTES:
        return key
    digest = blake2b(key.encode(), digest_size=8).hexdigest()
    return key[: MAX_KEY_BYTES - len(_CUT) - len(digest)] + _CUT + digest


def decode_key(key: str) -> str:
    """Return the path behind a key; raises `BadImage` (``"key-too-long"``) for one that was cut."""
    _check_whole(key)
    return os.fsdecode(unquote_to_bytes(key))


def decode_member(key: str) -> str:
    """Return the member behind a key ``archive!member``, ``""`` behind any other; raises like `decode_key`."""
    _check_whole(key)
    # Divided while a "!" within a name is still encoded.
    return unquote_to_bytes(key.partition("!")[2]).decode("utf-8", "surrogateescape")


def _check_whole(key: str) -> None:
    if _CUT in key:
        raise BadImage("key-too-long", f"the path must have at most {MAX_KEY_BYTES} bytes once encoded; shorten it")


def is_image_name(name: str) -> bool:
    """Return whether a file name ends like an image's; what the file holds is for the decoder to say."""
    return os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES


def is_data_name(name: str) -> bool:
    """Return whether a file or folder is the user's, not hidden and not left behind by a system."""
    return not name.startswith(".") and name not in _NOT_DATA


def group_of(key: str, pattern: str) -> str:
    r"""Return the group of an image: what the groups of the regular expression match in its key, or all it matches.

    A key that it does not match, and every key where there is no pattern, is a group of its own.

    Examples
    --------
    >>> group_of("train/GOPR0372_07_00/sharp/000047.png", r"^(\w+)/(\w+)/")
    'train/GOPR0372_07_00'
    """
    match = re.search(pattern, key) if pattern else None
    if match is None:
        return key
    # Groups within groups repeat what they match.
    return _limited("/".join(part for part in match.groups() if part) or match[0] or key)
