"""What `singan` makes of real blur: trained on one sharp image of a scene, it restores a blurred one.

    python benchmarks/singan.py DATA [--out DIR] [--iterations 2000] [--crop 250] [--width 32]

DATA holds `gopro/scene_groups.tsv`, whose lines name a sharp frame of another view, a blurred frame and the sharp image
of that, and `real_blur_triplets/*_S.JPG` (sharp), `*_M.JPG` (moved) and `*_F.JPG` (out of focus), three shots of one
scene. A case is an image to train on and pairs to restore. Protocols: `neighbour`, trained on the other view; `oracle`,
trained on the very image that the result is compared with. Each is measured at its own size and at that of the finest
scale, beside the untouched input; the shots, taken by hand, are shifted to where they fit best, the input, too.
Commands, machine and schedule are printed with the table. A stopped run is continued by the same command.
"""

import argparse
import csv
import json
import math
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from blurgen.sources.decode import image_size

WAYS = {"iterate": ("k=3",), "inject": ()}
SHOTS_APART_PX = 96
ROWS = ("psnr", "ssim")


@dataclass(frozen=True)
class Case:
    """An image to train on, and (blurred, sharp) pairs to restore; `apart` is how far, in px, a pair may be shifted."""

    name: str
    image: Path
    pairs: tuple[tuple[Path, Path], ...]
    apart: int = 0


def cases_in(data: Path) -> Iterator[Case]:
    """Yield the cases of a folder of data."""
    table = data / "gopro" / "scene_groups.tsv"
    with table.open(newline="") as file:
        for number, line in enumerate(csv.DictReader(file, delimiter="\t")):
            blurred, sharp = (table.parent / line[name] for name in ("blurry", "ground_truth_of_blurry"))
            name = f"{line['scene']}-{number}"
            yield Case(f"{name}-other-view", table.parent / line["sharp_other_view"], ((blurred, sharp),))
            yield Case(f"{name}-same-view", sharp, ((blurred, sharp),))
    for sharp in sorted((data / "real_blur_triplets").glob("*_S.JPG")):
        blurred = [sharp.with_name(sharp.name.replace("_S.", ending)) for ending in ("_M.", "_F.")]
        yield Case(f"shots-{sharp.stem}", sharp, tuple((one, sharp) for one in blurred), SHOTS_APART_PX)


def main() -> None:
    """Train on every case, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the real images")
    parser.add_argument("--out", type=Path, default=Path("runs/singan-cases"), help="folder of the runs")
    parser.add_argument("--iterations", type=int, default=2000, help="steps of each scale; paper 2000")
    parser.add_argument("--crop", type=int, default=250, help="longest side of the finest scale, px; paper 250")
    parser.add_argument("--width", type=int, default=32, help="channels of the coarsest scales; paper 32")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    rows = [row for case in cases_in(arguments.data) for row in measured(case, arguments)]
    print_table(rows)


def measured(case: Case, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Train on a case; yield a row for its input, and for each way, at both sizes."""
    folder = arguments.out / case.name
    for number, pair in enumerate(case.pairs):
        for side, image in zip(("blurred", "sharp"), pair, strict=True):
            (folder / side).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, folder / side / f"{number}{image.suffix}")
    schedule = ["--iterations", arguments.iterations, "--decay-iteration", arguments.iterations * 4 // 5]
    network = ["--crop", arguments.crop, "--width", arguments.width, "--device", arguments.device]
    call("run", "singan", "--image", case.image, "--out", folder / "run", *schedule, *network, "--quiet")
    for size in ("native", "finest"):
        apart = case.apart
        if apart and size == "finest":
            apart = math.ceil(apart * arguments.crop / max(image_size(case.image.read_bytes())))
        for way, settings in WAYS.items():
            chosen = [f"size={size}", *settings]
            words = ["--infer", way, *(word for one in chosen for word in ("--set", f"infer.{one}"))]
            words += ["--align", apart, "--device", arguments.device, "--json", "--quiet"]
            pairs = ("--pairs", folder / "blurred", folder / "sharp")
            facts = json.loads(call("eval", folder / "run", *pairs, "--out", folder / size / way, *words))
            shown = {"input": "input", "output": f"{way}, {facts['protocol']}"}
            for row, label in shown.items() if way == "iterate" else [("output", shown["output"])]:
                figures = (f"{facts['rows'][row][name]['mean']:.{2 + 2 * (name == 'ssim')}f}" for name in ROWS)
                yield (case.name, size, label, *figures)


def call(*words: object) -> str:
    """Run a command of `trainers` and return what it prints; end where it fails."""
    words = ("trainers", *map(str, words))
    print("$", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", *words], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print the rows as a table."""
    rows = [("case", "size", "", "PSNR dB", "SSIM"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
