"""Encoded image bytes -> pixels at the depth of the file, with their alpha, for images that are written out again.

As `decode` does it, apart from three things: 16 bits stay 16 and floats become 16; alpha stands beside the colours
instead of laying them over white; and 16-bit colours keep their ICC profile, since conversion has but 8 bits here.
"""

import re
from typing import NamedTuple

import numpy as np

from blurgen.sources.colours import encode_light, srgb_transform, to_srgb
from blurgen.sources.decode import (
    AS_STORED,
    DEEP_BYTES,
    Stored,
    check_size,
    decode,
    decode_by_opencv,
    named_faults,
    read_stored,
    turn,
)
from blurgen.sources.header import Header, read_header

_DEEP_PPM = re.compile(rb"P[36](?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+65535\s")


class Pixels(NamedTuple):
    """An upright image.

    Parameters
    ----------
    colors : (H, W, 3) uint8 or uint16
        RGB, not multiplied with alpha; gray images have three equal channels.
    alpha : (H, W) array of the same dtype, optional
        None where the file has none.
    profile : bytes, optional
        The ICC profile of the colours; None for sRGB.
    """

    colors: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None


def decode_full_depth(data: bytes) -> Pixels:
    """Return the pixels of a whole file, of the formats that `decode` reads; raises `BadImage` as it does.

    16 bits are kept of PNG, TIFF, PGM and PPM files, and of the gray images of other formats.

    Examples
    --------
    >>> import cv2
    >>> decode_full_depth(cv2.imencode(".png", np.full((2, 3, 4), 7, np.uint16))[1].tobytes()).alpha
    array([[7, 7, 7],
           [7, 7, 7]], dtype=uint16)
    """
    header = read_header(data)
    if header.plain:
        return Pixels(decode(data))
    with named_faults(header.kind):
        stored = _deep_ppm(data, header) or read_stored(data, header)
        colors, profile = _convert(stored)
        if colors.ndim == 2:
            colors = np.repeat(colors[..., None], 3, axis=2)
        alpha = None if stored.alpha is None else turn(stored.alpha, stored.orientation)
        return Pixels(turn(colors, stored.orientation), alpha, profile)


def _deep_ppm(data: bytes, header: Header) -> Stored | None:
    """Return a colour image of 16 bits, which Pillow would cut; None if it is another."""
    size = _DEEP_PPM.match(data[:4096]) if header.kind == "PPM" else None
    if size is None:
        return None
    check_size(int(size[1]), int(size[2]), DEEP_BYTES)
    return Stored(decode_by_opencv(data, AS_STORED)[..., ::-1])


def _convert(stored: Stored) -> tuple[np.ndarray, bytes | None]:
    """Return uint8 or uint16 colours, and the profile that they still have."""
    colors = stored.colors
    if colors.dtype == np.uint8:
        return to_srgb(colors, stored.profile, stored.gray), None
    if colors.dtype.kind == "f":
        return encode_light(colors, np.uint16), None
    colors = colors.astype(np.uint16, copy=False)
    if stored.premultiplied and stored.alpha is not None:
        colors = _divide(colors, stored.alpha)
    transform = stored.profile and srgb_transform(stored.profile, "L" if stored.gray else "RGB")
    if not transform:
        return colors, None
    return (_gray_to_srgb(colors, stored.profile), None) if stored.gray else (colors, stored.profile)


def _divide(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return 16-bit colours that are no longer multiplied with alpha; black where they were lost at alpha 0."""
    divisor = np.maximum(alpha[..., None].astype(np.uint64), 1)
    return np.minimum((colors.astype(np.uint64) * 65535 + divisor // 2) // divisor, 65535).astype(np.uint16)


def _gray_to_srgb(gray: np.ndarray, profile: bytes) -> np.ndarray:
    """Return 16-bit gray as 16-bit sRGB, between the 256 levels that can be converted along straight lines."""
    levels = to_srgb(np.arange(256, dtype=np.uint8)[None, :, None], profile, gray=True)[0]
    ramp = [np.interp(np.arange(65536), np.arange(256) * 257, 257.0 * channel) for channel in levels.T]
    table = np.rint(np.stack(ramp, axis=-1)).astype(np.uint16)
    return table[gray if gray.ndim == 2 else gray[..., 0]]
