"""Where images come from: folders, archives, real pairs, and two sources that need no download.

A source lists its entries and reads one picture by its key. It is a frozen, picklable dataclass without open files, so
that a worker process can be handed one and read any key from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

import numpy as np

from blurgen.words import Words

# How a source is made: a name for the command line -> the class that reads it.
READERS = {
    "folder": "blurgen.sources.folder:FolderSource",
    "archive": "blurgen.sources.archive:ArchiveSource",
    "pairs": "blurgen.sources.pairs:PairsSource",
    "text": "blurgen.sources.text:TextSource",
    "leaves": "blurgen.sources.leaves:LeavesSource",
}


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One image, or one pair of images, of a source.

    Parameters
    ----------
    key : str
        Names the image within its source: ASCII, at most 512 bytes (see `blurgen.sources.keys`).
    group : str
        What the image shows (a scene, a video, a person): images of one group belong on the same side of a split.
    split : str
        The data's own split, such as ``"train"``, or ``""`` where it has none.
    """

    key: str
    group: str
    split: str = ""


def sorted_once(found: list[Entry]) -> list[Entry]:
    """Return `found` itself, since there may be millions: sorted by key, and of equal keys the first alone."""
    found.sort(key=attrgetter("key"))
    kept = 0
    for entry in found:
        if not kept or entry.key != found[kept - 1].key:
            found[kept] = entry
            kept += 1
    del found[kept:]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The pixels of one entry.

    Parameters
    ----------
    sharp, blurred : (H, W, 3) uint8 RGB, or None
        At least one of them; of equal size where both are there. Most sources have only the sharp one.
    sha256 : bytes
        The 32-byte digest of the encoded bytes that were decoded (of a pair: sharp, then blurred), or of the pixels
        where a source draws them itself.
    words : callable, optional
        Gives the `Words` written in it, where the source knows them.
    maps : mapping
        What else is known of its pixels: ``label`` (H, W) uint8 ids, ``prior`` (K, h, w) probabilities of classes.
    """

    sharp: np.ndarray | None
    blurred: np.ndarray | None
    sha256: bytes
    words: Callable[[], Words] | None = None
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)


class BadImage(ValueError):
    """An image that is left out, and why.

    Parameters
    ----------
    reason : str
        A short slug to count by: ``"truncated"``, ``"corrupt"``, ``"empty"``, ``"not-an-image"``, ``"unsupported"``,
        ``"too-large"``, ``"not-finite"``, ``"vanished"``, and others that the sources name.
    message : str
        One sentence for a person.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


class Source(Protocol):
    """What every reader offers."""

    name: str
    licence: str
    author: str

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return the entries in the order of their keys.

        A file that cannot be read is listed like any other: `read` says what is wrong with it.

        Parameters
        ----------
        count : int, optional
            How many images to draw, for a source that can draw any number; the others return all they have.
        """

    def read(self, key: str) -> Picture:
        """Return the picture behind a key.

        Raises
        ------
        BadImage
            If it cannot be read whole and right.
        """

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) in px of what `read` would return, from the header alone; raises `BadImage`."""
