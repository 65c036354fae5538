"""decode() gives Pillow's pixels, upright, in sRGB and over white, or a named reason."""

import io
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pictures import by_pillow, deep_tiff, encode, reason_of, scene, swapped_profile
from PIL import Image, ImageOps

from blurgen.sources import BadImage
from blurgen.sources.decode import decode, image_size

# What Pillow thinks of damaged metadata.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# What is wrong with a file of the folder of awkward ones; all others read.
REASONS = {
    "bomb/17000x17000.avif": "corrupt",
    "derived/float_nan_inf.tif": "not-finite",
    "derived/header_bomb_60000x60000.png": "too-large",
    "derived/header_only.jpg": "truncated",
    "derived/not_an_image.jpg": "not-an-image",
    "derived/zero_byte.jpg": "empty",
    "float/10ct_32bit_128.tiff": "out-of-range",
    "heic/RGBA_10__128x128.heif": "unsupported",
    "heic/arrow.heic": "unsupported",
    "malformed/Bad_height.bmp": "too-large",
    "malformed/Bad_shortfile.bmp": "truncated",
    "malformed/negative_size.ppm": "corrupt",
    "malformed/oss-fuzz-36829.jpeg": "truncated",
    "malformed/zero_width.gif": "corrupt",
    "pngsuite/xcsn0g01.png": "corrupt",
    "pngsuite/xhdn0g08.png": "corrupt",
    "pngsuite/xs1n0g01.png": "not-an-image",
    "truncated/broken.png": "truncated",
    "truncated/corrupted.heic": "unsupported",
    "truncated/phone_16MP_truncated.jpg": "truncated",
    "truncated/truncated.heic": "unsupported",
    "truncated/truncated_end_chunk.png": "truncated",
    "truncated/truncated_jpeg.jpg": "truncated",
    "truncated/vips_truncated.gif": "truncated",
    "truncated/x_unexpected_eof.png": "truncated",
    "zero_byte/empty.heic": "empty",
}
NOT_IMAGES = {".DS_Store", "Thumbs.db", "PngSuite.LICENSE", "names_hard.tar"}
# Where Pillow itself is no oracle: it cuts 16 bits, or cannot read floats.
DEEPER_THAN_PILLOW = {"basn0g16.png", "hopper_16bit.pgm", "16bit.cropped.tif", "uint16_1_4660.tif", "rgb32f_bw.tiff"}


def awkward_files(data_root):
    files = (path for path in sorted((data_root / "awkward").rglob("*")) if path.is_file())
    return {str(path.relative_to(data_root / "awkward")): path for path in files if path.name not in NOT_IMAGES}


def test_every_awkward_file_reads_or_has_its_reason(data_root):
    files = awkward_files(data_root)
    assert {name: reason for name, path in files.items() if (reason := reason_of(path.read_bytes()))} == REASONS
    for name in set(files) - set(REASONS):
        data = files[name].read_bytes()
        pixels = decode(data)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert image_size(data) == pixels.shape[1::-1], name
        if files[name].name not in DEEPER_THAN_PILLOW:
            difference = np.abs(pixels.astype(int) - by_pillow(data))
            assert difference.max() <= (2 if "RGBa" in name else 1), name  # Pillow divides by alpha at 8 bits


