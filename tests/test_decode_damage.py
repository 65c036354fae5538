"""A damaged file is refused with a named reason: never half-read, never with another error, never at a great cost."""

import io
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


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True], ids=["sequential", "progressive"])
def test_jpeg_that_was_cut_and_closed_is_truncated(fraction, mode, progressive):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)).convert(mode)
    data = encode(noise, "JPEG", progressive=progressive)
    assert reason_of(data) is None
    assert reason_of(data[: int(fraction * len(data))] + b"\xff\xd9") == "truncated"


def _with_image_data(data, change):
    """Return a PNG whose image data are changed once unpacked, and whose checksums are right."""
    at, pieces, packed = 8, [data[:8]], b""
    while at < len(data):
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if name == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        else:
            pieces.append(data[at : at + 12 + size])
        at += 12 + size
    packed = change(packed)
    chunk = len(packed).to_bytes(4) + b"IDAT" + packed + zlib.crc32(b"IDAT" + packed).to_bytes(4)
    return b"".join([*pieces[:-1], chunk, pieces[-1]])


SHORT = {
    "rows": lambda packed: zlib.compress(zlib.decompress(packed)[:-500]),
    "byte": lambda packed: zlib.compress(zlib.decompress(packed)[:-1]),
    "checksum": lambda packed: packed[:-4],
    "wrong": lambda packed: packed[:-1] + bytes([packed[-1] ^ 1]),
}


@pytest.mark.parametrize("missing", SHORT)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16"])
def test_png_with_too_little_data_is_refused(mode, missing):
    image = Image.fromarray(scene(160, 200))
    data = encode(image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode), "PNG")
    assert reason_of(_with_image_data(data, lambda packed: packed)) is None
    assert reason_of(_with_image_data(data, SHORT[missing])) in ("truncated", "corrupt")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 3), (8, 8), (33, 17)], ids=str)
def test_interlaced_png_is_whole_with_as_many_bytes_as_it_needs(depth, size):
    """The seven passes by hand: pixel (x, y) belongs to the first whose grid it lies on."""
    width, height = size
    grids = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for left, top, right, down in grids:
        columns = len(range(left, width, right))
        rows += (bytes(1 + -(-columns * depth // 8)) * len(range(top, height, down))) if columns else b""
    header = struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 1)

    def chunk(name, content):
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    def png(content):
        pieces = (b"IHDR", header), (b"PLTE", bytes(6)), (b"IDAT", zlib.compress(content)), (b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*piece) for piece in pieces)

    assert reason_of(png(rows)) is None
    assert reason_of(png(rows[:-1])) == "truncated"


def _tiff(compression):
    """Return a TIFF of several strips, and where each lies."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    data = encode(Image.fromarray(noise), "TIFF", compression=compression, tiffinfo={278: 16})
    tags = Image.open(io.BytesIO(data)).tag_v2
    return data, tags[273], tags[279]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("damage", ["no place", "fewer", "half"])
def test_tiff_that_lacks_a_strip_is_refused(compression, damage):
    data, places, sizes = _tiff(compression)
    listed, counted = struct.pack("<6I", *places), struct.pack("<6H", *sizes)
    assert listed in data
    if damage == "no place":
        damaged = data.replace(listed, listed[:8] + bytes(4) + listed[12:], 1)
    elif damage == "half":
        halved = [size // 2 for size in sizes]
        kind = "H" if counted in data else "I"
        damaged = data.replace(struct.pack(f"<6{kind}", *sizes), struct.pack(f"<6{kind}", *halved), 1)
    else:
        damaged = data
        for tag in (273, 279):
            at = next(at for kind in (3, 4) if (at := data.find(struct.pack("<HHI", tag, kind, 6))) >= 0)
            damaged = damaged[: at + 4] + struct.pack("<I", 4) + damaged[at + 8 :]
    assert damaged != data
    expected = (None,) if (compression, damage) == ("raw", "half") else ("truncated", "corrupt")
    assert reason_of(damaged) in expected


def test_avif_that_was_never_written_to_its_end_is_truncated():
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    data = encode(noise, "AVIF")
    assert reason_of(data[:-4096] + bytes(4096)) == "truncated"


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
