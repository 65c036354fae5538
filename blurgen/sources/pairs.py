"""Existing blurred and sharp photographs, matched by their paths, or only one side of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar

from blurgen.sources import BadImage, Entry, Picture
from blurgen.sources.folder import FolderSource


@dataclass(frozen=True)
class PairsSource:
    """Pairs of a blurred and a sharp image of one scene.

    Two images are a pair when their keys are equal after everything that `pair` matches is cut out of both. Several
    blurred images may share a sharp one. The key and split of a pair are those of its blurred image, the group is that
    of its sharp one.
    Where both sides exist, an image without a partner is listed and refused; where there is only one, all are good.

    Parameters
    ----------
    sharp, blurred : FolderSource or None
        The two sides.
    pair : str
        Regular expression of what tells the two sides of a pair apart in their keys.
    name, licence, author : str
        What the shards say of the images.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("pair", "licence", "author")

    sharp: FolderSource | None
    blurred: FolderSource | None
    pair: str = ""
    name: str = "pairs"
    licence: str = ""
    author: str = ""

    @property
    def sides(self) -> str:
        """Which images a picture has: ``"both"``, ``"sharp"`` or ``"blurred"``."""
        return _index(self).sides

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return all pairs and all images without a partner, sorted by key; `count` changes nothing."""
        return sorted(_index(self).entries)

    def read(self, key: str) -> Picture:
        """Return the picture with a key; raises `BadImage`, also for ``"unpaired"`` and ``"unequal-sizes"``."""
        sharp, blurred = (side and side.read(side_key) for side, side_key in self._sides(key))
        if not sharp or not blurred:
            one = sharp or blurred
            return Picture(sharp and sharp.sharp, blurred and blurred.sharp, one.sha256)
        _check_equal_sizes(sharp.sharp.shape[1::-1], blurred.sharp.shape[1::-1])
        return Picture(sharp.sharp, blurred.sharp, sha256(sharp.sha256 + blurred.sha256).digest())

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) in px of both sides, from their headers alone; raises `BadImage` like `read`."""
        sizes = [side.size(side_key) for side, side_key in self._sides(key) if side]
        _check_equal_sizes(sizes[0], sizes[-1])
        return sizes[0]

    def _sides(self, key: str) -> tuple[tuple[FolderSource | None, str], tuple[FolderSource | None, str]]:
        """Return (source, key) of the sharp and of the blurred side, the source None where there is only one side."""
        index = _index(self)
        if index.sides == "sharp":
            return (self.sharp, key), (None, "")
        if index.sides == "blurred":
            return (None, ""), (self.blurred, key)
        if key not in index.sharp_of:
            raise BadImage("unpaired", "the image has no partner on the other side")
        return (self.sharp, index.sharp_of[key]), (self.blurred, key)


@dataclass(frozen=True, eq=False)
class _Index:
    """What belongs together in a `PairsSource`."""

    sides: str
    entries: tuple[Entry, ...]
    sharp_of: Mapping[str, str]


@lru_cache(maxsize=4)
def _index(source: PairsSource) -> _Index:
    sharp, blurred = (side.entries() if side else [] for side in (source.sharp, source.blurred))
    if not sharp or not blurred:
        return _Index("sharp" if sharp else "blurred", tuple(sharp or blurred), {})
    cut = re.compile(source.pair)
    partners: dict[str, Entry] = {}
    for entry in sharp:
        partners.setdefault(cut.sub("", entry.key), entry)
    partner_of = {entry: partners.get(cut.sub("", entry.key)) for entry in blurred}
    # Blurred images of one sharp one show one scene, which only the sharp side knows where no rule says it.
    pairs = [replace(entry, group=partner.group) if partner else entry for entry, partner in partner_of.items()]
    sharp_of = {entry.key: partner.key for entry, partner in partner_of.items() if partner}
    used = set(sharp_of.values())
    alone = [entry for entry in sharp if entry.key not in used]
    return _Index("both", (*pairs, *alone), sharp_of)


def _check_equal_sizes(sharp: tuple[int, int], blurred: tuple[int, int]) -> None:
    if sharp != blurred:
        raise BadImage(
            "unequal-sizes",
            f"both sides of a pair must have one size, got {sharp[0]}x{sharp[1]} and {blurred[0]}x{blurred[1]}",
        )
