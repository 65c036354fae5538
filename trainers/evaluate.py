"""How well weights restore images that they were not trained on, always beside the images as they were given."""

import math
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blurgen.progress import ProgressLine
from trainers.arithmetic import set_precision
from trainers.bench import Bench, Deblurring, Measured, Meter
from trainers.data import PairSet
from trainers.eval_options import EvalOptions
from trainers.held_out import SPLIT_TABLE, FolderPairs, HeldOut, folder_pairs, read_roles, shard_pairs
from trainers.infer import Means
from trainers.lpips import KEPT, LEAST_PX, open_lpips
from trainers.metrics import METRICS, Metric, d_vgg, learned
from trainers.pretrained import cache_folder
from trainers.processes import device_named
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
    output : Deblurring or None
    """

    facts: dict[str, Any]
    images: tuple[Measured, ...]
    pairs: PairSet | FolderPairs
    notes: tuple[str, ...]
    output: Deblurring | None = field(repr=False, default=None)

    @property
    def counted(self) -> list[Measured]:
        """The images that the means are over: those that are blurred, or all where none is."""
        return [image for image in self.images if image.is_blurred] or list(self.images)

    @property
    def means(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Row -> metric -> (mean, standard deviation) over the counted images that have a value."""
        rows: dict[str, dict[str, tuple[float, float]]] = {}
        for row, values in self.images[0].rows.items():
            columns = {name: [image.rows[row][name] for image in self.counted] for name in values}
            rows[row] = {name: _mean_and_spread(column) for name, column in columns.items()}
        return rows

    @property
    def median_psnr_db(self) -> dict[str, float]:
        """Row -> median of the PSNR over the counted images, dB; a nearly blank page moves it little."""
        return {row: float(np.median([image.rows[row]["psnr"] for image in self.counted])) for row in self.means}

    @property
    def gain_db(self) -> float:
        """Mean gain of the output over the input in PSNR, dB."""
        return _mean_and_spread([image.merit_db for image in self.counted])[0] if self.output else math.nan

    @property
    def improved(self) -> int:
        """How many outputs are nearer to the sharp image than the input, in PSNR."""
        return sum(image.merit_db > 0 for image in self.counted) if self.output else 0


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
    """Return how well weights restore the pairs that they were not trained on.

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
    loaded = load_weights(weights, device) if weights else None
    held_out = find_pairs(options, loaded, folders)
    metrics, origins = _metrics(options, device)
    output = Deblurring(loaded.restorer, Means(device, options.precision)) if loaded else None
    bench = Bench(metrics, output, Meter(device), options.align, options.blank)
    pairs = held_out.pairs.limited(options.limit)
    images = _measured(bench, pairs, quiet)
    facts = _facts(options, loaded, folders, origins) | {"device": _device_name(device), "images": len(images)}
    evaluation = Evaluation(facts, images, pairs, held_out.notes, output)
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


def find_pairs(options: EvalOptions, weights: Weights | None, folders: tuple[Path, Path] | None) -> HeldOut:
    """Return the pairs that are to be measured, of those that `weights` were not trained on."""
    roles = read_roles(weights.path.parent) if weights else {}
    if folders is not None:
        if options.data is not None:
            raise ValueError("--data and --pairs both say what to measure on: give one of them")
        held_out = folder_pairs(*folders, options.match, roles)
    else:
        held_out = shard_pairs(_shards(options, weights), options.split, roles)
    if roles is not None:
        return held_out
    unchecked = f"there is no {SPLIT_TABLE} beside {weights.path}: it may have been trained on some of these images"
    return HeldOut(held_out.pairs, (*held_out.notes, unchecked))


def _shards(options: EvalOptions, weights: Weights | None) -> Path:
    path = options.data or (_data_of_run(weights.path.parent) if weights else None)
    if path is None:
        raise ValueError("what to measure on is missing: give --data SHARDS or --pairs BLURRED SHARP")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: name shards with --data, or folders with --pairs")
    return path


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


def _facts(
    options: EvalOptions, weights: Weights | None, folders: tuple[Path, Path] | None, origins: dict[str, str]
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if weights:
        facts |= {"weights": str(weights.path), "system": weights.method.name, "step": weights.facts.get("step")}
        facts["precision"] = options.precision
    if folders:
        facts |= {side: str(folder) for side, folder in zip(("blurred", "sharp"), folders, strict=True)}
    else:
        facts |= {"data": str(_shards(options, weights)), "split": options.split}
    if options.align:
        facts["aligned_by_up_to_px"] = options.align
    return facts | {f"weights_of_{name}": origin for name, origin in origins.items()}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
