"""One sample: a crop of an image, the kernel drawn for it, and the blurred crop, as a pure function.

Steps, in this order: the crop is drawn and resampled to the output scale in linear light together with real context
around it, and quantised (this is the sharp image, and what is blurred); the trajectory is scaled alike and rasterised;
the context is convolved in linear light, so that no border is invented where the image has pixels; saturation, noise
and quantisation follow; low-resolution variants are area averages of the stored images. Without noise the interior of
``blurred`` is therefore exactly ``sharp`` convolved with ``kernel``, at every scale.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np

from blurgen.convolve import convolve, saturate
from blurgen.imaging import Noise, NoNoise, Response, draw_saturation, response
from blurgen.kernels.model import KernelModel
from blurgen.maps import cut_label, cut_prior
from blurgen.raster import rasterize
from blurgen.resample import reach, resample
from blurgen.words import Words, bytes_of

Streams = Callable[[str], np.random.Generator]


class TooSmall(ValueError):
    """An image that has no crop of the size asked for."""


class Box(NamedTuple):
    """A square of the source image: corner (y, x) and side, px of the source; may be fractional."""

    y: float
    x: float
    side: float


@dataclass(frozen=True)
class CropRule:
    """How a crop is drawn from an image.

    Parameters
    ----------
    crop : int
        Side of the output, px.
    scale_mean, scale_std : float, optional
        Mean and standard deviation of the side that is cut out, px: drawn from a normal law, clipped to
        [crop/2, shorter side of the image], and resampled to `crop`. None cuts `crop` px at their own scale.
    resize_short : int, optional
        The image is first reduced so that its shorter side is this many px; smaller images stay as they are.
    small : {"skip", "scale"}
        What becomes of an image whose shorter side is between crop/2 and crop: left out, or enlarged to `crop`.
    """

    crop: int = 256
    scale_mean: float | None = None
    scale_std: float = 0.0
    resize_short: int | None = None
    small: str = "skip"

    def reduction(self, height: int, width: int) -> float:
        """Return the factor at most 1 by which `resize_short` reduces an image of this size."""
        return min(1.0, self.resize_short / min(height, width)) if self.resize_short else 1.0

    def largest_scale(self, reduction: float = 1.0) -> float:
        """Return the largest factor, output px per source px, that any crop can have after this `reduction`."""
        return reduction if self.scale_mean is None and self.small == "skip" else 2 * reduction

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return a random crop of an image of this size; raises `TooSmall` where there is none."""
        reduction = self.reduction(height, width)
        # Whole pixels that lie inside the image; the tiny sum undoes the rounding of an exact quotient.
        rows, columns = (int(length * reduction + 1e-9) for length in (height, width))
        shorter = min(rows, columns)
        free = self.scale_mean is not None or self.small == "scale"
        if shorter < (self.crop / 2 if free else self.crop):
            raise TooSmall(
                f"the image is {width}x{height} px, too small for a crop of {self.crop} px: "
                "a smaller --crop takes it" + ("" if free else ", and --small scale enlarges up to twice")
            )
        side = float(min(self.crop, shorter))
        if self.scale_mean is not None:
            side = float(np.clip(rng.normal(self.scale_mean, self.scale_std), self.crop / 2, shorter))
        # Whole pixels wherever the scale is 1, so that such crops are copied and not interpolated.
        y, x = (int(rng.integers(0, int(room) + 1)) for room in (rows - side, columns - side))
        return Box(y / reduction, x / reduction, side / reduction)


@dataclass(frozen=True)
class Look:
    """Everything but the image and the random numbers that fixes the pixels of a sample.

    Parameters
    ----------
    rule : CropRule
    model : KernelModel, optional
        Draws the trajectories, in px of the source image. None: the pictures are blurred already.
    kernel_side : int
        Side of every kernel, odd, px.
    exposures : tuple of float
        Fractions of one trajectory, in (0, 1]; each makes a sample of the same crop and the same trajectory.
    response : Response
        The camera's response curve, for the way to linear light and back.
    noise : Noise
        Added to the blurred image in linear light.
    saturation : bool
        Recover light beyond white in saturated pixels before blurring.
    lowres : tuple of int
        Factors of the low-resolution variants; each divides the crop.
    transcript_bytes : int
        Bytes of the text in a crop, 0 to keep none.
    """

    rule: CropRule
    model: KernelModel | None
    kernel_side: int = 0
    exposures: tuple[float, ...] = (1.0,)
    response: Response = field(default_factory=lambda: response("srgb"))
    noise: Noise = field(default_factory=NoNoise)
    saturation: bool = False
    lowres: tuple[int, ...] = ()
    transcript_bytes: int = 0


