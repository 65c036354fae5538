"""Encoded image bytes -> (H, W, 3) uint8 sRGB pixels, or a named reason why not.

What is done, in this order: the first frame is decoded; 16 bits become 8 with rounding (``round(v / 257)``); floats are
taken as linear light in [0, 1] and encoded with the sRGB curve; a colour profile is converted to sRGB, and a broken one
ignored; alpha is laid over white in encoded values; gray, palette and CMYK become RGB; the EXIF or XMP orientation is
applied. The gAMA chunk of a PNG is ignored. Nothing is half-read: a file that is cut or corrupt is refused.

Plain 8-bit JPEG and PNG files go through OpenCV, which decodes them up to twice as fast as Pillow to the same pixels;
everything else goes through Pillow, apart from what only OpenCV reads at its full depth.
"""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from blurgen.sources import BadImage
from blurgen.sources.colours import (
    deep_over_white,
    encode_light,
    in_strips,
    over_white,
    srgb_transform,
    to_8_bits,
    to_srgb,
)
from blurgen.sources.header import Header, read_header
from blurgen.sources.whole import (
    TIFF_PLACES,
    check_end,
    check_jpeg_data,
    check_png_data,
    check_tiff_data,
    longer_jpeg,
)

# Peak bytes per pixel of a whole decode, our own arrays included: measured, then rounded up.
_PLAIN_BYTES, DEEP_BYTES, _FLOAT_BYTES, _PILLOW_BYTES = 6.5, 24, 40, 16
_BYTES_PER_PIXEL = {"JPEG2000": 32, "AVIF": 24, "WEBP": 32}
MAX_WORKING_BYTES = 750_000_000
# A second fence behind our own checks; OpenCV reads it when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(int(MAX_WORKING_BYTES / _PLAIN_BYTES)))

import cv2  # noqa: E402
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError  # noqa: E402

_PLAIN = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
AS_STORED = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
# What the readers of Pillow and OpenCV let escape when a file is malformed.
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    struct.error,
    cv2.error,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _CHANNELS = 256, 257, 258, 262, 274, 277
_EXTRA_CHANNELS, _SAMPLE_FORMAT, _ICC_PROFILE = 338, 339, 34675
_TIFF_TAGS = (
    _WIDTH,
    _HEIGHT,
    _BITS,
    _PHOTOMETRIC,
    _ORIENTATION,
    _CHANNELS,
    _EXTRA_CHANNELS,
    _SAMPLE_FORMAT,
    _ICC_PROFILE,
    *TIFF_PLACES,
)
_RGB, _ASSOCIATED_ALPHA = 2, 1
_CONVERTIBLE = frozenset({"1", "L", "P", "RGB", "RGBX", "YCbCr", "HSV"})


def decode(data: bytes) -> np.ndarray:
    """Return the pixels of an encoded image, (H, W, 3) uint8 RGB in sRGB, turned upright.

    Parameters
    ----------
    data : bytes
        A whole file: JPEG (also MPO), PNG, WebP, GIF, BMP, TIFF, PNM, JPEG 2000 or AVIF.

    Raises
    ------
    BadImage
        With the reason ``"empty"``, ``"not-an-image"``, ``"unsupported"``, ``"truncated"``, ``"corrupt"``,
        ``"too-large"`` (more than 750 MB of memory to decode: 115 megapixels of a plain JPEG, 46 of most others),
        ``"not-finite"`` or ``"out-of-range"`` (floats beyond [0, 1]).

    Examples
    --------
    >>> import cv2
    >>> decode(cv2.imencode(".png", np.full((2, 3), 7, np.uint8))[1].tobytes()).shape
    (2, 3, 3)
    """
    header = read_header(data)
    with named_faults(header.kind):
        return _decode_plain(data, header) if header.plain else _flatten(read_stored(data, header))


class Stored(NamedTuple):
    """An image as its file stores it, before any conversion.

    Parameters
    ----------
    colors : (H, W, 3) or (H, W) array
        RGB or gray: uint8, integers of at most 16 bits, or floats, which are linear light in [0, 1].
    alpha : (H, W) array of the same dtype, optional
    profile : bytes, optional
        The ICC profile of the colours.
    orientation : int
        As in EXIF, 1 (upright) to 8.
    gray : bool
        All channels are equal, and a profile is one of gray.
    premultiplied : bool
        The colours are multiplied with alpha.
    """

    colors: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    orientation: int = 1
    gray: bool = False
    premultiplied: bool = False


