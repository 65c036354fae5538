"""Blurring: every back-end against the definition, and the faults that blurring tools are known for."""

import naive_convolve as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blurgen import blur
from blurgen.canvas import BORDERS
from blurgen.convolve import BACKENDS, convolve, saturate
from blurgen.imaging import response

SHAPES = [(1, 1), (1, 7), (7, 1), (1, 1, 3), (5, 6, 1), (7, 5, 3), (8, 16), (9, 17), (40, 33, 3), (23, 70, 4)]
SIDES = [(1, 1), (1, 5), (5, 1), (3, 3), (9, 21), (65, 65)]


def random_kernel(shape, rng, density=0.3):
    kernel = rng.random(shape) * (rng.random(shape) < density)
    kernel[rng.integers(shape[0]), rng.integers(shape[1])] += 0.1
    return kernel / kernel.sum()


def curved_kernel(nonzeros, rng):
    """Return a kernel like a camera's: a connected curve, 2 or 3 px thick."""
    kernel, centre, angle = np.zeros((65, 65)), np.array([32.0, 32.0]), rng.uniform(0, 2 * np.pi)
    while np.count_nonzero(kernel) < nonzeros:
        angle += rng.normal(0, 0.2)
        centre = np.clip(centre + 0.3 * np.array([np.cos(angle), np.sin(angle)]), 1, 62)
        row, column = centre.astype(int)
        kernel[row : row + 2, column : column + 2] += rng.random((2, 2))
    return (kernel / kernel.sum()).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(20120801)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("border", [*BORDERS, "valid"])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_backends_equal_the_definition(sides, border, backend, rng):
    for shape in SHAPES:
        if border == "valid" and (shape[0] < sides[0] or shape[1] < sides[1]):
            continue
        image, kernel = rng.random(shape, np.float32), random_kernel(sides, rng)
        result = convolve(image, kernel, border, backend)
        assert result.dtype == np.float32
        assert np.abs(result - naive.convolve(image, kernel, border)).max() <= 1e-5


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 12), st.integers(0, 12), st.sampled_from([None, 1, 2, 3, 4]),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.sampled_from(BORDERS), st.sampled_from(sorted(BACKENDS)),
    st.integers(0, 2**32),
)  # fmt: skip
def test_any_size_equals_the_definition(height, width, up, across, channels, density, border, backend, seed):
    rng = np.random.default_rng(seed)
    image = rng.random((height, width) + (() if channels is None else (channels,)), np.float32)
    kernel = random_kernel((2 * up + 1, 2 * across + 1), rng, density)
    assert np.abs(convolve(image, kernel, border, backend) - naive.convolve(image, kernel, border)).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("nonzeros", [20, 40, 120, 400])
def test_curved_kernels_equal_the_definition(nonzeros, backend, rng):
    image, kernel = rng.random((80, 90, 3), np.float32), curved_kernel(nonzeros, rng)
    assert np.abs(convolve(image, kernel, backend=backend) - naive.convolve(image, kernel)).max() <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_kernel_is_flipped(backend, rng):
    """A point of light draws the kernel itself, and not its mirror image."""
    kernel = random_kernel((7, 9), rng).astype(np.float32)
    point = np.zeros((15, 19), np.float32)
    point[7, 9] = 1
    assert np.allclose(convolve(point, kernel, backend=backend)[4:11, 5:14], kernel, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_delta_moves_the_image_by_its_offset(backend, rng):
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    for row, column in [(2, 2), (0, 2), (4, 1)]:
        kernel = np.zeros((5, 5))
        kernel[row, column] = 1
        moved = np.pad(image, ((2, 2), (2, 2), (0, 0)), "reflect")[4 - row : 34 - row, 4 - column : 44 - column]
        assert np.array_equal(blur(image, kernel, backend=backend), moved)


@pytest.mark.parametrize("level", range(0, 256, 5))
def test_a_flat_image_stays_flat(level, rng):
    image = np.full((33, 47, 3), level, np.uint8)
    for backend in BACKENDS:
        assert np.array_equal(blur(image, curved_kernel(60, rng), backend=backend), image)


@pytest.mark.parametrize("place", [(0, 0, 64, 64), (3, 7, 40, 50), (10, 1, 31, 29), (25, 31, 57, 16)])
def test_a_pixel_depends_on_its_surroundings_alone_bit_for_bit(place, rng):
    kernel = curved_kernel(70, rng)[20:49, 18:45]
    image = rng.random((110, 100, 3), np.float32)
    whole = convolve(image, kernel, "valid", "sparse")
    y, x, height, width = place
    part = convolve(image[y : y + height + 28, x : x + width + 26], kernel, "valid", "sparse")
    assert np.array_equal(part, whole[y : y + height, x : x + width])
    bordered = convolve(image[y : y + height, x : x + width], kernel, "reflect", "sparse")
    inside = bordered[14:-14, 13:-13]
    assert np.array_equal(inside, whole[y : y + inside.shape[0], x : x + inside.shape[1]])


def test_margins_of_zeros_around_a_kernel_change_nothing(rng):
    image, kernel = rng.random((40, 50, 3), np.float32), curved_kernel(50, rng)
    for border in BORDERS:
        assert np.array_equal(convolve(image, np.pad(kernel, 7), border), convolve(image, kernel, border))


def test_srgb_is_blurred_in_linear_light_and_rounded(rng):
    image, kernel = rng.integers(0, 256, (30, 35, 3), np.uint8), curved_kernel(40, rng)
    expected, distance = naive.blur_srgb(image, kernel)
    for backend in BACKENDS:
        result = blur(image, kernel, backend=backend)
        assert result.dtype == np.uint8
        assert np.array_equal(result[distance > 1e-3], expected[distance > 1e-3])
        assert np.mean(result != expected) < 1e-3


def test_codes_are_rounded_and_not_cut_off():
    image = np.array([[10, 11, 10, 11]], np.uint8)
    assert np.array_equal(blur(image, np.array([[0, 0.25, 0.75]]), "linear", "wrap"), [[11, 10, 11, 10]])


@pytest.mark.parametrize("spec", ["srgb", "linear", 2.2, np.linspace(0, 1, 64) ** 0.5])
@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1)])
def test_shape_and_dtype_come_back(spec, dtype, white, rng):
    kernel = curved_kernel(30, rng)
    for shape in [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 2), (20, 30, 4), (1, 1), (1, 2, 4)]:
        values = rng.random(shape)
        image = (values * white).astype(dtype)
        result = blur(image, kernel, spec)
        assert result.shape == shape
        assert result.dtype == dtype
        colours = slice(None) if len(shape) == 2 or shape[2] in (1, 3) else slice(-1)
        curve = response(spec)
        light = naive.convolve(curve.to_linear(image[..., colours]), kernel)
        back = curve.from_linear(light.astype(np.float32), np.float64)
        assert np.abs(result[..., colours] / white - back).max() <= 1e-3 + 0.5 / white


