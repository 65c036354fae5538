"""What an evaluation leaves behind: a table for the terminal, a CSV, a JSON, and a sheet of examples."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blurgen.preview import stack
from blurgen.shards import write_atomically
from trainers.bench import COST, INPUT, IOU_OF_IMAGE, MEAN, OUTPUT, SHIFT, WHITE, Measured
from trainers.eval_options import EvalOptions
from trainers.evaluate import Evaluation
from trainers.resizing import enlarged

TILE_PX, LINE_PX, GAP_PX, MOST_ENLARGED = 480, 22, 4, 2
GRAY = 160
_DIGITS = {"psnr": 2, "peak_mib": 0}
_UNITS = {"psnr": "psnr dB", "seconds": "seconds", "peak_mib": "peak MiB"}
_ROWS = {WHITE: "white page", MEAN: "mean colour"}


def table(evaluation: Evaluation) -> str:
    """Return the median of the PSNR, and mean and spread of each metric, a row for each kind of image.

    The mean IoU is that of all pixels together.
    """
    means, medians = evaluation.means, evaluation.median_psnr_db
    left_out = {*SHIFT, IOU_OF_IMAGE}
    columns = list(dict.fromkeys(name for values in means.values() for name in values if name not in left_out))
    lines = [["", "median dB", *(_UNITS.get(name, name) for name in columns)]]
    for row in means:
        cells = [_cell(name, *means[row][name]) if name in means[row] else "" for name in columns]
        lines.append([_label(evaluation, row), f"{medians[row]:.2f}" if row in medians else "", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _label(evaluation: Evaluation, row: str) -> str:
    if row == INPUT and evaluation.scale > 1:
        return f"{INPUT}, bicubic"
    if row == OUTPUT and "protocol" in evaluation.facts:
        return f"{OUTPUT}, {evaluation.facts['protocol']}"
    return _ROWS.get(row, row)


def _cell(name: str, mean: float, spread: float) -> str:
    if math.isnan(mean):
        return "-"
    digits = _DIGITS.get(name, 4)
    return f"{mean:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Return the facts, and row -> metric -> mean and std; what is not defined or not finite is None."""
    facts = dict(evaluation.facts)
    if evaluation.restorations:
        facts |= {"gain_db": _plain(round(evaluation.gain_db, 4)), "improved": evaluation.improved}
    rows = {
        row: {name: {"mean": _plain(mean), "std": _plain(std)} for name, (mean, std) in values.items()}
        for row, values in evaluation.means.items()
    }
    for row, median in evaluation.median_psnr_db.items():
        rows[row]["psnr"]["median"] = _plain(median)
    return facts | {"notes": list(evaluation.notes), "rows": rows}


def folders_of(evaluations: Sequence[Evaluation], options: EvalOptions) -> list[Path | None]:
    """Return a folder for each evaluation: ``--out``, or where there are several a folder of each set in it.

    Without ``--out`` they are the `default_folder`; sets of one name are numbered.
    """
    found: list[Path | None] = []
    for evaluation in evaluations:
        folder = default_folder(evaluation, options)
        if options.out:
            folder = options.out / _set_name(evaluation) if len(evaluations) > 1 else options.out
        wanted, number = folder, 1
        while folder is not None and folder in found:
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
        found.append(folder)
    return found


def default_folder(evaluation: Evaluation, options: EvalOptions) -> Path | None:
    """Return ``eval/NAME`` beside the weights; None without weights.

    NAME says what was measured, the shards and the split, or the folder that both sides lie in; and how.
    """
    facts = evaluation.facts
    if "weights" not in facts:
        return None
    parts = [_set_name(evaluation), *([facts["protocol"]] if "protocol" in facts else [])]
    if options.infer:
        parts += [options.infer.name, *(f"{name}{value}" for name, value in sorted(options.infer.settings.items()))]
    parts += [f"dropout{options.seed}"] if options.mc_dropout else []
    parts += [f"{name}{value}" for name, value in (("aligned", options.align), ("limit", options.limit)) if value]
    return Path(facts["weights"]).parent / "eval" / "-".join(parts)


def _set_name(evaluation: Evaluation) -> str:
    facts = evaluation.facts
    if "data" in facts:
        return f"{Path(facts['data']).stem}-{facts['split']}"
    blurred, sharp = (Path(facts[side]).resolve() for side in ("blurred", "sharp"))
    return blurred.parent.name or "pairs" if blurred.parent == sharp.parent else f"{blurred.name}-{sharp.name}"


def write(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``images.csv``, ``eval.json`` and ``examples.png`` into `folder`, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [_image_values(image) for image in evaluation.images]
    contents = {
        "images.csv": _csv(evaluation.images).encode(),
        "eval.json": json.dumps(summary(evaluation) | {"per_image": images}, indent=1).encode(),
        "examples.png": cv2.imencode(".png", example_sheet(evaluation)[..., ::-1])[1].tobytes(),
    }
    for name, content in contents.items():
        write_atomically(folder / name, [(0, content)], len(content))
    return [folder / name for name in contents]


def _image_values(image: Measured) -> dict[str, Any]:
    rows = {row: {name: _plain(value) for name, value in values.items()} for row, values in image.rows.items()}
    return {"image": image.key, "height": image.height, "width": image.width, **rows}


def _csv(images: Sequence[Measured]) -> str:
    names = list(dict.fromkeys(name for row in images[0].rows.values() for name in row if name not in COST))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "height", "width", "row", *names, *COST])
    for image in images:
        for row, values in image.rows.items():
            cells = [values.get(name, "") for name in (*names, *COST)]
            writer.writerow([image.key, image.height, image.width, row, *cells])
    return text.getvalue()


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def example_sheet(evaluation: Evaluation) -> np.ndarray:
    """Return the best, the median and the worst image as ``input | output | target``, (H, W, 3) uint8.

    Before the target is what other systems make, where there are some. Images are ranked by the gain in PSNR, or by
    the PSNR of the input where nothing was restored.
    """
    images = evaluation.images
    blurred = [index for index, image in enumerate(images) if image.is_blurred]
    ranked = sorted(blurred or range(len(images)), key=lambda index: -images[index].merit_db)
    places = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    columns = [_label(evaluation, INPUT), *evaluation.restorations, "target"]
    strips = [_caption(" | ".join(columns))]
    for name, index in places.items():
        pair, image = evaluation.pairs[index], evaluation.images[index]
        restored = [restoration(pair.blurred, **pair.guiding) for restoration in evaluation.restorations.values()]
        pictures = [enlarged(pair.blurred, evaluation.scale), *restored, pair.sharp]
        strips += [_caption(f"{name}: {_said(image)}"), _side_by_side(pictures)]
    return stack(*strips)


def _said(image: Measured) -> str:
    values = {row: image.rows[row]["psnr"] for row in (INPUT, OUTPUT) if row in image.rows}
    words = ", ".join(f"{row} {value:.2f} dB" for row, value in values.items())
    return f"{words}{f', gain {image.merit_db:+.2f} dB' if OUTPUT in values else ''}  {image.key}"


def _caption(text: str) -> np.ndarray:
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    line = np.full((LINE_PX, width + 8, 3), 255, np.uint8)
    return cv2.putText(line, text, (4, LINE_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    tiles = [np.pad(_tile(picture), ((0, 0), (0, GAP_PX), (0, 0)), constant_values=GRAY) for picture in pictures]
    return np.concatenate(tiles, axis=1)


def _tile(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = TILE_PX / max(height, width)
    if factor >= 1:
        enlarged = min(int(factor), MOST_ENLARGED)
        return picture.repeat(enlarged, 0).repeat(enlarged, 1)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