def read_stored(data: bytes, header: Header) -> Stored:
    """Return what a file holds that is not `header.plain`; call it within `named_faults`."""
    if header.deep:
        return _deep_png(data, header)
    if header.kind == "TIFF":
        return _tiff(data)
    if header.kind == "JPEG":
        return _odd_jpeg(data, header)
    if header.kind == "PNG":
        check_png_data(data)
    check_end(data, header)
    return _by_pillow(data, header)


def image_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in px of what `decode` would return, from the header alone; raises `BadImage` likewise.

    ``data`` may be a memory map of the file, of which only the pages with headers are read.
    """
    header = read_header(data)
    width, height, orientation = header.width, header.height, 1
    with named_faults(header.kind):
        if header.kind == "TIFF":
            tags = _tiff_tags(bytes(data))
            width, height, orientation = tags[_WIDTH], tags[_HEIGHT], _known(tags[_ORIENTATION])
        elif not header.plain or header.extras:
            check_size(width, height, _BYTES_PER_PIXEL.get(header.kind, _PLAIN_BYTES))
            image = _open(bytes(data), header)
            width, height = image.size
            orientation = _orientation(image)
        check_size(width, height, _PLAIN_BYTES)
        return (height, width) if orientation >= 5 else (width, height)


def _decode_plain(data: bytes, header: Header) -> np.ndarray:
    check_size(header.width, header.height, _PLAIN_BYTES + 3 * header.progressive)
    end = check_jpeg_data(data, header) if header.kind == "JPEG" else 0
    pixels = decode_by_opencv(data, _PLAIN)
    if header.kind == "JPEG" and _ran_dry(pixels, data, header, end):
        raise _ends_early()
    if not header.extras:
        return pixels
    image = _open(data, header)
    pixels = to_srgb(pixels, image.info.get("icc_profile"), gray=header.channels == 1)
    return turn(pixels, _orientation(image))


def _ran_dry(pixels: np.ndarray, data: bytes, header: Header, end: int) -> bool:
    """Return whether a JPEG had too little data in its last scan, so that more data change it.

    What is missing of an only scan is painted mid-gray, which is looked for first.
    """
    height, width = pixels.shape[:2]
    if header.one_scan and np.any(pixels[(height - 1) // 8 * 8 :, (width - 1) // 8 * 8 :] != 128):
        return False
    return not np.array_equal(pixels, decode_by_opencv(longer_jpeg(data, header, end), _PLAIN))


def decode_by_opencv(data: bytes, flags: int) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise BadImage("corrupt", "the image cannot be decoded: its data are damaged")
    return pixels


def _odd_jpeg(data: bytes, header: Header) -> Stored:
    """Return a JPEG of four channels."""
    end, stored = check_jpeg_data(data, header), _by_pillow(data, header)
    longer = _by_pillow(longer_jpeg(data, header, end), header)
    if not np.array_equal(stored.colors, longer.colors):
        raise _ends_early()
    return stored


def _ends_early() -> BadImage:
    return BadImage("truncated", "the image data of the JPEG end before its last block")


def _deep_png(data: bytes, header: Header) -> Stored:
    """Return a 16-bit PNG, which Pillow would cut to its upper bytes."""
    check_size(header.width, header.height, DEEP_BYTES)
    image = _open(data, header)
    colors, alpha = _split(decode_by_opencv(data, AS_STORED))
    gray = image.mode in ("I;16", "LA")
    return Stored(colors, alpha, image.info.get("icc_profile"), _orientation(image), gray)


def _tiff(data: bytes) -> Stored:
    """Return a TIFF: by OpenCV where it has several channels of 16 or 32 bits.

    Of these Pillow reads the former cut to 8 bits, and the latter not at all.
    """
    tags = _tiff_tags(data)
    check_tiff_data(data, tags)
    bits, form = (tags[_BITS] or (1,))[0], (tags[_SAMPLE_FORMAT] or (1,))[0]
    if (tags[_CHANNELS] or 1) < 3 or tags[_PHOTOMETRIC] != _RGB or (bits, form) not in ((16, 1), (32, 3)):
        check_size(tags[_WIDTH], tags[_HEIGHT], _PILLOW_BYTES)
        return _by_pillow(data, Header("TIFF"))
    check_size(tags[_WIDTH], tags[_HEIGHT], _FLOAT_BYTES if form == 3 else DEEP_BYTES)
    colors, alpha = _split(decode_by_opencv(data, AS_STORED))
    premultiplied = (tags[_EXTRA_CHANNELS] or (0,))[0] == _ASSOCIATED_ALPHA
    # OpenCV has turned it, whatever the flag says. The alpha of light has never been laid over anything.
    return Stored(colors, None if form == 3 else alpha, tags[_ICC_PROFILE], premultiplied=premultiplied)


def _split(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return views of the colours and of the alpha of what OpenCV has read: gray, BGR or BGRA."""
    if stored.ndim == 2:
        return stored, None
    return stored[..., 2::-1], stored[..., 3] if stored.shape[2] == 4 else None


