"""How well weights restore images that they were not trained on, always beside the images as they were given."""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from blurgen.progress import ProgressLine
from trainers.arithmetic import set_precision
from trainers.bench import CER, IOU, OUTPUT, Bench, Deblurring, Enlarging, Measured, Meter, Restorations
from trainers.data import ARRAYS, PairSet
from trainers.eval_options import NEIGHBOUR, ORACLE, EvalOptions
from trainers.held_out import (
    SPLIT_TABLE,
    FolderPairs,
    HeldOut,
    ResizedPairs,
    Roles,
    folder_pairs,
    read_roles,
    shard_pairs,
)
from trainers.infer import Means, check_dropout
from trainers.lpips import KEPT, LEAST_PX, open_lpips
from trainers.metrics import METRICS, Metric, d_vgg, learned
from trainers.ocr import open_tesseract
from trainers.pretrained import cache_folder
from trainers.processes import device_named
from trainers.segment import SegmentationScore, Segmenter
from trainers.single import SINGLE
from trainers.vgg import POOL5, cached, open_features
from trainers.weights import Weights, load_weights

POOL5_LEAST_PX = 32


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes
    ----------
    facts : dict
        What was measured on what.
    images : tuple of Measured
    pairs : PairSet or FolderPairs
        What was measured, in the same order.
    notes : tuple of str
        A sentence on each thing that was left out, or could not be checked.
    restorations : mapping
        Row -> what made its images; "output" is the system that was measured.
    scale : int
        How many times larger it makes images.
    iou : mapping
        Row -> mean IoU over all pixels of the counted images, where a network has segmented them.
    """

    facts: dict[str, Any]
    images: tuple[Measured, ...]
    pairs: PairSet | FolderPairs
    notes: tuple[str, ...]
    restorations: Restorations = field(repr=False, default_factory=dict)
    scale: int = 1
    iou: Mapping[str, float] = field(default_factory=dict)

    @property
    def counted(self) -> list[Measured]:
        """The images that the means are over: those that are blurred, or all where none is."""
        return [image for image in self.images if image.is_blurred] or list(self.images)

    @property
    def means(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Row -> metric -> (mean, standard deviation) over the counted images that have a value; that of iou is NaN."""
        rows: dict[str, dict[str, tuple[float, float]]] = {}
        for row, values in self.images[0].rows.items():
            columns = {name: [image.rows[row][name] for image in self.counted] for name in values}
            rows[row] = {name: _mean_and_spread(column) for name, column in columns.items()}
        for row, value in self.iou.items():
            rows[row][IOU] = value, math.nan
        return rows

    @property
    def median_psnr_db(self) -> dict[str, float]:
        """Row -> median of the PSNR over the counted images, dB; a nearly blank page moves it little."""
        rows = [row for row, values in self.images[0].rows.items() if "psnr" in values]
        return {row: float(np.median([image.rows[row]["psnr"] for image in self.counted])) for row in rows}

    @property
    def gain_db(self) -> float:
        """Mean gain of the output over the input in PSNR, dB."""
        if OUTPUT not in self.restorations:
            return math.nan
        return _mean_and_spread([image.merit_db for image in self.counted])[0]

    @property
    def improved(self) -> int:
        """How many outputs are nearer to the sharp image than the input, in PSNR."""
        return sum(image.merit_db > 0 for image in self.counted) if OUTPUT in self.restorations else 0


