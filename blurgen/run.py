"""A plan on its way to a file: where its shards lie, what is there already, and whether it may go on.

A run can be stopped at any moment. What is on the disk then is whole: shards, the file ``plan.json`` that says what
they belong to, and the packed file of an earlier, smaller count.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib

from blurgen import __version__
from blurgen.make_options import RunOptions
from blurgen.plan import Plan, plan_difference
from blurgen.shards import MASTER, Structure, parse, remove_drafts, write_atomically
from blurgen.worker import Job

PLAN_NAME = "plan.json"
BASE_NAME = "0.h5"  # shorter than the name of any shard, and so before them
LEAST_SHARD, SHARDS_A_WORKER = 16, 8


@dataclass(frozen=True)
class Run:
    """A plan on its way to the file `out`.

    Parameters
    ----------
    plan : Plan
    out : Path
        The file to be written; its shards lie in the folder ``OUT.d`` beside it until they are packed.
    per_shard : int
        Samples in a shard.
    first_sample : int
        The samples before this one lie in `out` already: the count has grown since it was made.
    """

    plan: Plan
    out: Path
    per_shard: int
    first_sample: int = 0

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return shard_folder(self.out)

    def jobs(self) -> list[Job]:
        """Return the work that makes each shard, in order."""
        plan, count = self.plan, self.plan.count
        made = []
        for number, first in enumerate(range(self.first_sample, count, self.per_shard)):
            last = min(first + self.per_shard, count)
            crops = plan.crops(first, last)
            attrs = card(plan) | {"range": [first, last]}
            path = self.folder / f"{number:05d}.h5"
            codec = plan.document["codec"]
            made.append(Job(path, plan.source, plan.look, plan.layout, plan.seed, first, last, crops, attrs, codec))
        return made


def shard_folder(out: Path) -> Path:
    """Return the folder that holds the shards of `out` while it is made."""
    return out.with_name(out.name + ".d")


def card(plan: Plan) -> dict[str, Any]:
    """Return the attributes that every file of a plan carries: the plan itself, and the licence of its images."""
    source = plan.source
    licence = {"source": source.name, "licence": source.licence, "author": source.author}
    return {"plan": plan.document, "licence": licence, "blurgen": __version__}


def open_run(plan: Plan, out: Path, options: RunOptions) -> Run | None:
    """Return the run that makes `out`, new or continued, in a folder that is held; None where `out` is complete.

    Raises
    ------
    ValueError
        What lies there belongs to another plan, or is no file of samples.
    """
    folder = shard_folder(out)
    if options.overwrite:
        out.unlink(missing_ok=True)
        _clear(folder)
    remove_drafts(folder)
    packed, state = packed_samples(plan, out), _read_state(folder)
    if packed >= plan.count:
        if state is None or state["plan"]["count"] <= packed:  # left by a run that was stopped right after packing
            shutil.rmtree(folder, ignore_errors=True)
        return None
    if state is not None:
        check_same(plan, state["plan"], folder)
    # The samples before the first one of a run lie in the packed file, or in BASE_NAME where that was moved.
    if state is None or not (state["first_sample"] in (0, packed) or (folder / BASE_NAME).exists()):
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder)
        state = {"plan": plan.document, "per_shard": shard_size(plan, options), "first_sample": packed}
        text = json.dumps(state, indent=1).encode()
        write_atomically(folder / PLAN_NAME, [(0, memoryview(text))], len(text))
    return Run(plan, out, state["per_shard"], state["first_sample"])


def packed_samples(plan: Plan, out: Path) -> int:
    """Return how many samples of the plan the plain file `out` was made with; 0 where it is a master or missing."""
    if not out.exists():
        return 0
    structure = structure_of(out)
    check_same(plan, structure.attrs["plan"], out)
    return 0 if structure.kind == MASTER else structure.attrs["plan"]["count"]


def structure_of(out: Path) -> Structure:
    """Return what a file that this program has made says of itself, the shards of a master not looked at."""
    way_out = "name another --out, or replace it with --overwrite"
    try:
        structure = parse(out)
    except ValueError as error:
        raise ValueError(f"{error}; {way_out}") from error
    if "plan" not in structure.attrs:
        raise ValueError(f"{out} was not made by `blurgen make`: {way_out}")
    return structure


def _read_state(folder: Path) -> dict[str, Any] | None:
    path = folder / PLAN_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _clear(folder: Path) -> None:
    """Remove the shards and the plan from a folder that is held."""
    for path in [*folder.glob("*.h5"), *folder.glob(PLAN_NAME)]:
        path.unlink()


def check_same(plan: Plan, before: dict[str, Any], path: Path) -> None:
    """Raise ValueError where the plan document `before`, found at `path`, is not the one of `plan`."""
    lines = plan_difference(before, plan.document)
    if lines:
        raise ValueError(
            f"{path} was begun with another plan ({'; '.join(lines)}): "
            "repeat the first command to continue it, name another --out, or replace it with --overwrite"
        )


def shard_size(plan: Plan, options: RunOptions) -> int:
    """Return how many samples make a shard: as many as fit, fewer where that keeps all workers busy to the end."""
    workers = options.workers or joblib.cpu_count()
    balanced = max(LEAST_SHARD, -(-plan.count // (SHARDS_A_WORKER * workers)))
    balanced = -(-balanced // plan.samples_per_crop) * plan.samples_per_crop
    return min(shard_capacity(plan, options.shard_mib), balanced)


def shard_capacity(plan: Plan, shard_mib: int) -> int:
    """Return how many samples fit into a shard: a whole number of crops, and at least one."""
    samples = (shard_mib << 20) // plan.layout.sample_bytes
    return max(1, samples // plan.samples_per_crop) * plan.samples_per_crop
