"""Which source images train, validate and test, so that no group of images serves two ends."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from blurgen.shards import BadShard, Shards

UNPAIRED = ("test", "validation", "blurred", "sharp")
PAIRED = ("test", "validation", "train")
BLURRED_SIDE = ("test", "validation", "blurred")
# The role of what a run trained on that another one was begun from.
ORIGIN = "origin"
TRAINED_ON = frozenset({"sharp", "blurred", "train", ORIGIN})
SPLIT_TABLE = "split.tsv"

# Of the groups that are dealt, validation and test take one in ten each, one at the least.
_HELD_OUT = 10


def deal(shards: Shards, roles: Sequence[str]) -> dict[str, np.ndarray]:
    """Return role -> rows of ``shards.sources``, ascending, no group in two roles.

    The data's own test split goes to "test", each group of it whole. The other groups, ranked by a hash of their name,
    are dealt in the order of `roles`: one in ten to "test" (where the data has none of its own) and to "validation",
    the rest to the others in equal parts. What comes out is a property of the data: it depends on no seed, and on no
    order of the samples.

    Parameters
    ----------
    shards : Shards
        Only sources that a sample was cut from count.
    roles : sequence of str
        UNPAIRED, PAIRED or BLURRED_SIDE.

    Raises
    ------
    ValueError
        Too few groups to give each role one.
    """
    rows = used_sources(shards)
    sources = _rows(shards, rows)
    groups, names = joined_groups(sources)
    own_test = np.zeros(len(names), bool)
    own_test[groups[_is_test(sources)]] = True
    dealt = [role for role in roles if role != "test" or not own_test.any()]
    ranked = sorted(np.flatnonzero(~own_test).tolist(), key=lambda group: _rank(names[group]))
    _require_groups(shards.path, len(ranked), dealt, own_test.any())
    role_of = np.full(len(names), roles.index("test"))
    role_of[ranked] = np.repeat([roles.index(role) for role in dealt], _shares(len(ranked), dealt))
    return {role: rows[role_of[groups] == number] for number, role in enumerate(roles)}


def all_but_test(shards: Shards) -> np.ndarray:
    """Return the rows of ``shards.sources`` that are not in a group of the data's own test split, ascending.

    Raises
    ------
    ValueError
        There are none.
    """
    rows = used_sources(shards)
    sources = _rows(shards, rows)
    groups, _ = joined_groups(sources)
    kept = rows[~np.isin(groups, groups[_is_test(sources)])]
    if not len(kept):
        raise ValueError(
            f"{shards.path} holds no image to train on, only the test split of its data: "
            "make shards of other splits, with `blurgen make --split train`"
        )
    return kept


def samples_of(shards: Shards, rows: np.ndarray) -> np.ndarray:
    """Return the numbers of the samples that were cut from the sources `rows`, ascending."""
    wanted = np.zeros(len(shards.sources), bool)
    wanted[rows] = True
    return np.flatnonzero(wanted[shards.meta["source"]])


def used_sources(shards: Shards) -> np.ndarray:
    """Return the rows of ``shards.sources`` that samples were cut from, ascending."""
    named, count = shards.meta["source"], len(shards.sources)
    if len(named) and named.max() >= count:
        raise BadShard(f"{shards.path}: a sample names source {named.max()}, and there are {count}")
    used = np.zeros(count, bool)
    used[named] = True
    return np.flatnonzero(used)


def joined_groups(sources: np.ndarray) -> tuple[np.ndarray, list[bytes]]:
    """Return the number of each source's group (m,), and the name of each group.

    Groups that share an image, whatever it is called in them, are one; its name is the first in order of theirs.
    """
    # A sort of so long texts takes ten times as long as a dict of them.
    names, named = _numbered(sources["group"].tolist())
    contents, contained = _numbered(_digests(sources))
    links = coo_array(
        (np.ones(len(sources), bool), (named, len(names) + contained)), shape=(len(names) + len(contents),) * 2
    )
    count, labels = connected_components(links, directed=False)
    first: dict[int, bytes] = {}
    for name, label in zip(names, labels[: len(names)].tolist(), strict=True):
        first[label] = min(name, first.get(label, name))
    return labels[named], [first[label] for label in range(count)]


def refuse_shared(sharp: Shards, blurred: Shards) -> None:
    """Raise a ValueError where one image is a source of both sides, whatever it is called there."""
    ours, theirs = (_rows(shards, used_sources(shards)) for shards in (sharp, blurred))
    rows_of = {digest: row for row, digest in enumerate(_digests(ours))}
    shared = [(rows_of[digest], row) for row, digest in enumerate(_digests(theirs)) if digest in rows_of]
    if shared:
        names = [text(rows["key"][row]) for rows, row in zip((ours, theirs), shared[0], strict=True)]
        raise ValueError(
            f"the sharp and the blurred side must not share images, but {len(shared)} are in both, such as "
            f"{names[0]!r} of {sharp.path} and {names[1]!r} of {blurred.path}: make one side from other images, "
            "or give --data alone"
        )


def text(stored: bytes) -> str:
    """Return a fixed-size text of a shard as str."""
    return bytes(stored).decode("utf-8", "surrogateescape")


def _rows(shards: Shards, rows: np.ndarray) -> np.ndarray:
    """Return some sources; all of them are not copied, since a million take over a gigabyte."""
    return shards.sources if len(rows) == len(shards.sources) else shards.sources[rows]


def _digests(sources: np.ndarray) -> list[bytes]:
    joint = sources["sha256"].tobytes()
    return [joint[start : start + 32] for start in range(0, len(joint), 32)]


def _numbered(values: Iterable[bytes]) -> tuple[list[bytes], np.ndarray]:
    """Return the distinct values, and the number of each value among them."""
    numbers: dict[bytes, int] = {}
    each = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), np.array(each, np.int64)


def _is_test(sources: np.ndarray) -> np.ndarray:
    """Tell which sources are in the data's own test split; some call it "testing" or "test2017"."""
    return np.char.startswith(sources["split"], b"test")


def _rank(name: bytes) -> bytes:
    return blake2b(name, digest_size=16).digest()


def _shares(groups: int, roles: Sequence[str]) -> list[int]:
    """Return how many of the groups each role gets."""
    held_out = max(1, groups // _HELD_OUT)
    rest = [role for role in roles if role not in ("test", "validation")]
    left = groups - held_out * (len(roles) - len(rest))
    parts: Mapping[str, int] = {role: (left + number) // len(rest) for number, role in enumerate(rest)}
    return [parts.get(role, held_out) for role in roles]


def _require_groups(path: Path, groups: int, roles: Sequence[str], own_test: bool) -> None:
    if groups >= len(roles):
        return
    held = f"{groups} group{'s' if groups != 1 else ''} of images"
    beside = " beside the test split of the data" if own_test else ""
    raise ValueError(
        f"{path} holds {held}{beside}, and {len(roles)} are needed, one each for {', '.join(sorted(roles))} "
        "(images that have one content or one group are one): make shards from more images, or set a finer group "
        "with `blurgen make --set source.group=REGEX`"
    )
