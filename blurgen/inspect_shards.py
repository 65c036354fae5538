"""What a file of shards holds, in words and as a sheet of pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blurgen.card import check_card
from blurgen.preview import class_map, extent_histogram, extent_px, label_overlay, sample_sheet, stack, write_png
from blurgen.shards import Shards, open_shards

MOST_EXTENTS = 2000


def describe(path: Path) -> dict[str, Any]:
    """Return the facts about a file of shards: what is in it, how it was made, under which licence."""
    shards = open_shards(path)
    made = check_card(shards.attrs, path)
    plan, licence = made["plan"], made["licence"]
    sources = shards.sources
    facts: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.glob("*.h5")),
        "samples": len(shards),
        "images": len(np.unique(sources["key"])),
        "groups": len(np.unique(sources["group"])),
        "splits": _splits(sources),
        "crop": f"{shards.layout.crop} px",
        "arrays": ", ".join(shards.layout.arrays),
        "source": plan["source"]["name"],
        "kernel": plan["kernel"]["name"] if "kernel" in plan else "none: real pairs",
        "exposure": ", ".join(map(str, plan["exposure"])),
        "noise": plan["noise"]["name"],
        "seed": plan["seed"],
        "licence": licence["licence"],
        "author": licence["author"],
        "blurgen": made["blurgen"],
        "left_out": [dict(zip(("key", "reason", "message"), bad, strict=True)) for bad in made["bad"]],
    }
    if shards.layout.prior:
        facts["classes_of_prior"] = shards.layout.prior
    if "kernel" in shards.layout.arrays:
        facts["kernel_side"] = f"{shards.layout.kernel_side} px"
        facts["trajectory_length"] = _spread(shards.meta["length_px"])
    return facts


def preview(paths: Sequence[Path], out: Path, count: int, seed: int = 0, histogram: bool = True) -> None:
    """Write a sheet of `count` random samples of each file, sharp | blurred | kernel | label | prior, as PNG.

    With `histogram`, the blur extents of the samples are plotted below.

    Raises
    ------
    ValueError
        Files whose samples do not consist of the same pictures.
    """
    rows, extents = [], []
    for path in paths:
        shards = open_shards(path)
        if not len(shards):
            raise ValueError(f"{path} holds no sample to show")
        order = np.random.default_rng(seed).permutation(len(shards))
        rows += [_pictures(shards, index) for index in sorted(order[:count].tolist())]
        if "kernel" in shards.layout.arrays:
            extents += [extent_px(shards.read("kernel", int(index))) for index in order[:MOST_EXTENTS]]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("the files hold different kinds of samples: preview them one by one")
    sheet = sample_sheet(rows)
    if histogram and extents:
        sheet = stack(sheet, extent_histogram(extents, sheet.shape[1]))
    write_png(out, sheet)


def _pictures(shards: Shards, index: int) -> list[np.ndarray]:
    sample = shards[index]
    shown = [sample.arrays[name] for name in ("sharp", "blurred", "kernel") if name in sample.arrays]
    if "label" in sample.arrays:
        shown.append(label_overlay(sample.arrays["label"], shown[0]))
    if "prior" in sample.arrays:
        shown.append(label_overlay(class_map(sample.arrays["prior"], len(shown[0])), shown[0]))
    return shown


def _splits(sources: np.ndarray) -> str:
    names, counts = np.unique(sources["split"], return_counts=True)
    return ", ".join(f"{name.decode() or 'none'} {count}" for name, count in zip(names, counts, strict=True))


def _spread(values: np.ndarray) -> str:
    if not len(values):
        return "none"
    return f"median {np.median(values):.1f} px, from {values.min():.1f} to {values.max():.1f}"