def _mean_and_spread(values: list[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan, math.nan
    if not all(map(math.isfinite, known)):
        return math.inf, math.nan
    return float(np.mean(known)), float(np.std(known))


def evaluate(
    options: EvalOptions, weights: Path | None = None, folders: tuple[Path, Path] | None = None, quiet: bool = True
) -> Evaluation:
    """Return how well weights restore the pairs of one set that they were not trained on; see `evaluate_each`."""
    if len(options.data) > 1:
        raise ValueError(f"data must name one set here, got {len(options.data)}: evaluate_each takes several")
    return evaluate_each(options, weights, folders, quiet)[0]


def evaluate_each(
    options: EvalOptions, weights: Path | None = None, folders: tuple[Path, Path] | None = None, quiet: bool = True
) -> list[Evaluation]:
    """Return how well weights restore the pairs that they were not trained on, of each set of ``options.data``.

    Parameters
    ----------
    options : EvalOptions
    weights : Path, optional
        A run's folder or a file of weights; without it only the untouched images are measured.
    folders : (Path, Path), optional
        Folders of blurred and of sharp images, in place of shards.
    quiet : bool
        Show no progress on stderr.

    Raises
    ------
    ValueError, FileNotFoundError
        There is nothing to measure on, or with.
    """
    device = device_named(options.device)
    set_precision(options.precision, device)
    systems = load_systems(options, weights, device)
    sets = [None] if folders is not None else _shards(options, systems.weights)
    # What cannot be measured on is to be known before anything is measured.
    held_out = [find_pairs(options, systems, path, folders) for path in sets]
    if options.ocr:
        _require_transcripts(held_out)
    metrics, origins = _metrics(options, device)
    extras = _extras(options, device, origins)
    restorations = _restorations(systems, _means(options, systems, device))
    bench = Bench(metrics, restorations, Meter(device), options.align, options.blank, systems.scale, **extras)
    facts = _facts(options, systems, origins) | {"device": _device_name(device)}
    size_of = systems.weights.restorer.measured_size if systems.weights else None
    return [
        _evaluation(bench, found, facts | _place(options, path, folders), options.limit, quiet, size_of)
        for path, found in zip(sets, held_out, strict=True)
    ]


def _evaluation(
    bench: Bench,
    held_out: HeldOut,
    facts: Mapping[str, Any],
    limit: int | None,
    quiet: bool,
    size_of: Callable[[int, int], tuple[int, int]] | None,
) -> Evaluation:
    pairs = held_out.pairs.limited(limit)
    if size_of is not None:
        pairs = ResizedPairs(pairs, size_of)
    if bench.segmentation:
        bench = replace(bench, segmentation=bench.segmentation.anew())
    images = _measured(bench, pairs, quiet)
    facts = {**facts, **({"protocol": held_out.protocol} if held_out.protocol else {}), "images": len(images)}
    evaluation = Evaluation(facts, images, pairs, held_out.notes, bench.restorations, bench.scale)
    if bench.segmentation:
        evaluation = replace(evaluation, iou=bench.segmentation.totals())
    equal = len(images) - len(evaluation.counted)
    if not equal:
        return evaluation
    note = f"{equal} of {len(images)} pairs are equal images, with nothing to restore: they are left out of the means"
    return replace(evaluation, notes=(*evaluation.notes, note))


@dataclass
class _Progress:
    total: int
    done: int = 0
    note: str = ""


def _measured(bench: Bench, pairs: PairSet | FolderPairs, quiet: bool) -> tuple[Measured, ...]:
    images, progress = [], _Progress(len(pairs))
    with ProgressLine(quiet, "images") as line:
        for pair in pairs:
            images.append(bench.measure(pair))
            progress.done += 1
            line.show(progress)
    return tuple(images)


class Systems(NamedTuple):
    """The weights that are measured, and those of a system that does not enlarge to compare them with."""

    weights: Weights | None
    beside: Weights | None

    @property
    def scale(self) -> int:
        """How many times larger the system makes images."""
        return self.weights.restorer.scale if self.weights else 1


def load_systems(options: EvalOptions, weights: Path | None, device: torch.device) -> Systems:
    """Return the weights named by `weights` and by ``options.beside``.

    Raises
    ------
    ValueError, FileNotFoundError
        Weights that cannot be read, or that there is nothing to compare in.
    """
    loaded = load_weights(weights, device) if weights else None
    if loaded:
        loaded.restorer.choose(options.infer)
    elif options.infer:
        raise ValueError("--infer says how a system restores: give a run to measure, or leave it out")
    if options.protocol and (loaded is None or loaded.method.pairing != SINGLE):
        raise ValueError("--protocol is of a system that was trained on one image: leave it out")
    if options.beside is None:
        return Systems(loaded, None)
    if loaded is None or loaded.restorer.scale == 1:
        raise ValueError("--beside compares systems that enlarge with others: give a run of such a system to measure")
    beside = load_weights(options.beside, device)
    if beside.restorer.scale > 1:
        raise ValueError(
            f"--beside must be a system that does not enlarge, and {beside.path} holds {beside.method.name}: "
            "give a run of disentangled"
        )
    return Systems(loaded, beside)


def _means(options: EvalOptions, systems: Systems, device: torch.device) -> Means:
    means = Means(device, options.precision, dropout_seed=options.seed if options.mc_dropout else None)
    if systems.weights:
        check_dropout(systems.weights.restorer, means)
    elif options.mc_dropout:
        raise ValueError("--mc-dropout drops values inside of a network: give a run to measure, or leave it out")
    return means


def _restorations(systems: Systems, means: Means) -> Restorations:
    if systems.weights is None:
        return {}
    restorations: dict[str, Deblurring | Enlarging] = {OUTPUT: Deblurring(systems.weights.restorer, means)}
    if systems.beside:
        name, deblurring = systems.beside.method.name, Deblurring(systems.beside.restorer, means)
        restorations[f"bicubic, then {name}"] = Enlarging(deblurring, systems.scale, first=True)
        restorations[f"{name}, then bicubic"] = Enlarging(deblurring, systems.scale, first=False)
    return restorations


def find_pairs(
    options: EvalOptions, systems: Systems, shards: Path | None, folders: tuple[Path, Path] | None
) -> HeldOut:
    """Return the pairs that are to be measured, of `shards` or `folders`, that no weights were trained on."""
    if folders is not None and options.data:
        raise ValueError("--data and --pairs both say what to measure on: give one of them")
    protocols: tuple[str | None, ...] = (None,)
    if systems.weights and systems.weights.method.pairing == SINGLE:
        protocols = (options.protocol,) if options.protocol else (NEIGHBOUR, ORACLE)
    roles: dict[str, frozenset[str]] = {}
    notes = []
    for weights in filter(None, systems):
        if weights.restorer.caveat:
            notes.append(f"{weights.path}: {weights.restorer.caveat}")
        used = read_roles(weights.path.parent)
        if used is None:
            notes.append(
                f"there is no {SPLIT_TABLE} beside {weights.path}: it may have been trained on some of these images"
            )
        roles = _joined(roles, used or {})
    if folders is not None:
        held_out = folder_pairs(*folders, options.match, roles, systems.scale, protocols)
    elif protocols != (None,):
        raise ValueError(f"{systems.weights.method.name} is measured on whole images: give --pairs BLURRED SHARP")
    else:
        arrays = systems.weights.method.arrays(systems.weights.config) if systems.weights else ARRAYS
        held_out = shard_pairs(shards, options.split, roles, arrays)
    return replace(held_out, notes=(*held_out.notes, *notes))


def _joined(roles: Roles, others: Roles) -> dict[str, frozenset[str]]:
    none: frozenset[str] = frozenset()
    return {digest: roles.get(digest, none) | others.get(digest, none) for digest in {**roles, **others}}


def _shards(options: EvalOptions, weights: Weights | None) -> list[Path]:
    of_run = _data_of_run(weights.path.parent) if weights and not options.data else None
    paths = list(options.data) or [path for path in [of_run] if path]
    if not paths:
        raise ValueError("what to measure on is missing: give --data SHARDS or --pairs BLURRED SHARP")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: name shards with --data, or folders with --pairs")
    return paths


def _data_of_run(run: Path) -> Path | None:
    try:
        said = tomllib.loads((run / "run.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{run / 'run.toml'} is no valid TOML file: {error}") from error
    path = said.get("blurred") or said.get("data")
    return Path(path) if isinstance(path, str) else None


def _metrics(options: EvalOptions, device: torch.device) -> tuple[dict[str, Metric], dict[str, str]]:
    """Return the metrics whose weights are there, and a sentence on the weights of each that needs some."""
    metrics, origins = dict(METRICS), {}
    if options.vgg_weights is not None or cached(POOL5):
        features, origins["d_vgg"] = open_features(options.features, POOL5, normalised=True)
        metrics["d_vgg"] = learned(d_vgg(features.to(device)), device, POOL5_LEAST_PX)
    if options.alexnet_weights or options.lpips_weights or (cache_folder() / KEPT).is_file():
        model, origins["lpips"] = open_lpips(options.alexnet_weights, options.lpips_weights)
        metrics["lpips"] = learned(model.to(device), device, LEAST_PX)
    return metrics, origins


def _extras(options: EvalOptions, device: torch.device, origins: dict[str, str]) -> dict[str, Any]:
    """Return what a bench needs for the metrics that are asked for, and put a sentence on each into `origins`."""
    extras: dict[str, Any] = {}
    if options.segmenter is not None:
        segmenter = Segmenter(options.segmenter, device)
        extras["segmentation"], origins[IOU] = SegmentationScore(segmenter, segmenter.classes), options.segmenter
    if options.ocr:
        extras["read"], origins[CER] = open_tesseract(options.ocr_lang)
    return extras


def _require_transcripts(held_out: Sequence[HeldOut]) -> None:
    for found in held_out:
        if found.pairs[0].transcript is None:
            raise ValueError(
                "--ocr compares with the words that were set, which shards keep: "
                "give shards of `blurgen make --src text --transcripts`"
            )


def _place(options: EvalOptions, shards: Path | None, folders: tuple[Path, Path] | None) -> dict[str, Any]:
    """Return what is measured on."""
    if folders:
        return {side: str(folder) for side, folder in zip(("blurred", "sharp"), folders, strict=True)}
    return {"data": str(shards), "split": options.split}


def _facts(options: EvalOptions, systems: Systems, origins: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if weights := systems.weights:
        facts |= {"weights": str(weights.path), "system": weights.method.name, "step": weights.facts.get("step")}
        facts["precision"] = options.precision
    if systems.scale > 1:
        facts["scale"] = systems.scale
    if systems.beside:
        facts["beside"] = str(systems.beside.path)
    if options.mc_dropout:
        facts["dropout_seed"] = options.seed
    if options.infer:
        facts["infer"] = ", ".join([options.infer.name, *(f"{key} {x}" for key, x in options.infer.settings.items())])
    if options.align:
        facts["aligned_by_up_to_px"] = options.align
    return facts | {f"weights_of_{name}": origin for name, origin in origins.items()}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
