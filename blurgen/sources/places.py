"""Places: images of a user's own that no recipe describes, given as an image, a glob, a list of paths or an archive."""

import dataclasses
import glob
import os
import pkgutil
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blurgen.options import coerce, nearest
from blurgen.sources import READERS, Source
from blurgen.sources.keys import MAX_AUTHOR_BYTES, MAX_LICENCE_BYTES, check_text, is_image_name

# What every place is called in the shards: its own name could be that of a dataset, and says nothing elsewhere.
OWN = "folder"
_LISTS = (".txt", ".lst")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LIMITS = {"licence": MAX_LICENCE_BYTES, "author": MAX_AUTHOR_BYTES}
_NOT_SETTABLE = frozenset({"name", "licence", "author", "seed"})


def open_place(
    place: str, root: str | Path | None, splits: Sequence[str], settings: Mapping[str, Any], real: bool
) -> Source:
    """Return the source for an image, a glob, a text file of paths, or an archive; the rest as in `open_source`.

    Raises
    ------
    ValueError
        An option that does not apply, or a file of another kind.
    FileNotFoundError
        A place without images.
    """
    refuse({"--split": splits}, f"the images of {place} have none")
    if os.path.isfile(place) and not is_image_name(place):
        return _open_file(place, root, settings, real)
    refuse({"--root": root}, f"{place} says where the images are")
    found = _globbed(glob.escape(place) if os.path.isfile(place) else place)
    source = _with_images(configured("folder", {} if real else settings, found), f"the glob {place} matches no image")
    return configured("pairs", settings, {"sharp": None, "blurred": source, "name": OWN}) if real else source


def configured(reader_name: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return a reader with the fields that are given, and those that the user sets."""
    reader = pkgutil.resolve_name(READERS[reader_name])
    hints = typing.get_type_hints(reader)
    settable = getattr(reader, "SETTINGS", None) or {field.name for field in dataclasses.fields(reader)} - _NOT_SETTABLE
    values = dict(given)
    for name, value in settings.items():
        if name not in settable:
            raise ValueError(f"there is no option 'source.{name}': {nearest(name, settable, 'source.')}")
        values[name] = coerce(value, hints[name], f"source.{name}")
        if name in _LIMITS:
            check_text(f"source.{name}", values[name], _LIMITS[name])
    return reader(**values)


def refuse(options: Mapping[str, Any], why: str) -> None:
    """Raise a ValueError for the first of the options that is given."""
    for option, value in options.items():
        if value:
            raise ValueError(f"{option} does not apply here, since {why}; leave it out")


def _open_file(place: str, root: str | Path | None, settings: Mapping[str, Any], real: bool) -> Source:
    """Return the source for a file that stands for many images: an archive, or a list of paths."""
    if place.lower().endswith(_LISTS):
        refuse({"--real": real}, f"{place} lists sharp images")
        listed = {"root": str(root or os.path.dirname(place) or "."), "listing": place}
        return _with_images(configured("folder", settings, listed), f"{place} lists no image: it needs a path a line")
    if not place.lower().endswith(_ARCHIVES):
        kinds = ", ".join((*_LISTS, ".toml", *_ARCHIVES))
        raise ValueError(f"a file given as --src must be an image or end in one of {kinds}, got {place!r}")
    if real:
        raise ValueError(f"--real reads no pairs from an archive; unpack {place} and give the folder as --src")
    refuse({"--root": root}, f"{place} holds its images")
    return _with_images(configured("archive", settings, {"path": place, "name": OWN}), f"there is no image in {place}")


def _globbed(pattern: str) -> dict[str, Any]:
    """Return the fields of a `FolderSource` for a glob: its root is what stands before the first wildcard."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part) or number == len(parts) - 1)
    root = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
    return {"root": root, "globs": (("", "/".join(parts[first:])),), "name": OWN}


def _with_images(source: Any, otherwise: str) -> Any:
    if not source.has_images():
        raise FileNotFoundError(otherwise)
    return source
