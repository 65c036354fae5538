"""Small shards that tests make for themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from blurgen.shards import META, SOURCE, Layout, shard_bytes, source_row, write_shard

LAYOUT = Layout(8, 3, lowres=(2, 4), params=("anxiety", "gaussian"))
MAPPED = Layout(8, 3, lowres=(2,), label=True, prior=3, transcript=6)
ATTRS = {"plan": {"seed": 7, "count": 12}, "card": {"licence": "CC0-1.0", "author": "Zoë"}}


@dataclass(frozen=True)
class Content:
    """The arguments of `shard_bytes`."""

    layout: Layout
    arrays: dict[str, np.ndarray]
    meta: np.ndarray
    sources: np.ndarray
    attrs: dict[str, Any]

    def bytes(self, codec: str | None = None) -> bytearray:
        """Return the shard."""
        return shard_bytes(self.layout, self.arrays, self.meta, self.sources, self.attrs, codec)

    def write(self, path: Path, codec: str | None = None) -> Path:
        """Write the shard and return its path."""
        write_shard(path, self.layout, self.arrays, self.meta, self.sources, self.attrs, codec)
        return path

    def part(self, start: int, stop: int) -> "Content":
        """Return some of the samples, with the sources they use in an order of their own."""
        meta = self.meta[start:stop].copy()
        used = np.unique(meta["source"])[::-1]
        meta["source"] = [np.flatnonzero(used == row)[0] for row in meta["source"]]
        arrays = {name: array[start:stop] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, meta=meta, sources=self.sources[used])

    def divided(self, folder: Path, per_shard: int, codec: str | None = None) -> list[Path]:
        """Write shards of `per_shard` samples into a new folder, and return their paths."""
        folder.mkdir()
        starts = range(0, len(self.meta), per_shard)
        return [
            self.part(start, start + per_shard).write(folder / f"{number:05d}.h5", codec)
            for number, start in enumerate(starts)
        ]


def content(count: int = 12, layout: Layout = LAYOUT, sources: int = 4, seed: int = 0, attrs=None) -> Content:
    """Return `count` samples of noise with ids 3, 5, 7, ..., sources in no order, and kernels that sum to 1."""
    rng = np.random.default_rng(seed)
    arrays = {name: draw(rng, (count, *item.shape), item.dtype) for name, item in layout.arrays.items()}
    if "transcript" in arrays:
        arrays["transcript"] = rng.choice(np.frombuffer(b"abc\n ", np.uint8), arrays["transcript"].shape)
    meta = np.zeros(count, META)
    meta["id"] = 3 + 2 * np.arange(count)
    meta["source"] = rng.integers(0, sources, count) if count else 0
    meta["side"] = rng.uniform(4, 16, count)
    meta["scale"] = layout.crop / meta["side"]
    meta["exposure"] = (0.25, 1)
    meta["length_px"] = rng.uniform(0, 60, count)
    meta["params"][:, : len(layout.params)] = rng.random((count, len(layout.params)))
    rows = [source_row(f"folder/{number}%20ö.jpg", bytes(range(32)), 640, 480) for number in range(sources)]
    return Content(layout, arrays, meta, np.array(rows, SOURCE), ATTRS if attrs is None else attrs)


def grouped(
    groups: Sequence[str],
    layout: Layout,
    crops: int = 1,
    splits: Sequence[str] = (),
    contents: Sequence[str] = (),
    prefix: str = "",
) -> Content:
    """Return `crops` samples of each of some sources, one source for each of `groups`, whose pixels say what they are.

    The pixel at row y, column x of sample i is (i, y, x), and (i, y, 255 - x) where it is blurred. Keys are `prefix`
    and the number of the source; `splits` are the sources' own, and sources with equal `contents` are equal images.
    """
    count = len(groups) * crops
    made = content(count, layout, len(groups))
    made.meta["source"], made.meta["crop"] = np.divmod(np.arange(count), crops)
    for name in (name for name in made.arrays if name.startswith(("sharp", "blurred"))):
        image = np.stack(np.broadcast_arrays(*np.ogrid[:count, : (side := layout.arrays[name].shape[0]), :side]), -1)
        image[..., 2] = 255 - image[..., 2] if name.startswith("blurred") else image[..., 2]
        made.arrays[name] = np.ascontiguousarray(image.astype(np.uint8))
    keys = [f"{prefix}{number}.png" for number in range(len(groups))]
    digests = [sha256((contents or keys)[number].encode()).digest() for number in range(len(groups))]
    rows = [
        source_row(key, digest, 9, 9, group, split)
        for key, digest, group, split in zip(keys, digests, groups, splits or [""] * len(groups), strict=True)
    ]
    return replace(made, sources=np.array(rows, SOURCE))


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return random levels or ids, kernels that sum to 1, or (float16) classes that sum to 1 everywhere."""
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    weights = rng.random(shape)
    return (weights / weights.sum(axis=1 if dtype == np.float16 else (1, 2), keepdims=True)).astype(dtype)
