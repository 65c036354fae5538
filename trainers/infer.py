"""Deblur one image of any size: whole where its feature maps fit in memory, else in bands or tiles.

From Python:

>>> from trainers.infer import deblur_image
>>> from trainers.weights import load_weights
>>> weights = load_weights("runs/disentangled")  # doctest: +SKIP
>>> sharp = deblur_image(weights, blurred)  # (H, W, 3) uint8 RGB in and out  # doctest: +SKIP
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from blurgen.maps import PRIOR_FACTOR, whole_prior
from trainers.arithmetic import autocast, set_precision
from trainers.band_plan import BAND_BYTES, BandPlan
from trainers.bands import run_in_bands
from trainers.deblur_options import TILES
from trainers.memory import usable_bytes, whole_image_bytes
from trainers.method import Restorer
from trainers.noise import Noise
from trainers.padding import PaddedImage, RestoredImage
from trainers.processes import device_named
from trainers.rows import trace_encoding, trace_restoring
from trainers.tiles import Tiling, receptive_radius, run_in_tiles
from trainers.weights import Weights, load_weights

GIB = 1 << 30
MOST_TILE_PX = 1024
# The encoder is cheap, and its bands repeat many rows: they may be large.
_ENCODING_SHARE = 4

Progress = Callable[[float], None]


class TooLarge(ValueError):
    """An image that the memory or the disk at hand is too small for."""


@dataclass(frozen=True)
class Means:
    """What an image is deblurred with.

    Attributes
    ----------
    device : torch.device
        Where the network lies and computes.
    precision : str
        "fp32", "tf32" or "bf16".
    tiles : str
        "whole"; "exact": in bands, with the same result but for rounding; "fast": whole where it fits, else in tiles,
        with frozen statistics; "auto": whole where it fits, else exact.
    memory_bytes : int, optional
        What feature maps may take; see `usable_bytes` for the default.
    scratch : Path, optional
        Folder for temporary files of the exact mode, where the memory is too small for what it keeps.
    dropout_seed : int, optional
        Drop values as in training, drawn for this seed and the image; of whole images only.
    """

    device: torch.device
    precision: str = "fp32"
    tiles: str = "auto"
    memory_bytes: int | None = None
    scratch: Path | None = None
    dropout_seed: int | None = None

    @property
    def memory(self) -> int:
        """Bytes that feature maps may take."""
        return usable_bytes(self.device) if self.memory_bytes is None else self.memory_bytes


def deblur_image(
    model: str | os.PathLike | Weights | Restorer,
    image: np.ndarray,
    *,
    device: str = "auto",
    precision: str = "fp32",
    tiles: str = "auto",
    memory_gib: float | None = None,
    scratch: str | os.PathLike | None = None,
    epsilon: np.ndarray | None = None,
    dropout_seed: int | None = None,
    guide: np.ndarray | None = None,
) -> np.ndarray:
    """Return the deblurred image, (scale H, scale W, 3 or 4) of the dtype of `image`.

    Parameters
    ----------
    model : path, Weights or Restorer
        A run or its weights; for many images, load them once. A Restorer is moved to the device.
    image : (H, W), (H, W, 3) or (H, W, 4) uint8 or uint16
        sRGB, of any size from 1 x 1 px. Gray comes out as RGB; alpha, the fourth channel, as it is,
        or enlarged.
    device : str
        "auto" takes a GPU where there is one; or "cpu", "cuda".
    precision : str
        "fp32", "tf32" or "bf16".
    tiles : str
        "auto", "whole", "exact" or "fast"; see `Means`.
    memory_gib : float, optional
        Memory for feature maps, GiB; a share of what is free by default.
    scratch : path, optional
        Folder for temporary files; the system's by default.
    epsilon : (latent,) array, optional
        Draws the code of the blur: mean + epsilon * deviation. The mean by default.
    dropout_seed : int, optional
        Drop values as in training, drawn for this seed and the image. Nothing is dropped by default.
    guide : array, optional
        For a run that is guided by maps: the labels (H, W) uint8 of the image, or the probabilities (K, h, w) of
        classes, at any resolution.

    Raises
    ------
    ValueError
        An array of another kind, or an image that is too large for the means given (`TooLarge`).
    """
    if tiles not in TILES:
        raise ValueError(f"tiles must be one of {', '.join(TILES)}, got {tiles!r}")
    colors, alpha = _colors_and_alpha(np.asarray(image))
    if not isinstance(model, (Weights, Restorer)):
        model = load_weights(model)
    restorer = model.restorer if isinstance(model, Weights) else model
    memory = None if memory_gib is None else int(memory_gib * GIB)
    folder = None if scratch is None else Path(scratch)
    means = Means(device_named(device), precision, tiles, memory, folder, dropout_seed)
    drawn = None if epsilon is None else torch.as_tensor(np.asarray(epsilon, np.float32)).reshape(1, -1)
    if guide is not None and np.ndim(guide) == 3:
        guide = whole_prior(np.asarray(guide), colors.shape[:2])
    restored = deblur_colors(restorer.to(means.device).eval(), colors, means, drawn, guide=guide)
    return restored if alpha is None else np.dstack([restored, enlarge_alpha(alpha, restorer.scale)])


def _colors_and_alpha(image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"an image must be uint8 or uint16, got {image.dtype}")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
        raise ValueError(f"an image must have the shape (H, W), (H, W, 3) or (H, W, 4), got {image.shape}")
    return image[..., :3], image[..., 3] if image.shape[2] == 4 else None


def enlarge_alpha(alpha: np.ndarray, scale: int) -> np.ndarray:
    """Return alpha (H, W) for an image of `scale` times the size, along straight lines between its pixels."""
    if scale == 1:
        return alpha
    return cv2.resize(alpha, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)


@torch.inference_mode()
def deblur_colors(
    restorer: Restorer,
    colors: np.ndarray,
    means: Means,
    epsilon: Tensor | None = None,
    progress: Progress = lambda done: None,
    guide: np.ndarray | None = None,
) -> np.ndarray:
    """Return the restored (scale H, scale W, 3) image of (H, W, 3) uint8 or uint16 `colors`.

    Parameters
    ----------
    epsilon : (1, latent) Tensor, optional
        Draws the code of the blur, whose mean is taken otherwise.
    progress : callable
        Is told how much of the work is done, 0 to 1.
    guide : ndarray, optional
        The map that the system asks for, as `PaddedImage` takes it.

    Raises
    ------
    ValueError
        A guide that is missing, not asked for, or of another shape.
    TooLarge
        The memory is too small for the whole image, where that is asked for, or the disk for its maps.
    """
    if epsilon is not None and epsilon.shape != (1, restorer.latent):
        raise ValueError(f"epsilon must have {restorer.latent} numbers, the size of the code, got {epsilon.numel()}")
    check_guide(restorer, colors, guide)
    set_precision(means.precision, means.device)
    # Images come in all sizes: a search for the fastest convolution of each would take longer than it saves.
    torch.backends.cudnn.benchmark = False
    image = PaddedImage(colors, restorer.multiple, means.device, guide)
    restored = RestoredImage(colors, restorer.scale)
    epsilon = None if epsilon is None else epsilon.to(means.device)
    with autocast(means.precision, means.device):
        mode = choose_mode(restorer, image, means)
        if mode == "whole":
            restored.fill(0, _restore_whole(restorer, image.whole(), epsilon, dropout_noise(colors, means)))
        else:
            z = _encode_in_bands(restorer, image, means, epsilon)
            (_restore_exactly if mode == "exact" else _restore_fast)(restorer, image, z, means, restored.fill, progress)
    progress(1.0)
    return restored.pixels


def check_guide(restorer: Restorer, colors: np.ndarray, guide: np.ndarray | None) -> None:
    """Raise a ValueError where the map that guides a system is missing, not asked for, or of another shape."""
    if restorer.guide is None or guide is None:
        if (guide is None) != (restorer.guide is None):
            raise ValueError(
                f"this system is guided by {restorer.guide} maps, and there is none of the image: deblur with "
                f"--{restorer.guide}s, and measure on shards that hold them"
                if guide is None
                else "this system is not guided by maps: leave them out"
            )
        return
    height, width = colors.shape[:2]
    places = (-(-height // PRIOR_FACTOR), -(-width // PRIOR_FACTOR))
    wanted = (height, width) if restorer.guide == "label" else (restorer.guide_channels, *places)
    if guide.shape != wanted:
        raise ValueError(f"the {restorer.guide} map of the image must have the shape {wanted}, got {guide.shape}")


def _restore_whole(restorer: Restorer, image: Tensor, epsilon: Tensor | None, noise: Noise | None) -> Tensor:
    return restorer(image, epsilon) if noise is None else restorer.restore_dropping(image, noise)


def dropout_noise(colors: np.ndarray, means: Means) -> Noise | None:
    """Return the random numbers of a dropout, the same for the same image and seed on the same kind of device."""
    if means.dropout_seed is None:
        return None
    digest = blake2b(repr((colors.shape, colors.dtype.str)).encode() + colors.tobytes(), digest_size=8).digest()
    return Noise(means.dropout_seed, 0, (int.from_bytes(digest),), means.device)


def check_dropout(restorer: Restorer, means: Means) -> None:
    """Raise a ValueError where values shall be dropped, and there is no dropout or the image is computed in parts."""
    if means.dropout_seed is None:
        return
    if not restorer.dropout:
        raise ValueError("--mc-dropout keeps the dropout of training, and this run was trained without: leave it out")
    if means.tiles in ("exact", "fast"):
        raise ValueError(f"--mc-dropout drops values of whole images alone: leave out --tiles {means.tiles}")


def choose_mode(restorer: Restorer, image: PaddedImage, means: Means) -> str:
    """Return "whole", "exact" or "fast"; raises `TooLarge` where whole is asked for and does not fit."""
    check_dropout(restorer, means)
    if restorer.frugal:
        return "whole"
    if means.tiles == "exact":
        return "exact"
    dropping = means.dropout_seed is not None
    needed, memory = whole_image_bytes(restorer, image.height, image.width, dropping), means.memory
    if needed <= memory:
        return "whole"
    if means.tiles == "fast":
        return "fast"
    if dropping:
        raise TooLarge(
            f"the image needs {needed / GIB:.1f} GiB with --mc-dropout, more than the {memory / GIB:.1f} GiB allowed: "
            "raise --memory-gib, or leave --mc-dropout out"
        )
    if means.tiles == "whole":
        raise TooLarge(
            f"the image needs {needed / GIB:.1f} GiB as a whole, more than the {memory / GIB:.1f} GiB allowed: "
            "raise --memory-gib, or take --tiles auto"
        )
    return "exact"


def explain(restorer: Restorer, colors: np.ndarray, means: Means) -> str:
    """Return how an image that is not computed as a whole will be computed, and what that takes; else nothing."""
    image = PaddedImage(colors, restorer.multiple, means.device)
    mode = choose_mode(restorer, image, means)
    if mode == "fast":
        return f"in tiles of {plan_tiles(restorer, image, means.memory).side} px"
    if mode == "whole":
        return ""
    plan = _plan_bands(restorer, image, means)
    keep_in = _choose_keeping(plan, means)
    where = f"temporary files in {keep_in}" if isinstance(keep_in, Path) else f"memory ({keep_in})"
    return f"in bands of rows, with up to {plan.kept_bytes / GIB:.2f} GiB in {where}"


def _encode_in_bands(restorer: Restorer, image: PaddedImage, means: Means, epsilon: Tensor | None) -> Tensor | None:
    if not restorer.latent:
        return None
    band_bytes = min(_ENCODING_SHARE * BAND_BYTES, means.memory // _ENCODING_SHARE)
    graph, size = trace_encoding(restorer), (image.height, image.width)
    plan = BandPlan(graph, *size, band_bytes=band_bytes, channels=restorer.channels)
    keep_in = _choose_keeping(plan, means)
    mean, log_variance = run_in_bands(plan, image, keep_in=keep_in)
    return mean if epsilon is None else mean + epsilon * (log_variance / 2).exp()


def _restore_exactly(
    restorer: Restorer,
    image: PaddedImage,
    z: Tensor | None,
    means: Means,
    fill: Callable[[int, Tensor], None],
    progress: Progress,
) -> None:
    plan = _plan_bands(restorer, image, means)
    run_in_bands(plan, image, z, fill, _choose_keeping(plan, means), progress)


def _plan_bands(restorer: Restorer, image: PaddedImage, means: Means) -> BandPlan:
    band_bytes = min(BAND_BYTES, means.memory // _ENCODING_SHARE)
    graph, size = trace_restoring(restorer), (image.height, image.width)
    return BandPlan(graph, *size, restorer.latent, band_bytes, channels=restorer.channels)


def _choose_keeping(plan: BandPlan, means: Means) -> Path | torch.device:
    """Return where the maps of the exact mode are kept: on the device, in memory, or on disk."""
    if plan.kept_bytes + 2 * BAND_BYTES <= means.memory:
        return means.device
    if means.device.type != "cpu" and plan.kept_bytes <= usable_bytes(torch.device("cpu")):
        return torch.device("cpu")
    folder = means.scratch or Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if plan.kept_bytes > free:
        raise TooLarge(
            f"the image needs {plan.kept_bytes / GIB:.1f} GiB of temporary files, and {folder} has "
            f"{free / GIB:.1f} GiB free: name another folder with --scratch, or take --tiles fast"
        )
    return folder


def _restore_fast(
    restorer: Restorer,
    image: PaddedImage,
    z: Tensor | None,
    means: Means,
    fill: Callable[[int, Tensor], None],
    progress: Progress,
) -> None:
    run_in_tiles(restorer, image, z, plan_tiles(restorer, image, means.memory), fill, progress)


def plan_tiles(restorer: Restorer, image: PaddedImage, memory_bytes: int) -> Tiling:
    """Return tiles and patches that fit in memory: tiles of at most 1024 px, patches of a quarter of the image.

    Tiles overlap by twice the receptive radius, small ones by less, down to the radius.
    """
    bytes_per_pixel = whole_image_bytes(restorer, MOST_TILE_PX, MOST_TILE_PX) / MOST_TILE_PX**2
    pixels, radius = int(memory_bytes / bytes_per_pixel), receptive_radius(restorer)
    side = max(min(math.isqrt(pixels), MOST_TILE_PX), 2 * radius)
    overlap = max(radius, min(2 * radius, side // 4))
    return Tiling(side, overlap, min(pixels, image.height * image.width // 4))
