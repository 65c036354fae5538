"""Small pictures, encoded in every way, and what Pillow makes of them."""

import io
import struct

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from blurgen.sources import BadImage
from blurgen.sources.decode import decode


def scene(height=40, width=56, channels=3):
    """Return smooth colours with an edge and no symmetry, uint8."""
    rows, columns = np.mgrid[:height, :width]
    bands = [3 * rows + columns, 5 * columns, 255 - 4 * rows, 60 + 3 * columns + rows]
    pixels = np.stack(bands[:channels], axis=-1).clip(0, 255).astype(np.uint8)
    pixels[: height // 3, : width // 4] = 255 - pixels[: height // 3, : width // 4]
    return pixels


def encode(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def jpeg(pixels, *options):
    return cv2.imencode(".jpg", pixels[..., ::-1], options)[1].tobytes()


def by_pillow(data):
    """Return what Pillow makes of it: profile, white background, orientation."""
    image = Image.open(io.BytesIO(data))
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if profile and len(profile) > 100 and b"sRGB" not in profile:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() == "RGB":
            image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    return np.asarray(image)


def reason_of(data, read=decode):
    """Return the reason why data are refused, or None."""
    try:
        read(data)
    except BadImage as error:
        return error.reason
    return None


def deep_tiff(values, orientation=1, extra=2):
    """Return a TIFF of (H, W, channels) uint16 or float32 with an orientation and a kind of alpha.

    Pillow writes no such file, and what OpenCV writes depends on its version.
    """
    height, width, channels = values.shape
    bits, form = (16, 1) if values.dtype == np.uint16 else (32, 3)
    tags = {256: width, 257: height, 258: None, 262: 2, 273: 8, 274: orientation, 277: channels, 279: values.nbytes}
    tags |= {338: extra, 339: None} if channels == 4 else {339: None}
    arrays = {258: 8 + values.nbytes, 339: 8 + values.nbytes + 2 * channels}
    entries = [
        struct.pack("<HHII", tag, 3, channels, arrays[tag]) if value is None else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    ]
    pixels = values.tobytes() + struct.pack(f"<{2 * channels}H", *[bits] * channels, *[form] * channels)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def swapped_profile():
    """Return an sRGB profile with red and green swapped."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.find(b"rXYZ"), profile.find(b"gXYZ")
    profile[red : red + 1], profile[green : green + 1] = b"g", b"r"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")
