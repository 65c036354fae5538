"""A damaged file is refused with a named reason: never half-read, never with another error, never at a great cost."""

import struct
import zlib

import numpy as np
import pytest
from pictures import encode, jpeg, reason_of, scene
from PIL import Image

from blurgen.sources.decode import image_size

# What Pillow thinks of damaged metadata.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_cut_file_is_refused_at_every_length(kind):
    data = encode(scene(24, 24), kind)
    read = [length for length in range(len(data)) if reason_of(data[:length]) is None]
    assert read == ([len(data) - 2, len(data) - 1] if kind == "GIF" else [])  # a GIF ends with two closing bytes


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 2}, {"optimize": True}], ids=str)
def test_cut_jpeg_is_refused_at_every_length(options):
    data = encode(scene(32, 32), "JPEG", **options)
    assert all(reason_of(data[:length]) for length in range(len(data)))


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_jpeg_whose_data_end_early_is_truncated(fraction):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    data = jpeg(noise)
    assert reason_of(data[: int(fraction * len(data))] + b"\xff\xd9") == "truncated"


@pytest.mark.parametrize("foreign", ["noise", "zeros", "ones"])
def test_jpeg_with_foreign_bytes_inside_is_corrupt(foreign):
    rng = np.random.default_rng(1)
    data = bytearray(jpeg(rng.integers(0, 256, (256, 256, 3)).astype(np.uint8)))
    at = len(data) // 2
    blocks = {"noise": rng.bytes(4096), "zeros": bytes(4096), "ones": b"\xff" * 4096}
    data[at : at + 4096] = blocks[foreign]
    assert reason_of(bytes(data)) in ("corrupt", "truncated")


@pytest.mark.parametrize("marker", [0xC0, 0xD3, 0xDA, 0xE1, 0xFE])
def test_jpeg_with_a_stray_marker_is_corrupt(marker):
    data = jpeg(np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    at = data.find(b"\xff\x00", len(data) // 2)
    assert reason_of(data[: at + 1] + bytes([marker]) + data[at + 2 :]) == "corrupt"


def test_jpeg_with_restart_markers_out_of_order_is_corrupt():
    data = encode(scene(), "JPEG", restart_marker_blocks=2)
    assert reason_of(data.replace(b"\xff\xd2", b"\xff\xd5", 1)) == "corrupt"


def test_png_with_a_wrong_checksum_is_corrupt():
    for mode in ("RGB", "RGBA"):
        data = bytearray(encode(Image.fromarray(scene()).convert(mode), "PNG"))
        data[data.find(b"IDAT") + 20] ^= 1
        assert reason_of(bytes(data)) == "corrupt"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_damaged_bytes_never_raise_anything_else(kind):
    rng = np.random.default_rng(2)
    whole = encode(scene(24, 24), kind)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(256)
        reason_of(bytes(data))
        reason_of(bytes(data), image_size)


def _png_claiming(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e" + b"\0\0\0\0IEND\xae\x42\x60\x82"


def _patched(kind, old, new):
    data = encode(scene(40, 56), kind)
    assert old in data
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    "data",
    [
        _png_claiming(60000, 60000),
        _patched("JPEG", struct.pack(">HH", 40, 56), struct.pack(">HH", 65000, 65000)),
        _patched("BMP", struct.pack("<ii", 56, 40), struct.pack("<ii", 90000, 90000)),
        _patched("GIF", struct.pack("<HH", 56, 40), struct.pack("<HH", 65000, 65000)),
        b"P6 60000 60000 255\n",
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff\xff\x3f" * 2 + b"VP8 \0\0\0\0",
        b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(8),
        encode(scene(), "TIFF").replace(
            struct.pack("<HHIHH", 256, 4, 1, 56, 0), struct.pack("<HHII", 256, 4, 1, 10**8)
        ),
    ],
    ids=["png", "jpeg", "bmp", "gif", "ppm", "webp", "webp-lossless", "tiff"],
)
def test_size_claimed_is_checked_before_memory_is_taken(data):
    assert reason_of(data) in ("too-large", "corrupt", "truncated")
    assert reason_of(data, image_size) in ("too-large", "corrupt", "truncated")
