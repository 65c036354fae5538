"""Finished shards as one sequence of samples."""

import operator
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from blurgen.shards.files import ShardFile, ShardSample, SourceIndex
from blurgen.shards.layout import Layout
from blurgen.shards.manifest import parts

_OPEN_AT_ONCE = 64


class Shards(Sequence):
    """A finished set of samples, in one file or in many: ``len(shards)``, ``shards[i]``, iteration.

    Indexing gives a `ShardSample`. An instance keeps nothing but paths and offsets: it may be forked, pickled to
    another process, and shared by threads.

    Attributes
    ----------
    path : Path
        What was opened.
    layout : Layout
        What a sample consists of.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._parts, self._attrs = parts(self.path)
        self._starts = [0, *accumulate(part.count for part in self._parts)]
        self._open: dict[int, ShardFile] = {}
        self._open[0] = self._parts[0].open()
        self.layout: Layout = self._open[0].structure.layout

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index):
        """Return sample `index`, from the end where it is negative; a slice gives a list."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        file, local = self._locate(index)
        return file.sample(local, self.layout.arrays)

    def __iter__(self) -> Iterator[ShardSample]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}: {len(self)} samples of {', '.join(self.layout.arrays)})"

    def read(self, name: str, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return one array of sample `index`: "sharp", "blurred", "kernel", "blurred_x2", ...

        Parameters
        ----------
        name : str
        index : int
        out : ndarray, optional
            A contiguous array of the right shape and dtype to read into, such as one place of a batch: no other copy
            is made then.
        """
        if name not in self.layout.arrays:
            raise KeyError(f"{self.path} has no {name!r}; it has {', '.join(self.layout.arrays)}")
        file, local = self._locate(index)
        return file.item(name, local, out)

    @property
    def attrs(self) -> dict[str, Any]:
        """What the maker said: ``version``, ``plan`` (dict), ``licence`` (dict), ``bad`` and more."""
        return dict(self._attrs)

    @cached_property
    def meta(self) -> np.ndarray:
        """All rows (n,) META, in order; ``source`` points into `sources`."""
        return self._joined[0]

    @cached_property
    def sources(self) -> np.ndarray:
        """The source images (m,) SOURCE, each once, in the order of first use."""
        return self._joined[1]

    @cached_property
    def _joined(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self._parts) == 1:
            return self._file(0).rows("meta"), self._file(0).rows("source")
        index, metas, sources = SourceIndex(), [], []
        for file in self.files():
            meta, new = index.place(file)
            metas.append(meta)
            sources.append(new)
        return np.concatenate(metas), np.concatenate(sources)

    def files(self) -> Iterator[ShardFile]:
        """Yield the files of the set in the order of their samples."""
        return (self._file(part) for part in range(len(self._parts)))

    def _locate(self, index: int) -> tuple[ShardFile, int]:
        position = operator.index(index)
        position += len(self) if position < 0 else 0
        if not 0 <= position < len(self):
            raise IndexError(f"{self.path} holds {len(self)} samples, asked for sample {index}")
        part = bisect_right(self._starts, position) - 1
        return self._file(part), position - self._starts[part]

    def _file(self, part: int) -> ShardFile:
        file = self._open.get(part)
        if file is None:
            # The oldest is closed as soon as nobody reads from it any more.
            if len(self._open) >= _OPEN_AT_ONCE:
                self._open.pop(list(self._open)[0], None)  # noqa: RUF015 - an iterator would see other threads
            file = self._open[part] = self._parts[part].open(self.layout)
            # Where there are more files than may be open, they are opened often; to parse one takes a millisecond.
            self._parts[part] = replace(self._parts[part], structure=file.structure)
        return file


def open_shards(path: str | os.PathLike) -> Shards:
    """Return the samples of a finished run as a sequence.

    Parameters
    ----------
    path : path
        A packed file, the small master beside its shards, or a folder of shards.

    Raises
    ------
    BadShard
        A file that is damaged or is not a shard; the message names what is wrong. Only what can be seen without
        reading every sample is checked here: `verify` checks all.
    OSError
        A file that is not there or may not be read.

    Examples
    --------
    >>> shards = open_shards("shards.h5")  # doctest: +SKIP
    >>> shards[0].sharp.shape, shards.attrs["plan"]["seed"]  # doctest: +SKIP
    ((256, 256, 3), 0)
    """
    return Shards(path)
