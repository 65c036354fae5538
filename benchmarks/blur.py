"""Speed of blurring against OpenCV and SciPy, one thread, medians of alternating runs.

    python benchmarks/blur.py [--fit]

Kernels are drawn from the presets, those whose number of non-zeros is nearest to the one in the table, and are cropped
to their box for everybody. Every peer gets the layout that suits it: interleaved for OpenCV, planar for SciPy. The
floor is one multiply-add for each non-zero and sample, at the rate of a loop that touches nothing but a few sums.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable

import cv2
import numba
import numpy as np
import scipy
import scipy.signal

from blurgen import blur, draw_kernels
from blurgen.convolve import convolve
from blurgen.imaging import response
from blurgen.jit import njit

SIZES = {"256x256x3": (256, 256, 3), "720x1280x3": (720, 1280, 3)}
KERNELS = [("boracchi-foi", 20), ("levin-like", 40), ("deblurgan", 120), ("vegan", 400)]
KERNELS_EACH = 5
ROUNDS = {256: 15, 720: 3}
LOOPS, SUMS = 20_000, 128


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="measure the coefficient of the cost model instead")
    fit = parser.parse_args().fit
    cv2.setNumThreads(1)
    print(f"{processor()}, {platform.system()}; Python {platform.python_version()}, numpy {np.__version__}, "
          f"numba {numba.__version__}, scipy {scipy.__version__}, OpenCV {cv2.__version__}\n")  # fmt: skip
    kernels = {case: nearest_kernels(*case) for case in KERNELS}
    if fit:
        return print_cost_model()
    print_peers(kernels)
    print_conversions(kernels)


def print_peers(kernels: dict[tuple[str, int], list[np.ndarray]]) -> None:
    """Print milliseconds of `convolve` and its peers, and how many times faster it is than the best of them."""
    rate = multiply_adds_per_second()
    print(f"floor: {rate / 1e9:.1f} G multiply-adds/s\n")
    print("image       kernels       taps  box    floor  convolve  filter2D  fftconvolve  oaconvolve  best / ours")
    for size, shape in SIZES.items():
        linear = np.random.default_rng(0).random(shape, np.float32)
        planar = np.ascontiguousarray(np.moveaxis(linear, 2, 0))
        for (preset, nonzeros), drawn in kernels.items():
            times = np.array([peer_times(linear, planar, kernel) for kernel in drawn])
            ratios = times[:, 1:].min(axis=1) / times[:, 0]
            ours, *peers = np.median(times, axis=0) * 1e3
            floor = np.mean([np.count_nonzero(kernel) for kernel in drawn]) * linear.size / rate * 1e3
            box = f"{np.median([len(k) for k in drawn]):.0f}x{np.median([k.shape[1] for k in drawn]):.0f}"
            print(f"{size:12}{preset:12}{nonzeros:6}  {box:>7}{floor:7.2f}{ours:10.2f}{peers[0]:10.2f}{peers[1]:13.2f}"
                  f"{peers[2]:12.2f}{np.median(ratios):13.2f}  (least {ratios.min():.2f})")  # fmt: skip


def peer_times(linear: np.ndarray, planar: np.ndarray, kernel: np.ndarray) -> list[float]:
    """Return the median seconds of `convolve`, filter2D, fftconvolve and oaconvolve, which all give the same."""
    flipped = np.ascontiguousarray(kernel[::-1, ::-1])
    calls = [
        lambda: convolve(linear, kernel),
        lambda: cv2.filter2D(linear, -1, flipped, borderType=cv2.BORDER_REFLECT_101),
        lambda: scipy.signal.fftconvolve(planar, kernel[None], mode="same", axes=(1, 2)),
        lambda: scipy.signal.oaconvolve(planar, kernel[None], mode="same", axes=(1, 2)),
    ]
    results = [call() for call in calls]
    inside = tuple(slice(side, -side) for side in kernel.shape)
    for result in (results[1], *(np.moveaxis(planes, 0, 2) for planes in results[2:])):
        assert np.abs(result[inside] - results[0][inside]).max() < 1e-5
    return medians(calls, ROUNDS[len(linear)])


def print_conversions(kernels: dict[tuple[str, int], list[np.ndarray]]) -> None:
    """Print what the way from sRGB uint8 to linear light and back adds to a convolution."""
    print("\nsRGB uint8 -> linear -> blur -> sRGB uint8, against the bare convolution of float32\n")
    print("image       kernels       taps  to linear  back  convolve   blur  blur / convolve")
    curve = response("srgb")
    for size, shape in SIZES.items():
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        linear = curve.to_linear(image)
        for (preset, nonzeros), drawn in kernels.items():
            calls = [
                lambda linear=linear, image=image: curve.to_linear(image),
                lambda linear=linear: curve.from_linear(linear, np.uint8),
            ]
            times = []
            for kernel in drawn:
                both = [lambda k=kernel, i=linear: convolve(i, k), lambda k=kernel, i=image: blur(i, k)]
                times.append(medians([*calls, *both], ROUNDS[shape[0]]))
            there, back, bare, whole = np.median(times, axis=0) * 1e3
            print(
                f"{size:12}{preset:12}{nonzeros:6}{there:11.2f}{back:6.2f}{bare:10.2f}{whole:7.2f}{whole / bare:13.2f}"
            )


def print_cost_model() -> None:
    """Print what an FFT point costs per doubling, in taps of the sparse back-end, for kernels of several sizes."""
    rng = np.random.default_rng(0)
    print("image       kernel            box  sparse, ns a tap  dense, ns a step  ratio")
    for size, (height, width, channels) in SIZES.items():
        linear = rng.random((height, width, channels), np.float32)
        for preset, nonzeros in [("boracchi-foi", 40), ("deblurgan", 120), ("vegan", 400), ("vegan", 800)]:
            kernel = nearest_kernels(preset, nonzeros)[0]
            calls = [lambda b=b, k=kernel, i=linear: convolve(i, k, backend=b) for b in ("sparse", "dense")]
            sparse, dense = medians(calls, 5)
            rows = scipy.fft.next_fast_len(height + kernel.shape[0] - 1)
            columns = scipy.fft.next_fast_len(width + kernel.shape[1] - 1, real=True)
            tap = sparse / (np.count_nonzero(kernel) * linear.size) * 1e9
            step = dense / (channels * rows * columns * np.log2(rows * columns)) * 1e9
            box = f"{kernel.shape[0]}x{kernel.shape[1]}"
            print(f"{size:12}{preset:14}{box:>8}{tap:16.4f}{step:18.3f}{step / tap:9.1f}")


def nearest_kernels(preset: str, nonzeros: int) -> list[np.ndarray]:
    """Return kernels of a preset, cropped to an odd box, whose numbers of non-zeros are the nearest to `nonzeros`."""
    drawn = draw_kernels(preset, 400, seed=0)
    counts = np.count_nonzero(drawn, axis=(1, 2))
    return [boxed(drawn[i]) for i in np.argsort(np.abs(counts - nonzeros), kind="stable")[:KERNELS_EACH]]


def boxed(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel cropped to its non-zeros, and one row and column of zeros more where a side would be even."""
    rows, columns = (np.flatnonzero(kernel.any(axis=axis)) for axis in (1, 0))
    box = kernel[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(box, [(0, 1 - side % 2) for side in box.shape])


def medians(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median seconds of each call, run in turns so that all see the same weather.

    Each runs three times in its turn and the last counts, so that none pays for the caches that another has filled.
    """
    times = np.empty((rounds, len(calls)))
    for row in times:
        for i, call in enumerate(calls):
            call()
            call()
            start = time.perf_counter()
            call()
            row[i] = time.perf_counter() - start
    return np.median(times, axis=0).tolist()


def multiply_adds_per_second() -> float:
    """Return the float32 multiply-adds per second of a loop over a few registers' worth of sums."""
    sums, factor = np.ones(SUMS, np.float32), np.float32(0.5)
    return LOOPS * SUMS / medians([lambda: _multiply_add(sums, factor)], 15)[0]


@njit(fastmath={"contract"})
def _multiply_add(sums, factor):
    for _ in range(LOOPS):
        for i in range(SUMS):
            sums[i] = sums[i] * factor + factor


def processor() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