def test_alpha_stays_as_it_is(rng):
    for channels in (2, 4):
        image = rng.integers(0, 256, (25, 31, channels), np.uint8)
        result = blur(image, curved_kernel(30, rng))
        assert np.array_equal(result[..., -1], image[..., -1])
        assert not np.array_equal(result[..., 0], image[..., 0])
        inner = blur(image, random_kernel((5, 9), rng), border="valid")
        assert inner.shape == (21, 23, channels)
        assert np.array_equal(inner[..., -1], image[2:-2, 4:-4, -1])


def test_views_blur_like_copies_and_stay_untouched(rng):
    image, kernel = rng.integers(0, 256, (50, 60, 3), np.uint8), curved_kernel(30, rng)
    for view in (image[::2, ::-1], image.transpose(1, 0, 2), image[5:30, 7:40], image[..., ::-1], image[:, :, 1]):
        before = view.copy()
        assert np.array_equal(blur(view, kernel), blur(np.ascontiguousarray(view), kernel))
        assert np.array_equal(view, before)


def test_light_beyond_white_is_clipped_after_the_blur():
    image = np.array([[0, 0, 2.5, 0, 0]], np.float32)
    assert np.allclose(blur(image, [[0.25, 0.5, 0.25]], "linear"), [[0, 0.625, 1, 0.625, 0]])


def test_saturated_pixels_give_back_their_light(rng):
    context = rng.integers(0, 240, (40, 44, 3), np.uint8)
    context[10:25, 12:30] = 255  # as bright as light gets, so that the recovered light passes white
    context[rng.random(context.shape) < 0.05] = 255
    kernel = random_kernel((11, 9), rng)
    light = convolve(response("srgb").to_linear(context), kernel, "valid")
    mask = naive.convolve(context == 255, kernel, "valid")
    assert np.abs(saturate(light, context, kernel, 1.3) - np.clip(light + 1.3 * mask, 0, 1)).max() <= 1e-5
    assert np.array_equal(saturate(light, np.minimum(context, 254), kernel, 1.3), np.clip(light, 0, 1))


def test_a_kernel_of_zeros_gives_darkness():
    for backend in BACKENDS:
        assert not convolve(np.ones((20, 30, 3), np.float32), np.zeros((3, 3)), backend=backend).any()


@pytest.mark.parametrize(
    ("image", "kernel", "options", "message"),
    [
        (np.zeros((4, 4)), np.ones((2, 3)) / 6, {}, r"odd sides, got \(2, 3\)"),
        (np.zeros((4, 4)), np.ones(3) / 3, {}, r"two-dimensional with odd sides, got \(3,\)"),
        (np.zeros((4, 4)), np.full((3, 3), np.nan), {}, "kernel must be finite"),
        (np.zeros((4, 4)), np.ones((3, 3)), {}, "sum to 1, got a least value of 1 and a sum of 9"),
        (np.zeros((4, 4)), np.array([[-1.0, 2.0, 0.0]]), {}, "non-negative"),
        (np.full((4, 4), np.nan), np.ones((1, 1)), {}, "image must be finite"),
        (np.zeros((4, 4, 5)), np.ones((1, 1)), {}, r"1 to 4 channels and not empty, got \(4, 4, 5\)"),
        (np.zeros(4), np.ones((1, 1)), {}, r"got \(4,\)"),
        (np.zeros((0, 4, 3)), np.ones((1, 1)), {}, "not empty"),
        (np.zeros((4, 4), np.int32), np.ones((1, 1)), {}, "got int32"),
        (np.zeros((4, 4)), np.ones((1, 1)), {"border": "reflekt"}, "did you mean 'reflect'"),
        (np.zeros((4, 4)), np.ones((1, 1)), {"backend": "dens"}, "did you mean 'dense'"),
        (np.zeros((4, 4)), np.ones((1, 1)), {"response": "sgrb"}, "a response must be"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(image, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        blur(image, kernel, **options)


def test_valid_refuses_an_image_smaller_than_the_kernel():
    with pytest.raises(ValueError, match="no smaller than the kernel"):
        convolve(np.zeros((4, 9)), np.ones((5, 5)), "valid")
