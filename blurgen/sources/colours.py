"""Colours of a decoded image: depth, light, alpha and ICC profiles become 8-bit sRGB."""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from blurgen.sources import BadImage

_ROWS_AT_ONCE = 256


def in_strips(convert: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels, converted a few rows at a time, so that no large array is made in between."""
    converted = np.empty((*arrays[0].shape[:2], 3), np.uint8)
    for top in range(0, len(converted), _ROWS_AT_ONCE):
        rows = convert(*(array[top : top + _ROWS_AT_ONCE] for array in arrays))
        converted[top : top + _ROWS_AT_ONCE] = rows if rows.ndim == 3 else rows[..., None]
    return converted


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Return 16-bit values as 8 bits, rounded."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def over_white(colors: np.ndarray, alpha: np.ndarray, premultiplied: bool) -> np.ndarray:
    """Return 8-bit colours laid over white, rounded; what reads 8 bits has divided by alpha."""
    alpha = alpha.astype(np.uint16)
    return ((colors * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def deep_over_white(colors: np.ndarray, alpha: np.ndarray, premultiplied: bool) -> np.ndarray:
    """Return 16-bit colours, multiplied with alpha or not, laid over white, as 8 bits."""
    colors, alpha = colors.astype(np.uint64), alpha.astype(np.uint64)
    if not premultiplied:
        colors = (colors * alpha + 32767) // 65535
    return to_8_bits(np.minimum(colors + 65535 - alpha, 65535))


def encode_light(light: np.ndarray, dtype: type[np.unsignedinteger] = np.uint8) -> np.ndarray:
    """Return linear light, float in [0, 1], as sRGB (IEC 61966-2-1) of an unsigned dtype."""
    if not np.isfinite(light).all():
        raise BadImage("not-finite", "the image has NaN or infinite pixels")
    low, high = float(light.min()), float(light.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise BadImage("out-of-range", f"float pixels must be linear light in [0, 1], got {low:.4g} to {high:.4g}")
    light = np.clip(light, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(np.iinfo(dtype).max * encoded).astype(dtype)


def to_srgb(pixels: np.ndarray, profile: bytes | None, gray: bool = False) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels converted from an ICC profile to sRGB."""
    transform = profile and srgb_transform(profile, "L" if gray else "RGB")
    if not transform:
        return pixels
    if gray:
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        return np.asarray(ImageCms.applyTransform(ramp, transform))[0].take(pixels[..., 0], axis=0)
    return in_strips(lambda rows: np.asarray(ImageCms.applyTransform(Image.fromarray(rows), transform)), pixels)


@lru_cache(maxsize=64)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of a profile to sRGB, or None where nothing is to convert or the profile is broken."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
