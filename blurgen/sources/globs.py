"""Globs: which paths below a folder or in an archive match, in time that does not grow with the wildcards."""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from functools import lru_cache

from blurgen.sources.keys import MAX_KEY_BYTES, is_data_name, is_image_name

States = frozenset[int]


class Glob:
    """A pattern of paths that is followed part by part; ``**`` stands for any number of folders.

    A set of states says how many parts of the pattern the folders above may have used up, so that each folder is
    looked at once, however many ways lead to it.

    Parameters
    ----------
    pattern : str
        Relative, with ``/`` between its parts; upper and lower case count as equal.

    Attributes
    ----------
    start : frozenset of int
        The states at the root.
    """

    def __init__(self, pattern: str):
        parts = pattern.split("/")
        self._parts = [None if part == "**" else re.compile(translate(part), re.IGNORECASE) for part in parts]
        self.start = self._closed({0})

    def below(self, states: States, name: str, follow: bool = True) -> States:
        """Return the states within a folder of this name; without `follow`, only those that name it themselves."""
        last = len(self._parts) - 1
        staying = {state for state in states if follow and self._parts[state] is None}
        return self._closed(staying | {state + 1 for state in states if state < last and self._is(state, name)})

    def accepts(self, states: States, name: str) -> bool:
        """Return whether a file of this name matches."""
        last = len(self._parts) - 1
        return last in states and self._is(last, name)

    def _is(self, state: int, name: str) -> bool:
        part = self._parts[state]
        return part is not None and part.match(name) is not None

    def _closed(self, states: set[int]) -> States:
        """Return the states, and those that follow where ``**`` stands for no folder at all."""
        for state in sorted(states):
            while state < len(self._parts) - 1 and self._parts[state] is None:
                state += 1
                states.add(state)
        return frozenset(states)


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Glob:
    """Return the `Glob` of a pattern."""
    return Glob(pattern)


def matches(parts: Sequence[str], pattern: str) -> bool:
    """Return whether the parts of a path match a glob."""
    glob = compiled(pattern)
    states = glob.start
    for name in parts[:-1]:
        states = glob.below(states, name)
    return glob.accepts(states, parts[-1])


def find(root: str, pattern: str) -> Iterator[str]:
    """Yield the images below `root` that match a glob, as paths relative to it, in no order.

    What cannot be looked into is yielded itself, so that reading it says why: a folder without permission, or so deep
    that no key holds its path, and a link to a folder that leads out of the root. A link that stays inside is followed
    where the glob names its level, and not by ``**``, which could run in circles.
    """
    glob = compiled(pattern)
    waiting = [("", glob.start)]
    while waiting:
        folder, states = waiting.pop()
        if len(os.fsencode(folder)) > MAX_KEY_BYTES:
            yield folder
            continue
        for entry in _listing(root, folder):
            if entry is None:
                yield folder
                continue
            path, within = os.path.join(folder, entry.name), glob.below(states, entry.name)
            if is_image_name(entry.name) and glob.accepts(states, entry.name):
                yield path
            if not within:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path, within))
            elif entry.is_symlink() and os.path.isdir(entry.path):
                if not leads_inside(root, entry.path):
                    yield path
                elif named := glob.below(states, entry.name, follow=False):
                    waiting.append((path, named))


def _listing(root: str, folder: str) -> Iterator[os.DirEntry | None]:
    """Yield the entries of a folder that are not hidden, one by one, since there may be millions; None on failure."""
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            yield from (entry for entry in entries if is_data_name(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        if not folder:
            raise
        yield None


def leads_inside(root: str, path: str) -> bool:
    """Return whether a path below `root` is there in truth, all links followed."""
    return os.path.realpath(path).startswith(_prefix(os.path.abspath(root)))


@lru_cache(maxsize=64)
def _prefix(root: str) -> str:
    return os.path.join(os.path.realpath(root), "")
