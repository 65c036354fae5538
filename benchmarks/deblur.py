"""What it takes to deblur a photograph whole, exactly in bands, and fast in tiles; with how far each is from the first.

    python benchmarks/deblur.py [--width N] [--size WxH] [--modes MODE ...] [--memory-gib X] [--system NAME]

Each mode runs in a process of its own, whose peak of resident memory it is. The photograph is drawn, the weights are
random. `whole` and `fast` compute the image as a whole where it fits into --memory-gib; name only `exact` for an image
that does not.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from trainers.infer import GIB, Means, deblur_colors, explain
from trainers.memory import whole_image_bytes
from trainers.models import MODELS, method_class


def main() -> None:
    """Print a row for each mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="disentangled", choices=MODELS)
    parser.add_argument("--width", type=int, default=64, help="width of the network")
    parser.add_argument("--size", default="1024x768", help="size of the photograph, px")
    parser.add_argument("--modes", nargs="+", default=["whole", "exact", "fast"])
    parser.add_argument("--memory-gib", type=float, default=6.0)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    if arguments.result:
        run_mode(arguments, width, height)
        return
    torch_version = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, {torch_version}")
    print(f"{arguments.system} of width {arguments.width}, {width}x{height} px, {arguments.memory_gib:g} GiB allowed")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        results = []
        for mode in arguments.modes:
            results.append(Path(folder, f"{mode}.npy"))
            command = [sys.executable, __file__, *sys.argv[1:], "--modes", mode, "--result", str(results[-1])]
            subprocess.run(command, check=True)
            if len(results) > 1:
                error = np.abs(np.load(results[-1]).astype(int) - np.load(results[0])) / 255
                print(f"  from {results[0].stem}: mean {error.mean():.5f}, largest {error.max():.4f} of the range")


def run_mode(arguments: argparse.Namespace, width: int, height: int) -> None:
    """Deblur in this process, save the result, and print what it took."""
    (mode,) = arguments.modes
    torch.manual_seed(0)
    system = method_class(arguments.system)
    restorer = system.Restorer(system.Config(width=arguments.width)).eval().requires_grad_(False)
    colors = photograph(width, height)
    scratch = arguments.result.parent
    means = Means(torch.device("cpu"), tiles=mode, memory_bytes=int(arguments.memory_gib * GIB), scratch=scratch)
    how = explain(restorer, colors, means) or f"whole, {whole_image_bytes(restorer, height, width) / GIB:.1f} GiB told"
    started, computed = time.monotonic(), time.process_time()
    np.save(arguments.result, deblur_colors(restorer, colors, means))
    seconds, processor = time.monotonic() - started, time.process_time() - computed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{mode}: {seconds:.0f} s ({processor:.0f} s of processors), peak {peak:.2f} GiB; {how}", flush=True)


def photograph(width: int, height: int) -> np.ndarray:
    """Return smooth colours, edges and some noise, (height, width, 3) uint8."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (30, 40, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(200):
        corner = rng.integers(0, (width, height), 2)
        cv2.rectangle(image, corner, corner + rng.integers(4, 200, 2), rng.integers(0, 256, 3).tolist(), -1)
    noise = rng.integers(-4, 5, (height, 1, 3), np.int8) + rng.integers(-4, 5, (1, width, 3), np.int8)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
