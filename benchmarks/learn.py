"""Whether `disentangled` learns to deblur from unpaired pages, at a width that a CPU can train.

    python benchmarks/learn.py [--out DIR]

Runs `blurgen make`, `trainers run disentangled` and `trainers eval` with the settings below, prints the rows of the
held-out pages (untouched, deblurred, a white page, a page of the mean colour), and draws the learning curve into
DIR/curve.png. A stopped run is continued by the same command.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import matplotlib
import torch

from trainers.logs import METRICS

PAGES = """
    --src text --set source.plain=true --crop 128 --count 1600
    --kernel walk --set kernel.length_px=5 --set kernel.anxiety=0.005
"""
TRAINING = """
    --domain text --preset paper --width 16 --crop 64 --batch 2 --generator-every 1 --self-reconstruction 10 --color 1
    --lr 1e-3 --schedule linear --constant-epochs 9 --decay-epochs 7 --validate-every 500
"""


def main() -> None:
    """Make the pages, train on them, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/learn"), help="folder of the run")
    arguments = parser.parse_args()
    folder, pages = arguments.out, arguments.out / "pages.h5"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    call("blurgen", "make", *PAGES.split(), "--out", pages)
    call("trainers", "run", "disentangled", "--data", pages, "--out", folder / "run", *TRAINING.split())
    call("trainers", "eval", folder / "run", "--data", pages, "--blank")
    draw_curve(folder / "run" / METRICS, folder / "curve.png")
    print(folder / "curve.png")


def call(*words: object) -> None:
    """Run a command of this project, as the user would; end where it fails."""
    print("$", *words, flush=True)
    status = subprocess.run([sys.executable, "-m", *map(str, words)], check=False).returncode
    if status:
        sys.exit(status)


def draw_curve(metrics: Path, out: Path) -> None:
    """Draw PSNR on validation pages, and the losses that remake images, against the steps."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 6), layout="constrained")
    for name, label in (("validation_psnr_db", "deblurred"), ("validation_input_psnr_db", "untouched")):
        plot(above, lines, name, label)
    for name in ("cycle", "self_reconstruction"):
        plot(below, lines, name, name.replace("_", " "))
    above.set_ylabel("PSNR of validation pages, dB")
    below.set_ylabel("loss")
    below.set_xlabel("step")
    for axes in (above, below):
        axes.legend(frameon=False)
    figure.savefig(out, dpi=100)


def plot(axes: "matplotlib.axes.Axes", lines: list[dict], name: str, label: str) -> None:
    """Draw one quantity of metrics.jsonl."""
    found = [line for line in lines if name in line]
    axes.plot([line["step"] for line in found], [line[name] for line in found], label=label)


if __name__ == "__main__":
    main()
