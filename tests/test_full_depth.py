"""decode_full_depth() keeps what the file has: its 16 bits and its alpha, upright, in sRGB or with its profile."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from pictures import deep_tiff, encode, reason_of, scene, swapped_profile
from PIL import Image, ImageOps

from blurgen.sources.decode import decode
from blurgen.sources.full_depth import decode_full_depth

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Values whose lower byte is not their upper one, so that a detour over 8 bits is seen.
DEEP = scene(channels=4).astype(np.uint16) * 256 + np.arange(56, dtype=np.uint16)[:, None]


def laid_over_white(pixels):
    top = np.iinfo(pixels.colors.dtype).max
    alpha = 1 if pixels.alpha is None else pixels.alpha[..., None] / top
    return 255 * (pixels.colors / top * alpha + 1 - alpha)


def test_awkward_files_read_as_for_training(data_root):
    for path in sorted((data_root / "awkward").rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        reason = reason_of(data)
        assert reason_of(data, decode_full_depth) == reason, path
        if reason is None:
            pixels = decode_full_depth(data)
            assert np.abs(laid_over_white(pixels) - decode(data)).max() <= 1, path
            assert pixels.colors.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_16_bit_colors_stay(suffix):
    data = cv2.imencode(suffix, DEEP[..., 2::-1])[1].tobytes()
    assert np.array_equal(decode_full_depth(data).colors, DEEP[..., :3])


def test_commented_ppm_stays_deep():
    data = b"P6 # by hand\n56\t40\n# two comments\n65535\n" + DEEP[..., :3].astype(">u2").tobytes()
    assert np.array_equal(decode_full_depth(data).colors, DEEP[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_stays(kind):
    pixels = decode_full_depth(encode(DEEP[..., 0], kind))
    assert np.array_equal(pixels.colors, np.repeat(DEEP[..., :1], 3, axis=2))
    assert pixels.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_alpha_stays_beside_the_colors(suffix):
    pixels = decode_full_depth(cv2.imencode(suffix, DEEP[..., [2, 1, 0, 3]])[1].tobytes())
    assert np.array_equal(pixels.colors, DEEP[..., :3])
    assert np.array_equal(pixels.alpha, DEEP[..., 3])


def test_16_bit_gray_alpha_png_keeps_both():
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = DEEP[..., [0, 3]].astype(">u2").tobytes()
    lines = b"".join(b"\0" + rows[at : at + 56 * 4] for at in range(0, len(rows), 56 * 4))
    header = struct.pack(">IIBBBBB", 56, 40, 16, 4, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    pixels = decode_full_depth(data)
    assert np.array_equal(pixels.colors, np.repeat(DEEP[..., :1], 3, axis=2))
    assert np.array_equal(pixels.alpha, DEEP[..., 3])


def test_alpha_multiplied_in_is_divided_out():
    alpha = np.maximum(DEEP[..., 3], 20000)
    alpha[0] = 0
    values = np.dstack([np.round(DEEP[..., :3] * (alpha[..., None] / 65535)), alpha]).astype(np.uint16)
    pixels = decode_full_depth(deep_tiff(values, extra=1))
    assert np.abs(pixels.colors.astype(int) - DEEP[..., :3])[1:].max() <= 2
    assert not pixels.colors[0].any()
    assert np.array_equal(pixels.alpha, alpha)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_alpha_is_turned_with_the_colors(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(scene(channels=4), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels = decode_full_depth(data)
    assert np.array_equal(np.dstack([pixels.colors, pixels.alpha]), expected)


@pytest.mark.parametrize("orientation", [3, 6])
def test_deep_alpha_tiff_is_turned(orientation):
    pixels = decode_full_depth(deep_tiff(DEEP, orientation))
    expected = np.rot90(DEEP, {3: 2, 6: -1}[orientation])
    assert np.array_equal(np.dstack([pixels.colors, pixels.alpha]), expected)


def test_palette_with_a_clear_color_has_alpha():
    image = Image.fromarray(scene()).convert("P")
    pixels = decode_full_depth(encode(image, "PNG", transparency=7))
    assert np.array_equal(pixels.alpha == 0, np.asarray(image) == 7)
    assert np.array_equal(pixels.colors, np.asarray(image.convert("RGB")))


def test_light_becomes_16_bit_srgb():
    light = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 20)
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light.astype(float) ** (1 / 2.4) - 0.055)
    for pixels in (decode_full_depth(encode(light, "TIFF")), decode_full_depth(deep_tiff(np.dstack([light] * 3)))):
        assert pixels.colors.dtype == np.uint16
        assert np.abs(pixels.colors[..., 1] - 65535 * expected).max() <= 0.6


def test_profile_of_8_bits_is_converted_and_of_16_bits_kept():
    red, profile = np.zeros((16, 16, 3), np.uint8), swapped_profile()
    red[..., 0] = 200
    shallow = decode_full_depth(encode(red, "PNG", icc_profile=profile))
    assert np.abs(shallow.colors.astype(int) - [0, 200, 0]).max() <= 3
    assert shallow.profile is None
    deep = cv2.imencode(".png", red.astype(np.uint16)[..., ::-1] * 257)[1].tobytes()
    content = b"swap\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(content)) + b"iCCP" + content + struct.pack(">I", zlib.crc32(b"iCCP" + content))
    pixels = decode_full_depth(deep[:33] + chunk + deep[33:])
    assert pixels.profile == profile
    assert np.array_equal(pixels.colors, red.astype(np.uint16) * 257)
