"""Make samples again from the file's plan and the source images alone, and compare: the deep part of ``verify``."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from blurgen.card import check_card
from blurgen.make_options import MakeOptions
from blurgen.options import Chosen
from blurgen.plan import OWN_MAPS, make_look, open_images, options_of
from blurgen.sample import Look, TooSmall, render
from blurgen.shards import ShardSample, open_shards
from blurgen.sources import BadImage, Source
from blurgen.words import TooMuchText
from blurgen.worker import meta_row, streams

UNNAMED = ("folder", "archive")
UNCHECKED = ("source", "crc32", "row_crc32")


@dataclass(frozen=True)
class Places:
    """Where the images and files of a plan are, if not where the recipe looks for them.

    Parameters
    ----------
    src : str, optional
        A dataset or a place, as for ``--src``.
    root : Path, optional
        The folder of the dataset.
    assignments : tuple of str
        Files of the parts, such as ``"kernel.file=motion.csv"``.
    labels, priors : str or Path, optional
        Where the maps are, if the plan has any, as for ``--labels`` and ``--priors``.
    """

    src: str | None = None
    root: Path | None = None
    assignments: tuple[str, ...] = ()
    labels: str | None = None
    priors: Path | None = None

    def options(self, document: dict[str, Any]) -> MakeOptions:
        """Return the options of a plan document, with these places in it."""
        options = replace(options_of(document, self.assignments), root=self.root)
        for name in ("labels", "priors"):
            place, of_plan = getattr(self, name), getattr(options, name)
            if of_plan is not None and str(of_plan).split("/")[0] == OWN_MAPS and place is None:
                raise ValueError(f"the {name} came from a folder of your own: --{name} says where it is now")
            options = replace(options, **{name: of_plan and (place or of_plan)})
        if self.src is not None:
            return replace(options, source=Chosen(self.src, options.source.settings))
        if self.root is None and options.source.name in UNNAMED:
            raise ValueError(f"the images came from a {options.source.name} of your own: --src says where it is now")
        return options


def rerender(path: Path, count: int, places: Places, seed: int | None = None) -> list[str]:
    """Return what differs between random samples of a file and the same samples rendered anew, in a fresh process.

    Parameters
    ----------
    path : Path
        A file of shards.
    count : int
        How many samples to render.
    places : Places
    seed : int, optional
        Fixes which samples are rendered.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(compare_samples, path, count, places, seed).result()


def compare_samples(path: Path, count: int, places: Places, seed: int | None = None) -> list[str]:
    """Return the differences that `rerender` reports, found in this process."""
    shards = open_shards(path)
    document = check_card(shards.attrs, path)["plan"]
    options = places.options(document)
    source, look = open_images(options), make_look(options, document["kernel_side"])
    chosen = np.random.default_rng(seed).choice(len(shards), min(count, len(shards)), replace=False)
    problems = []
    for number in sorted(chosen.tolist()):
        stored = shards[number]
        found = _difference(stored, source, look, options.seed, shards.layout.params)
        problems += [f"sample {stored.id} ({stored.key}): {line}" for line in found]
    return problems


def _difference(stored: ShardSample, source: Source, look: Look, seed: int, params: tuple[str, ...]) -> list[str]:
    """Return what differs between a stored sample and the one rendered from its source."""
    key, row = stored.key, stored.meta
    try:
        picture = source.read(key)
    except BadImage as error:
        return [f"its source image cannot be read: {error}"]
    if picture.sha256 != bytes(stored.source["sha256"]):
        return ["its source image has changed"]
    try:
        drawn = streams(seed, key, int(row["crop"]))
        samples = render(picture.sharp, picture.blurred, look, drawn, picture.maps, picture.words)
    except (TooSmall, TooMuchText) as error:
        return [str(error)]
    sample = samples[int(row["id"]) % len(samples)]
    arrays = sample.images if sample.kernel is None else sample.images | {"kernel": sample.kernel}
    problems = [
        f"{name} is not what the plan makes"
        for name, array in arrays.items()
        if not np.array_equal(stored.arrays[name], array)
    ]
    expected = meta_row(int(row["id"]), int(row["source"]), int(row["crop"]), sample, params)
    problems += [
        f"its {name} is {row[name]}, the plan makes {expected[name]}"
        for name in row.dtype.names
        if name not in UNCHECKED and not np.array_equal(row[name], expected[name])
    ]
    return problems
