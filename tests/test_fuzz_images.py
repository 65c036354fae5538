"""Damaged images of every format: pixels or a named reason, and nothing else, within bounds of memory and time."""

import cv2
import numpy as np
import pytest
from confined import Confined
from mutants import mutant, with_png_checksums
from pictures import deep_tiff, encode, scene, swapped_profile
from PIL import Image

MOST_MIB, MOST_MORE_MIB = 1000, 450
FULL = pytest.param(2000, 1, marks=pytest.mark.slow)
ALSO = ("GIF", "BMP", "PPM", "AVIF", "JPEG2000")


def _makes():
    """Return format -> images and how each is saved, every one of another make."""
    pixels = scene(24, 32)
    image = Image.fromarray(pixels)
    clear, turned = image.copy(), Image.Exif()
    clear.putalpha(Image.fromarray(pixels[..., 1]))
    turned[0x0112] = 6
    gray, palette, bits, inks = (image.convert(mode) for mode in ("L", "P", "1", "CMYK"))
    deep, light = (pixels * np.uint16(257))[..., 0], (pixels / np.float32(255))[..., 0]
    frames = {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    dressed, progressive = {"icc_profile": swapped_profile(), "exif": turned}, {"progressive": True}
    packings = [(image, {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]
    packings += [(palette, {"compression": "tiff_lzw"}), (bits, {"compression": "group4"})]
    flavours = [(image, dressed), (image, {"restart_marker_blocks": 2}), (image, {"subsampling": 0, "optimize": True})]
    plain, rich = [(image, {}), (clear, {})], [(image, frames), (image, dressed)]
    lossless = [(one, {"lossless": True}) for one in (image, clear)]
    shades = [(gray, {}), (palette, {}), (bits, {})]
    return {
        "JPEG": [(image, {}), (gray, {}), (inks, {}), (image, progressive), (inks, progressive), *flavours],
        "PNG": [*plain, *rich, *shades, (clear.convert("LA"), {}), (deep, {}), (palette, {"transparency": 3})],
        "TIFF": [*plain, *rich, *shades, *packings, (inks, {}), (deep, {}), (light, {}), (image, {"big_tiff": True})],
        "WEBP": [*plain, *rich, *lossless, (gray, {})],
        "GIF": [*plain, (image, frames), (image, {"interlace": True})],
        "BMP": [*plain, *shades],
        "PPM": [(image, {}), (gray, {}), (bits, {})],
        "AVIF": [*plain, (gray, {})],
        "JPEG2000": [*plain, (image, {"no_jp2": True})],
    }


def _seeds(kind):
    """Return small files of a format, some of which Pillow does not write."""
    deep = scene(24, 32) * np.uint16(257)
    clear, light = np.dstack([deep, deep[..., :1]]), deep / np.float32(65535)
    others = {
        "PNG": lambda: [cv2.imencode(".png", clear)[1].tobytes()],
        "TIFF": lambda: [deep_tiff(deep), deep_tiff(clear, 6, 1), deep_tiff(light)],
        "PPM": lambda: [b"P3 2 2 255\n" + b"1 2 3 " * 4, cv2.imencode(".ppm", deep)[1].tobytes()],
    }
    return tuple(encode(image, kind, **how) for image, how in _makes()[kind]) + tuple(others.get(kind, list)())


@pytest.fixture(scope="module")
def read():
    """Return `fuzz_images.read_image` in a child that lives as long as it survives."""
    with Confined("fuzz_images:read_image", timeout_s=10) as confined:
        yield confined


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("count", "seed"), [pytest.param(40, 0), FULL])
def test_mutant_is_read_twice_alike_or_refused(kind, count, seed, read):
    _fuzz(kind, count, seed, read)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALSO)
def test_mutant_of_another_format_is_read_twice_alike_or_refused(kind, read):
    _fuzz(kind, 400, 2, read)


def _fuzz(kind, count, seed, read):
    seeds, rng, refused = _seeds(kind), np.random.default_rng(seed), 0
    assert [read(data) for data in seeds] == [None] * len(seeds)
    for number in range(count):
        data = mutant(seeds[number % len(seeds)], rng, seeds)
        if kind == "PNG" and number % 2:
            data = with_png_checksums(data)
        before = read.peak_mib
        refused += read(data) is not None
        assert read.peak_mib - before < MOST_MORE_MIB, number
    assert read.peak_mib < MOST_MIB
    assert count / 10 < refused < count