class Rendered(NamedTuple):
    """One finished sample.

    Fields
    ------
    images : dict of name -> (S, S, 3) uint8 RGB, S = crop or crop/factor: ``sharp``, ``blurred``, ``sharp_x2``, …; and
        the maps of the same crop, ``label`` (crop, crop) uint8 and ``prior`` (K, crop/4, crop/4) float16, and the bytes
        of its text, ``transcript`` (n,) uint8
    kernel : (k, k) float32, or None for real pairs
    box : what was cut out of the source
    scale : output px per source px
    exposure : fraction of the trajectory
    length_px : arc length of the whole trajectory, output px
    shift : (2,) float64, (x, y) px by which the kernel's anchor moved
    params : what the kernel model drew, by name
    noise : what the noise model drew, by name
    saturation : factor α of the recovered light, 0 without
    """

    images: dict[str, np.ndarray]
    kernel: np.ndarray | None
    box: Box
    scale: float
    exposure: float = 0.0
    length_px: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    params: Mapping[str, float] = {}
    noise: Mapping[str, float] = {}
    saturation: float = 0.0


def render(
    sharp: np.ndarray | None,
    blurred: np.ndarray | None,
    look: Look,
    streams: Streams,
    maps: Mapping[str, np.ndarray] = MappingProxyType({}),
    words: Callable[[], Words] | None = None,
) -> list[Rendered]:
    """Return the samples of one crop: one per exposure, or one crop of a real pair.

    Parameters
    ----------
    sharp, blurred : (H, W, 3) uint8 RGB, or None
        A picture; `blurred` is read only where the look has no kernel model.
    look : Look
    streams : callable
        Gives the generator for a purpose: ``"crop"``, ``"kernel"``, ``"saturation"``, ``"noise-0"``, ``"noise-1"``, …
    maps : mapping
        The maps of the picture, which are cut at the same place; see `blurgen.sources.Picture`.
    words : callable, optional
        Gives the words of the picture, of which those that lie wholly in the crop are kept where the look says so.

    Raises
    ------
    TooSmall
        The picture holds no crop of the size asked for.
    TooMuchText
        The words in the crop take more bytes than the look has for them.
    """
    picture = sharp if sharp is not None else blurred
    size = picture.shape[:2]
    box = look.rule.draw(*size, streams("crop"))
    cut_maps = {name: _CUTS[name](one, size, box, look.rule.crop) for name, one in maps.items()}
    if look.transcript_bytes and words:
        cut_maps["transcript"] = bytes_of(str(words().inside(*box)), look.transcript_bytes)
    if look.model is None:
        sides = {"sharp": sharp, "blurred": blurred}
        there = {name: side for name, side in sides.items() if side is not None}
        crops = {name: cut(side, box, look.rule.crop, 0, look.response) for name, side in there.items()}
        return [Rendered(_with_lowres(crops, look) | cut_maps, None, box, look.rule.crop / box.side)]
    samples = _blurred_samples(sharp, box, look, streams)
    return [sample._replace(images=sample.images | cut_maps) for sample in samples]


# How a map is cut, given the size of the image, the box, and the side of the crop.
_CUTS: dict[str, Callable[[np.ndarray, tuple[int, int], Box, int], np.ndarray]] = {
    "label": lambda label, size, box, crop: cut_label(label, (box.y, box.x), box.side, crop),
    "prior": lambda prior, size, box, crop: cut_prior(prior, size, (box.y, box.x), box.side, crop),
}


