"""A plan on its way to a file: where its shards lie, what is there already, and whether it may go on.

A run can be stopped at any moment. What is on the disk then is whole: shards, the file ``plan.json`` that says what
they belong to, and the packed file of an earlier, smaller count.
"""

import json
import operator
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib

from blurgen import __version__
from blurgen.card import check_card, check_document
from blurgen.make_options import RunOptions
from blurgen.plan import Plan, plan_difference
from blurgen.shards import MASTER, Structure, parse, remove_drafts, write_text
from blurgen.worker import Bad, Job

PLAN_NAME = "plan.json"
BASE_NAME = "0.h5"  # shorter than the name of any shard, and so before them
LEAST_SHARD, SHARDS_A_WORKER = 16, 8


@dataclass(frozen=True)
class Division:
    """How the samples of the file `out` are divided into shards, as ``plan.json`` says it.

    Parameters
    ----------
    out : Path
        The file to be written; its shards lie in the folder ``OUT.d`` beside it until they are packed.
    document : dict
        The plan.
    per_shard : int
        Samples in a shard.
    first_sample : int
        The samples before this one lie in `out` already: the count has grown since it was made.
    """

    out: Path
    document: dict[str, Any]
    per_shard: int
    first_sample: int = 0

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return shard_folder(self.out)

    @property
    def shards(self) -> int:
        """How many shards there are in the end."""
        return -(-(self.document["count"] - self.first_sample) // self.per_shard)

    def path(self, number: int) -> Path:
        """Return where shard `number` lies."""
        return self.folder / f"{number:05d}.h5"

    def span(self, number: int) -> tuple[int, int]:
        """Return the first sample of shard `number`, and the one after its last."""
        first = self.first_sample + number * self.per_shard
        return first, min(first + self.per_shard, self.document["count"])

    def made(self, number: int) -> dict[str, Any] | None:
        """Return the attributes of shard `number`; None where it is missing, damaged or not the one of this plan."""
        try:
            attrs = check_card(parse(self.path(number)).attrs, self.path(number))
        except (FileNotFoundError, ValueError):
            return None
        if attrs["range"] != list(self.span(number)) or plan_difference(attrs["plan"], self.document):
            return None
        return attrs


@dataclass(frozen=True)
class Run:
    """A plan on its way to the file `out`; its parameters are those of a `Division`."""

    plan: Plan
    out: Path
    per_shard: int
    first_sample: int = 0

    @property
    def division(self) -> Division:
        """Where the samples of the plan lie."""
        return Division(self.out, self.plan.document, self.per_shard, self.first_sample)

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return shard_folder(self.out)

    def keys(self, number: int) -> set[str]:
        """Return the keys of the images of shard `number`."""
        return {crop.entry.key for crop in self.plan.crops(*self.division.span(number))}

    def job(self, number: int, left_out: Mapping[str, Bad] | None = None) -> Job:
        """Return the work that makes shard `number`, without the images that are known to end workers."""
        plan, division = self.plan, self.division
        first, last = division.span(number)
        crops = plan.crops(first, last)
        attrs = card(plan) | {"range": [first, last]}
        here = {crop.entry.key for crop in crops} & (left_out or {}).keys()
        return Job(
            division.path(number), plan.source, plan.look, plan.layout, plan.seed, first, last, crops, attrs,
            plan.document["codec"], {key: left_out[key] for key in here},
        )  # fmt: skip

    def jobs(self) -> list[Job]:
        """Return the work that makes each shard, in order."""
        return [self.job(number) for number in range(self.division.shards)]


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
    if options.slice is None:
        remove_drafts(out)
    packed, state = packed_samples(plan, out), read_state(out)
    if packed >= plan.count:
        # Left by a run that was stopped right after packing; a larger count than that of the file is kept.
        if options.slice is None and (state is None or state.document["count"] <= packed):
            shutil.rmtree(folder, ignore_errors=True)
        return None
    if state is not None:
        check_same(plan, state.document, folder)
    # The samples before the first one of a run lie in the packed file, or in BASE_NAME where that was moved.
    if state is None or not (state.first_sample in (0, packed) or (folder / BASE_NAME).exists()):
        state = _begin(Division(out, plan.document, shard_size(plan, options), packed), anew=options.slice is None)
        check_same(plan, state.document, folder)
    if state.document["count"] < plan.count:
        _write_state(Division(out, plan.document, state.per_shard, state.first_sample))
    return Run(plan, out, state.per_shard, state.first_sample)


def _begin(division: Division, anew: bool) -> Division:
    """Write ``plan.json`` into a folder that is cleared first, or, not `anew`, unless another slice has done so."""
    folder = division.folder
    folder.mkdir(parents=True, exist_ok=True)
    if anew:
        _clear(folder)
        _write_state(division)
        return division
    with suppress(FileExistsError):
        _write_state(division, anew=True)
    state = read_state(division.out)
    if state is None or state.first_sample != division.first_sample:
        raise ValueError(f"{folder} does not go with {division.out}: remove the folder, or name another --out")
    return state


def _write_state(division: Division, anew: bool = False) -> None:
    numbers = {"per_shard": division.per_shard, "first_sample": division.first_sample}
    write_text(division.folder / PLAN_NAME, json.dumps({"plan": division.document, **numbers}, indent=1), anew)


def read_state(out: Path) -> Division | None:
    """Return how the samples of `out` are divided, as ``plan.json`` says; None where there is none."""
    path = shard_folder(out) / PLAN_NAME
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        per_shard, first = operator.index(state["per_shard"]), operator.index(state["first_sample"])
        document = check_document(state["plan"], path)
        if not (per_shard >= 1 and 0 <= first <= document["count"]):
            raise ValueError(f"shards of {per_shard} samples after the first {first}")
        return Division(out, document, per_shard, first)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: remove {path.parent}, and run the same command again") from error


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
    try:
        check_card(structure.attrs, out)
    except ValueError as error:
        raise ValueError(f"{error}; {way_out}") from error
    return structure


def _clear(folder: Path) -> None:
    """Remove the shards from a folder that is held, and then the plan, which tells whose they are."""
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
    workers = (options.workers or joblib.cpu_count()) * (options.slice.count if options.slice else 1)
    balanced = max(LEAST_SHARD, -(-plan.count // (SHARDS_A_WORKER * workers)))
    balanced = -(-balanced // plan.samples_per_crop) * plan.samples_per_crop
    return min(shard_capacity(plan, options.shard_mib), balanced)


def shard_capacity(plan: Plan, shard_mib: int) -> int:
    """Return how many samples fit into a shard: a whole number of crops, and at least one."""
    samples = (shard_mib << 20) // plan.layout.sample_bytes
    return max(1, samples // plan.samples_per_crop) * plan.samples_per_crop