def _tiff_tags(data: bytes) -> dict[int, Any]:
    """Return the tags of the first page of a TIFF that matter here, as Pillow's values, None where absent."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    tags = {tag: directory.get(tag) for tag in _TIFF_TAGS}
    return tags | {_WIDTH: int(tags[_WIDTH]), _HEIGHT: int(tags[_HEIGHT])}


def _by_pillow(data: bytes, header: Header) -> Stored:
    check_size(header.width, header.height, _BYTES_PER_PIXEL.get(header.kind, _PILLOW_BYTES))
    image = _open(data, header)
    check_size(*image.size, _BYTES_PER_PIXEL.get(header.kind, _PILLOW_BYTES))
    image.load()
    profile, orientation = image.info.get("icc_profile"), _orientation(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        return Stored(_in_16_bits(np.asarray(image)), None, profile, orientation, gray=True)
    if image.mode == "F":
        return Stored(np.asarray(image), None, profile, orientation)
    gray = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return Stored(rgba[..., :3], rgba[..., 3], profile, orientation, gray)
    if image.mode == "CMYK":
        return Stored(np.asarray(_cmyk_to_srgb(image, profile)), None, None, orientation)
    if image.mode not in _CONVERTIBLE:
        raise BadImage("unsupported", f"pixels of the kind {image.mode} are not converted here; save the image as RGB")
    return Stored(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), None, profile, orientation, gray)


def _flatten(stored: Stored) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels in sRGB over white, turned upright."""
    colors, alpha = stored.colors, stored.alpha
    if colors.dtype.kind == "f":
        pixels = in_strips(encode_light, colors)
    elif alpha is not None:
        lay = over_white if colors.dtype == np.uint8 else deep_over_white
        pixels = in_strips(partial(lay, premultiplied=stored.premultiplied), colors, alpha[..., None])
    else:
        pixels = colors if colors.dtype == np.uint8 else in_strips(to_8_bits, colors)
    return turn(to_srgb(pixels, stored.profile, stored.gray), stored.orientation)


def _cmyk_to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    transform = profile and srgb_transform(profile, "CMYK")
    return ImageCms.applyTransform(image, transform) if transform else image.convert("RGB")


def _open(data: bytes, header: Header) -> Image.Image:
    """Return the Pillow image, its header read and its pixels not."""
    return Image.open(io.BytesIO(data), formats=[header.kind, *(["MPO"] if header.kind == "JPEG" else [])])


@contextmanager
def named_faults(kind: str) -> Iterator[None]:
    """Turn what decoders raise over a bad file into a `BadImage`."""
    try:
        yield
    except BadImage:
        raise
    except _BOMBS as error:
        raise BadImage("too-large", f"the {kind} image is larger than can be decoded; scale it down") from error
    except UnidentifiedImageError as error:
        raise BadImage("corrupt", f"the {kind} header is damaged, or of a kind that is not supported") from error
    except _FAULTS as error:
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise BadImage(reason, f"the {kind} image cannot be decoded: {error}") from error


def check_size(width: int, height: int, bytes_per_pixel: float) -> None:
    if width * height * bytes_per_pixel > MAX_WORKING_BYTES:
        raise _too_large(width, height)


def _too_large(width: int, height: int) -> BadImage:
    return BadImage("too-large", f"{width} x {height} pixels of this kind need too much memory; scale the image down")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF (or XMP) orientation of an opened image, 1 to 8; a broken one counts as 1, upright."""
    try:
        return _known(image.getexif().get(_ORIENTATION))
    except _FAULTS:
        return 1


def _known(orientation: Any) -> int:
    return orientation if orientation in range(1, 9) else 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels (H, W, ...) turned upright, contiguous."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _in_16_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise BadImage("unsupported", "32-bit integer pixels have no known range; save the image with 16 bits")
    return values