def cut(image: np.ndarray, box: Box, crop: int, margin: int, curve: Response) -> np.ndarray:
    """Return a box of an image at the output scale, with context around it.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB
    box : Box
    crop : int
        Side of the box in the output, px.
    margin : int
        Context on each side, output px; beyond the image it is mirrored at the border pixel (numpy's "reflect").
    curve : Response
        Light is averaged in linear light where the scale is not 1.

    Returns
    -------
    (crop + 2 margin, crop + 2 margin, 3) uint8 RGB
        A view of `image` where nothing had to change.
    """
    side = crop + 2 * margin
    if box.side == crop and box.y % 1 == box.x % 1 == 0:
        return _mirrored(image, int(box.y) - margin, int(box.x) - margin, side, side)
    step = box.side / crop
    first = [int(np.floor(corner - margin * step)) - reach(step) - 1 for corner in (box.y, box.x)]
    size = int(np.ceil(side * step)) + 2 * (reach(step) + 2)
    region = curve.to_linear(_mirrored(image, *first, size, size))
    return curve.from_linear(resample(region, (first[0], first[1]), (box.y, box.x), step, margin, side), np.uint8)


def reduce_area(image: np.ndarray, factor: int, curve: Response) -> np.ndarray:
    """Return a uint8 image reduced by averaging blocks of `factor` x `factor` px in linear light, no phase shift."""
    height, width, channels = image.shape
    blocks = curve.to_linear(image).reshape(height // factor, factor, width // factor, factor, channels)
    return curve.from_linear(blocks.mean(axis=(1, 3), dtype=np.float64).astype(np.float32), np.uint8)


def _blurred_samples(image: np.ndarray, box: Box, look: Look, streams: Streams) -> list[Rendered]:
    crop, margin = look.rule.crop, look.kernel_side // 2
    scale = crop / box.side
    context = cut(image, box, crop, margin, look.response)
    sharp = np.ascontiguousarray(context[margin : margin + crop, margin : margin + crop])
    linear = look.response.to_linear(context)
    trajectory = look.model.trajectory(streams("kernel"))
    path = trajectory.path * scale
    length_px = float(np.hypot(*np.diff(path, axis=0).T).sum())
    alpha = draw_saturation(streams("saturation")) if look.saturation else 0.0
    samples = []
    for index, exposure in enumerate(look.exposures):
        kernel, shift = rasterize(path, look.kernel_side, trajectory.weights, exposure=(0.0, exposure))
        light = convolve(linear, kernel, border="valid", backend="sparse")
        if look.saturation:
            light = saturate(light, context, kernel, alpha)
        light, drawn = look.noise.apply(light, exposure, streams(f"noise-{index}"))
        crops = {"sharp": sharp, "blurred": look.response.from_linear(light, np.uint8)}
        samples.append(
            Rendered(
                _with_lowres(crops, look), kernel, box, scale, exposure, length_px, tuple(shift),
                trajectory.params, drawn, alpha,
            )
        )  # fmt: skip
    return samples


def _with_lowres(crops: dict[str, np.ndarray], look: Look) -> dict[str, np.ndarray]:
    reduced = {
        f"{name}_x{factor}": reduce_area(image, factor, look.response)
        for name, image in crops.items()
        for factor in look.lowres
    }
    return crops | reduced


def _mirrored(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Return a window of an image, mirrored where it reaches beyond; a view where it does not."""
    rows, columns = image.shape[:2]
    inside = image[max(top, 0) : top + height, max(left, 0) : left + width]
    above, before = max(-top, 0), max(-left, 0)
    below, behind = max(top + height - rows, 0), max(left + width - columns, 0)
    if not (above or before or below or behind):
        return inside
    if max(above, below) < inside.shape[0] and max(before, behind) < inside.shape[1]:
        return cv2.copyMakeBorder(inside, above, below, before, behind, cv2.BORDER_REFLECT_101)
    return image[_reflected(top, height, rows)][:, _reflected(left, width, columns)]


def _reflected(start: int, count: int, size: int) -> np.ndarray:
    """Return `count` indices from `start` on into an axis of `size`, mirrored at its ends as often as needed."""
    if size == 1:
        return np.zeros(count, int)
    index = np.arange(start, start + count) % (2 * size - 2)
    return np.where(index < size, index, 2 * size - 2 - index)
