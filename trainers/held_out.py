"""The pairs that weights may be measured on: those that their run did not train on."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from blurgen.shards import open_shards
from blurgen.sources import BadImage
from blurgen.sources.folder import FolderSource
from blurgen.sources.keys import decode_key
from trainers.data import ARRAYS, GUIDES, Pair, PairSet
from trainers.eval_options import NEIGHBOUR, ORACLE
from trainers.pretrained import file_sha256
from trainers.pyramid import resized_colors
from trainers.resizing import reduced
from trainers.splits import ORIGIN, SPLIT_TABLE, TRAINED_ON, samples_of, used_sources

_Read = TypeVar("_Read")
_SUFFIX = r"\.[^./]+$"

Roles = Mapping[str, frozenset[str]]
"""SHA-256 of a source image in hexadecimal -> what a run used it for."""


@dataclass(frozen=True)
class HeldOut:
    """Pairs to measure with.

    Attributes
    ----------
    pairs : PairSet or FolderPairs
    notes : tuple of str
        A sentence on each thing that was left out, or could not be checked.
    protocol : str or None
        "oracle" or "neighbour", where the system was trained on one image.
    """

    pairs: "PairSet | FolderPairs"
    notes: tuple[str, ...] = ()
    protocol: str | None = None


def read_roles(folder: Path) -> Roles | None:
    """Return what the run in `folder` used its images for; None where it left no record.

    Raises
    ------
    ValueError
        The record is damaged.
    """
    try:
        text = (folder / SPLIT_TABLE).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    roles: dict[str, frozenset[str]] = {}
    for line in text.split("\n")[1:-1]:
        role, tab, rest = line.partition("\t")
        digest = rest.partition("\t")[0]
        if not tab or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{folder / SPLIT_TABLE} is damaged: a line must be role, SHA-256 and key, got {line!r}")
        roles[digest] = roles.get(digest, frozenset()) | {role}
    return roles


def shard_pairs(path: Path, split: str, roles: Roles | None, arrays: tuple[str, ...] = ARRAYS) -> HeldOut:
    """Return the pairs of shards.

    Of shards that the run kept test images of: those, or its validation images, or with "all" whatever it did not train
    on. Of other shards: all but what it trained on.

    Parameters
    ----------
    path : Path
        Of the shards.
    split : str
        "test", "validation" or "all".
    roles : mapping or None
        From `read_roles`.
    arrays : (str, str) or (str, str, str)
        Names of the sharp and the blurred images, and of the maps that guide the system.

    Raises
    ------
    ValueError
        There are no such pairs.
    """
    shards = open_shards(path)
    for name in arrays:
        if name not in shards.layout.arrays:
            raise ValueError(f"{path} holds no {name} {'maps' if name in GUIDES else 'images'}: {_way_to(name)}")
    rows = used_sources(shards)
    used_for = [(roles or {}).get(digest.tobytes().hex(), frozenset()) for digest in shards.sources["sha256"][rows]]
    is_own = any("test" in used for used in used_for)
    if split == "all" or (split == "test" and not is_own):
        wanted = np.array([not used & TRAINED_ON for used in used_for], bool)
    else:
        wanted = np.array([split in used and not used & TRAINED_ON for used in used_for], bool)
    if not wanted.any():
        raise ValueError(_nothing_left(path, split, all(used & TRAINED_ON for used in used_for), is_own))
    return HeldOut(PairSet(shards, samples_of(shards, rows[wanted]), arrays), _notes(split, used_for, is_own))


def _notes(split: str, used_for: Sequence[frozenset[str]], is_own: bool) -> tuple[str, ...]:
    if is_own:
        before = sum({split, ORIGIN} <= used for used in used_for)
        return (f"{before} {split} images are left out: what the run began from trained on them",) if before else ()
    trained = sum(bool(used & TRAINED_ON) for used in used_for)
    return (_left_out(trained, len(used_for)),) if trained else ()


def _way_to(name: str) -> str:
    if name in ARRAYS:
        return "pairs of both are needed to measure with"
    if name in GUIDES:
        return f"make shards with `{GUIDES[name]}`"
    return f"make shards with `blurgen make --lowres {name.rpartition('_x')[2]}`"


def _nothing_left(path: Path, split: str, all_trained: bool, is_own: bool) -> str:
    if all_trained:
        who = "the run, or what it began from," if is_own else "the run"
        return f"{who} trained on every image of {path}: name shards of other images with --data"
    return f"the run kept no {split} images of {path}: use --split test or --split all"


def _left_out(count: int, total: int) -> str:
    return f"{count} of {total} source images are left out, because the run trained on them"


class Files(NamedTuple):
    """Keys of a blurred and of its sharp image."""

    blurred: str
    sharp: str


class FolderPairs(Sequence):
    """Pairs of the images in two folders; ``len(pairs)``, ``pairs[i]``, iteration.

    Parameters
    ----------
    blurred, sharp : FolderSource
    files : sequence of Files
    scale : int
        How many times larger the sharp images shall be. Blurred ones that are as large are reduced, and what both have
        beyond a multiple of it, at the right and below, is cut off.
    """

    def __init__(self, blurred: FolderSource, sharp: FolderSource, files: Sequence[Files], scale: int = 1):
        self.blurred, self.sharp, self.files, self.scale = blurred, sharp, files, scale

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pair:
        """Return pair `index`; raises `BadImage` with the name of a file that can't be read."""
        files = self.files[index]
        blurred, sharp = (
            _named(source, key, source.read).sharp
            for source, key in zip((self.blurred, self.sharp), files, strict=True)
        )
        if self.scale > 1 and blurred.shape == sharp.shape:
            height, width = (side // self.scale * self.scale for side in sharp.shape[:2])
            blurred = reduced(np.ascontiguousarray(blurred[:height, :width]), self.scale)
            sharp = np.ascontiguousarray(sharp[:height, :width])
        return Pair(blurred, sharp, files.blurred)

    def limited(self, limit: int | None) -> "FolderPairs":
        """Return at most `limit` pairs, spread evenly over all; None is no limit."""
        if limit is None or limit >= len(self):
            return self
        chosen = [self.files[number * len(self) // limit] for number in range(limit)]
        return FolderPairs(self.blurred, self.sharp, chosen, self.scale)


def folder_pairs(
    blurred: Path,
    sharp: Path,
    match: str | None = None,
    roles: Roles | None = None,
    scale: int = 1,
    protocols: Sequence[str | None] = (None,),
) -> HeldOut:
    """Return the pairs of two folders.

    Two files are a pair when their paths below the folders are equal without the suffix, and without what `match`
    matches; one sharp image may belong to several blurred ones.

    Parameters
    ----------
    blurred, sharp : Path
        The folders.
    match : str, optional
        Regular expression of what tells the names of a pair apart, such as ``_blur``.
    roles : mapping or None
        From `read_roles`.
    scale : int
        See `FolderPairs`.
    protocols : sequence of str or None
        Of which the first that there are pairs of is taken: "oracle" is those with an image that the run trained on,
        "neighbour", as None, the others.

    Raises
    ------
    FileNotFoundError
        A folder is missing.
    ValueError
        There is no pair, none that the run did not train on, or the two images of a pair are of sizes that do not fit.
    """
    for folder in (blurred, sharp):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: --pairs needs one of blurred and one of sharp images")
    sources = [FolderSource(os.fspath(folder)) for folder in (blurred, sharp)]
    names = [[entry.key for entry in source.entries()] for source in sources]
    files, alone = _matched(*names, _pattern(match))
    if not files:
        examples = " and ".join(repr(keys[0]) if keys else "nothing" for keys in names)
        raise ValueError(
            f"no image of {blurred} has the name of one of {sharp} (they hold {examples}): "
            "say with --match REGEX what tells the names of a pair apart"
        )
    notes = [f"{len(alone)} images have no partner and are left out, such as {alone[0]!r}"] if alone else []
    for pair in files:
        _require_sizes(pair, *sources, scale)
    trained = _trained(roles or {})
    used = [bool(trained and _digests(pair, *sources) & trained) for pair in files]
    for protocol in protocols:
        kept = [pair for pair, is_used in zip(files, used, strict=True) if is_used == (protocol == ORACLE)]
        if kept:
            break
    else:
        raise ValueError(_no_pairs(blurred, sharp, protocols[-1]))
    if len(kept) < len(files):
        left_out = len(files) - len(kept)
        notes.append(_of_other_protocol(left_out, protocol) if protocol else _left_out(left_out, len(files)))
    return HeldOut(FolderPairs(*sources, kept, scale), tuple(notes), protocol)


def _no_pairs(blurred: Path, sharp: Path, protocol: str | None) -> str:
    if protocol == ORACLE:
        return f"{sharp} does not hold the image that the run was trained on: leave out --protocol {ORACLE}"
    return f"the run trained on every pair of {blurred} and {sharp}: name folders of other images" + (
        f", or leave out --protocol {NEIGHBOUR}" if protocol else ""
    )


def _of_other_protocol(count: int, protocol: str) -> str:
    other = NEIGHBOUR if protocol == ORACLE else ORACLE
    return f"{count} pairs of the protocol {other} are left out: --protocol {other} measures them"


class ResizedPairs(Sequence):
    """Pairs, of which both images are brought to another size.

    Parameters
    ----------
    pairs : sequence of Pair
    size_of : callable
        Height and width of the images to those wanted, px.
    """

    def __init__(self, pairs: Sequence[Pair], size_of: Callable[[int, int], tuple[int, int]]):
        self._pairs, self._size_of = pairs, size_of

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Pair:
        """Return pair `index`."""
        blurred, sharp, key, *_ = self._pairs[index]
        size = self._size_of(*sharp.shape[:2])
        return Pair(resized_colors(blurred, size), resized_colors(sharp, size), key)


def _pattern(match: str | None) -> re.Pattern:
    try:
        return re.compile(f"(?:{match})|{_SUFFIX}" if match else _SUFFIX)
    except re.error as error:
        raise ValueError(f"--match must be a regular expression, got {match!r}: {error}") from error


def _matched(blurred: Iterable[str], sharp: Sequence[str], cut: re.Pattern) -> tuple[list[Files], list[str]]:
    """Return the pairs, and the images that are of none."""
    partners = {cut.sub("", key): key for key in reversed(sharp)}
    partner_of = {key: partners.get(cut.sub("", key)) for key in blurred}
    used = set(partner_of.values())
    alone = [key for key, partner in partner_of.items() if partner is None] + [key for key in sharp if key not in used]
    return [Files(key, partner) for key, partner in partner_of.items() if partner is not None], alone


def _require_sizes(pair: Files, blurred: FolderSource, sharp: FolderSource, scale: int) -> None:
    sizes = [_named(source, key, source.size) for source, key in zip((blurred, sharp), pair, strict=True)]
    enlarged = tuple(scale * side for side in sizes[0])
    if (sizes[0] == sizes[1] and min(sizes[0]) >= scale) or enlarged == tuple(sizes[1]):
        return
    given = " and ".join(f"{width}x{height}" for width, height in sizes)
    rule = "of one size" if scale == 1 else f"of one size, or the sharp one {scale} times larger"
    raise ValueError(f"{pair.blurred} and {pair.sharp} must be {rule}, got {given} px")


def _named(source: FolderSource, key: str, read: Callable[[str], _Read]) -> _Read:
    try:
        return read(key)
    except BadImage as error:
        raise BadImage(error.reason, f"{Path(source.root, key)}: {error}") from error


def _trained(roles: Roles) -> set[str]:
    return {digest for digest, used in roles.items() if used & TRAINED_ON}


def _digests(pair: Files, blurred: FolderSource, sharp: FolderSource) -> set[str]:
    """Return what shards of either side, or of both, know a pair by."""
    sides = [file_sha256(Path(side.root, decode_key(key))) for side, key in zip((blurred, sharp), pair, strict=True)]
    return {*sides, sha256(bytes.fromhex(sides[1]) + bytes.fromhex(sides[0])).hexdigest()}