def test_awkward_files_take_less_than_a_gigabyte_and_a_minute(data_root):
    code = """if True:
        import sys
        from pathlib import Path
        from blurgen.sources import BadImage
        from blurgen.sources.decode import decode, image_size
        for path in map(Path, sys.argv[1:]):
            for read in (image_size, decode):
                try:
                    read(path.read_bytes())
                except BadImage:
                    pass
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(peak.split()[1])
    """
    command = [sys.executable, "-c", code, *map(str, awkward_files(data_root).values())]
    peak_kib = int(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert peak_kib * 1024 < 1e9


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(scene(), kind, exif=exif)
    stored = Image.open(io.BytesIO(data))
    assert np.array_equal(decode(data), np.asarray(ImageOps.exif_transpose(stored).convert("RGB")))
    assert image_size(data) == ((40, 56) if orientation >= 5 else (56, 40))


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_orientation_that_does_not_exist_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for data in (encode(scene(), "TIFF", exif=exif), encode(scene(), "JPEG", exif=exif)):
        assert decode(data).shape == (40, 56, 3)
        assert image_size(data) == (56, 40)


def test_deep_png_and_tiff_are_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 257
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(decode(encode(values, kind, exif=exif))[..., 0], np.rot90(values // 257, -1))


def _in_mode(mode):
    image = Image.fromarray(scene())
    if mode in ("LA", "PA", "RGBA"):
        image.putalpha(Image.fromarray(scene()[..., 1]))
    return image.convert(mode)


MODES = {
    "JPEG": ["1", "L", "RGB", "CMYK", "YCbCr"],
    "PNG": ["1", "L", "P", "RGB", "LA", "RGBA"],
    "WEBP": ["L", "P", "RGB", "LA", "RGBA", "CMYK"],
    "GIF": ["1", "L", "P", "RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "TIFF": ["1", "L", "P", "RGB", "CMYK", "LA", "PA", "RGBA"],
    "PPM": ["1", "L", "RGB"],
    "JPEG2000": ["L", "RGB", "LA", "RGBA"],
    "AVIF": ["L", "RGB", "LA", "RGBA"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_pixels_equal_pillows(kind, mode):
    data = encode(_in_mode(mode), kind)
    assert np.abs(decode(data).astype(int) - by_pillow(data)).max() <= ("A" in mode)


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"subsampling": 0},
        {"subsampling": 1},
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"restart_marker_rows": 1},
        {"progressive": True, "restart_marker_blocks": 3},
        {"keep_rgb": True},
        {"comment": b"\xff\xd9 a false end"},
        {"dpi": (300, 300)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(40, 56), (1, 1), (17, 9)], ids=str)
def test_jpeg_of_any_kind_reads(options, size):
    data = encode(scene(*size), "JPEG", **options)
    assert np.array_equal(decode(data), by_pillow(data))
    assert np.array_equal(decode(data + b"trailer \xff\xd8"), by_pillow(data))


@pytest.mark.parametrize("level", [0, 127, 128, 255])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_flat_jpeg_is_no_truncated_one(level, options):
    flat = np.full((200, 300, 3), level, np.uint8)
    assert np.array_equal(decode(encode(flat, "JPEG", **options)), flat)
    half = np.concatenate([scene(200, 150), flat[:, :150]], axis=1)
    data = encode(half, "JPEG", **options)
    assert np.array_equal(decode(data), by_pillow(data))


def test_16_bits_become_8_by_rounding():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(values / 257).astype(np.uint8)
    for data in (encode(values, "PNG"), encode(values, "TIFF"), cv2.imencode(".pgm", values)[1].tobytes()):
        assert np.array_equal(decode(data), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_16_bit_colours_keep_their_order(suffix):
    values = (scene().astype(np.uint16) * 257)[..., ::-1]
    assert np.array_equal(decode(cv2.imencode(suffix, values)[1].tobytes()), scene())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_alpha_is_laid_over_white(suffix):
    values = scene(channels=4).astype(np.uint16) * 257
    colours, alpha = values[..., 2::-1] / 65535, values[..., 3:] / 65535
    expected = 255 * (colours * alpha + 1 - alpha)
    assert np.abs(decode(cv2.imencode(suffix, values)[1].tobytes()) - expected).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colour_tiff_is_turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = decode(encode(scene(), "PNG", exif=exif))
    data = deep_tiff(scene().astype(np.uint16) * 257, orientation)
    assert np.array_equal(decode(data), expected)
    assert image_size(data) == expected.shape[1::-1]
    assert np.array_equal(decode(encode(scene(), "TIFF", compression="tiff_lzw", exif=exif)), expected)


@pytest.mark.parametrize("extra", [1, 2])
def testdeep_tiff_alpha_may_be_multiplied_in(extra):
    values = scene(channels=4).astype(np.uint16) * 257
    colours, alpha = values[..., :3] / 65535, values[..., 3:] / 65535
    if extra == 1:
        values[..., :3] = np.round(colours * values[..., 3:])
    assert np.abs(decode(deep_tiff(values, extra=extra)) - 255 * (colours * alpha + 1 - alpha)).max() <= 0.51


def test_float_tiff_is_linear_light():
    light = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 20)
    expected = np.array(
        [[12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in row] for row in light]
    )
    gray = decode(encode(light, "TIFF"))
    assert np.array_equal(gray[..., 1], np.round(255 * expected))
    rgb = np.stack([light, light[::-1], 0 * light], axis=-1)
    assert np.array_equal(decode(deep_tiff(rgb))[..., 1], gray[::-1, :, 0])


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "not-finite"), (np.inf, "not-finite"), (255, "out-of-range")])
def test_float_tiff_beyond_light_is_refused(value, reason):
    light = np.full((4, 4, 3), 0.5, np.float32)
    light[2, 1, 0] = value
    assert reason_of(deep_tiff(light)) == reason
    assert reason_of(encode(light[..., 0], "TIFF")) == reason


def test_32_bit_integers_have_no_range():
    assert reason_of(encode(Image.fromarray(np.array([[70000]], np.int32)), "TIFF")) == "unsupported"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_profile_is_converted_to_srgb(kind):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    options = {"quality": 100} | ({"lossless": True} if kind == "WEBP" else {})
    pixels = decode(encode(red, kind, icc_profile=swapped_profile(), **options)).astype(int)
    assert np.abs(pixels - [0, 200, 0]).max() <= 3


@pytest.mark.parametrize("profile", [b"no profile", swapped_profile()[:300]], ids=["words", "cut"])
def test_broken_profile_is_ignored(profile):
    data = encode(scene(), "PNG", icc_profile=profile)
    assert np.array_equal(decode(data), scene())


def test_first_frame_is_read():
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    for kind in ("PNG", "TIFF", "MPO"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(decode(data).astype(int) - scene()).mean() < 6, kind


def test_size_needs_no_image_data():
    data = encode(scene(), "JPEG")
    assert image_size(data[: data.find(b"\xff\xda") + 20]) == (56, 40)


def test_bad_image_keeps_its_reason_through_a_pickle():
    error = pickle.loads(pickle.dumps(BadImage("empty", "the file is empty")))
    assert (error.reason, str(error)) == ("empty", "the file is empty")
