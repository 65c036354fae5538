"""Response curves, exact rounding, saturation and noise."""

import pickle

import naive_convolve as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blurgen import kernel_model
from blurgen.codes import LEVELS
from blurgen.imaging import NOISES, draw_saturation, noise_model, response
from blurgen.rng import stream
from blurgen.sample import CropRule, Look, render

STEPS = np.linspace(0, 1, 1024)
CURVES = {
    "srgb": "srgb",
    "linear": "linear",
    "gamma2.2": "gamma2.2",
    "gamma 1.8": 1.8,
    "gamma 0.5": 0.5,
    "measured, 256": np.linspace(0, 1, 256) ** 0.4,
    "measured, S": STEPS**0.45 * (1 - 0.2 * np.sin(np.pi * STEPS)),
    "measured, 3": [0, 0.7, 1],
}
DTYPES = [np.uint8, np.uint16, np.float32, np.float64]


@pytest.fixture(params=CURVES.values(), ids=CURVES.keys())
def curve(request):
    return response(request.param)


@pytest.mark.parametrize("dtype", LEVELS, ids=str)
def test_every_level_returns_through_linear_light(curve, dtype):
    levels = np.arange(LEVELS[dtype], dtype=dtype).reshape(16, -1)
    light = curve.to_linear(levels)
    assert light.dtype == np.float32
    assert light[0, 0] == 0
    assert light[-1, -1] == 1
    assert np.array_equal(curve.from_linear(light, dtype), levels)


@pytest.mark.parametrize("dtype", LEVELS, ids=str)
def test_light_is_rounded_exactly(curve, dtype):
    top = LEVELS[dtype] - 1
    edges = curve.decode((np.arange(top) + 0.5) / top).astype(np.float32)
    beside = [np.nextafter(edges, np.float32(side)) for side in (-1, 2)]
    tiny = np.float32(2.0) ** -np.arange(150, dtype=np.float32)
    dense = np.linspace(-0.1, 1.1, 20001, dtype=np.float32)
    light = np.concatenate([edges, *beside, tiny, -tiny, dense, np.float32([0, 1, 5, -np.inf, np.inf])])
    exact = curve.encode(np.clip(light, 0, 1).astype(np.float64)) * top
    assert np.array_equal(curve.from_linear(light, dtype), np.floor(exact + 0.5).astype(dtype))


def test_srgb_follows_the_standard():
    curve = response("srgb")
    codes = np.arange(256, dtype=np.uint8)
    assert np.allclose(curve.to_linear(codes), [naive.srgb_light(code / 255) for code in range(256)], atol=1e-7)
    light = np.linspace(0, 1, 5001, dtype=np.float32)
    levels = [int(naive.srgb_value(float(value)) * 255 + 0.5) for value in light]
    assert np.array_equal(curve.from_linear(light, np.uint8), levels)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-2, 2, width=32)))
def test_short_and_long_images_are_rounded_alike(light):
    curve = response("srgb")
    long = np.concatenate([light, np.zeros(32, np.float32)])
    assert np.array_equal(curve.from_linear(light, np.uint8), curve.from_linear(long, np.uint8)[: light.size])


def test_the_linear_response_is_the_identity_and_gamma_the_power():
    values = np.linspace(0, 1, 11)
    assert np.array_equal(response("linear").to_linear(values), values.astype(np.float32))
    assert np.allclose(response("gamma2.2").to_linear(values), values**2.2, atol=1e-7)
    assert response("gamma2.2") == response(2.2)


def test_a_measured_response_is_interpolated():
    curve = response([0, 0.6, 1])
    assert np.allclose(curve.from_linear(np.float32([0, 0.25, 0.5, 0.75]), np.float64), [0, 0.3, 0.6, 0.8])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_keep_highlights_on_the_way_in_and_clip_on_the_way_out(dtype):
    curve = response("linear")
    values = np.array([[-1, 0.5, 3]], dtype)
    assert np.array_equal(curve.to_linear(values), np.float32([[0, 0.5, 3]]))
    encoded = curve.from_linear(np.float32([[-1, 0.5, 3]]), dtype)
    assert encoded.dtype == dtype
    assert np.array_equal(encoded, [[0, 0.5, 1]])


@pytest.mark.parametrize("shape", [(5,), (4, 6), (4, 6, 3), (1, 1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_strides_do_not_matter(shape, dtype):
    values = np.random.default_rng(1).random(shape) * (np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1)
    image = values.astype(dtype)
    spread = np.zeros([2 * side for side in shape], dtype)[tuple(slice(None, None, 2) for _ in shape)]
    spread[...] = image
    curve = response("srgb")
    light = curve.to_linear(spread)
    assert np.array_equal(light, curve.to_linear(image))
    assert curve.from_linear(light.T, dtype).shape == shape[::-1]
    assert np.allclose(curve.from_linear(light.T, dtype).T, image)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sgrb", "srgb, linear, or gamma2.2"),
        ("gamma", "srgb, linear, or gamma2.2"),
        (0.0, "gamma must be between 0.1 and 10, got 0.0"),
        ([0, 0.5, 0.5, 1], "must rise strictly from 0 to 1"),
        ([0.1, 1], "must rise strictly from 0 to 1"),
        ([0, np.nan, 1], "must rise strictly from 0 to 1"),
        ([], "must rise strictly from 0 to 1"),
    ],
)
def test_a_wrong_response_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        response(spec)


def test_wrong_dtypes_are_refused():
    with pytest.raises(ValueError, match="uint8, uint16, float32 or float64, got int64"):
        response("srgb").to_linear(np.zeros((2, 2), np.int64))
    with pytest.raises(ValueError, match="uint8, uint16, float32 or float64, got int8"):
        response("srgb").from_linear(np.zeros((2, 2), np.float32), np.int8)


def test_a_response_that_merges_levels_is_refused():
    steep = response(np.append(np.linspace(0, 0.1, 100_000), 1))
    with pytest.raises(ValueError, match="too steep or too flat"):
        steep.to_linear(np.zeros((2, 2), np.uint16))


def test_a_response_survives_pickling_and_stays_small():
    curve = response("srgb")
    curve.to_linear(np.zeros((2, 2), np.uint16))
    assert pickle.loads(pickle.dumps(curve)) == curve
    assert len(pickle.dumps(curve)) < 200


@pytest.mark.parametrize(("photons", "read"), [(2048.0, 0.05), (40.0, 3.0), (3.0, 0.5)])
@pytest.mark.parametrize("exposure", [1.0, 0.1])
@pytest.mark.parametrize("level", [0.0, 0.02, 0.7])
def test_poisson_gaussian_noise_has_the_moments_of_the_formula(photons, read, exposure, level):
    n = 200_000
    light = np.full(n, level, np.float32)
    noisy, drawn = noise_model("poisson-gaussian", photons=photons, read=read).apply(
        light, exposure, np.random.default_rng(5)
    )
    raw = noisy.astype(np.float64) * photons * exposure
    mean = photons * exposure * float(light[0])
    variance = mean + read**2
    # Five standard errors; the fourth central moment of a Poisson law plus a normal one is 3 var² + mean.
    assert abs(raw.mean() - mean) < 5 * np.sqrt(variance / n)
    assert abs(raw.var() - variance) < 5 * np.sqrt((2 * variance**2 + mean) / n)
    assert drawn == {"photons": photons, "read": read}
    assert noisy.dtype == np.float32


@pytest.mark.parametrize(("name", "shot", "read"), [("realblur", 8.8915e-5, 2.9430e-5), ("bsd", 2.3282e-5, 1.9452e-4)])
def test_camera_noise_draws_its_constants_and_has_their_moments(name, shot, read):
    model, light = noise_model(name), np.full(100_000, 0.5, np.float32)
    gains = []
    for seed in range(40):
        noisy, drawn = model.apply(light, 0.5, np.random.default_rng(seed))
        gains.append((drawn["shot"] / shot, drawn["read"] / read))
        variance = drawn["shot"] * 0.5 / 0.5 + (drawn["read"] / 0.5) ** 2
        assert abs(noisy.mean(dtype=np.float64) - 0.5) < 5 * np.sqrt(variance / light.size)
        assert noisy.astype(np.float64).var() == pytest.approx(variance, rel=0.04)
    gains = np.array(gains)
    assert gains.min() >= 0.5
    assert gains.max() <= 1.5
    assert np.ptp(gains, axis=0).min() > 0.8
    assert np.all(np.abs(gains.mean(axis=0) - 1) < 5 / np.sqrt(12 * 40))


@pytest.mark.parametrize(("name", "read"), [("realblur", 2.9430e-5), ("bsd", 1.9452e-4)])
def test_camera_noise_in_the_dark_is_read_noise(name, read):
    noisy, drawn = noise_model(name).apply(np.zeros(100_000, np.float32), 0.5, np.random.default_rng(1))
    assert drawn["read"] == pytest.approx(read, rel=0.5)
    assert noisy.astype(np.float64).std() == pytest.approx(drawn["read"] / 0.5, rel=0.02)


def test_camera_noise_spares_saturated_pixels():
    light = np.array([0.2, 1.0, 1.0, 0.9], np.float32).repeat(50)
    noisy, _ = noise_model("realblur").apply(light, 1.0, np.random.default_rng(0))
    assert np.array_equal(noisy[light == 1], light[light == 1])
    assert (noisy[light < 1] != light[light < 1]).all()


@pytest.mark.parametrize("kernel", ["deblurgan", "gp", "linear", "vegan"])
def test_camera_noise_spares_white_areas_whatever_the_kernel(kernel):
    """Taps of float32 that sum to 1 make of white what is off by a few roundings, to either side."""
    model, white = kernel_model(kernel), np.full((64, 64, 3), 255, np.uint8)
    noise = noise_model("realblur", shot=1e-3)
    for index in range(8):
        look = Look(CropRule(24), model, kernel_side=len(model.draw(stream(2, index))), noise=noise)
        (sample,) = render(white, None, look, lambda purpose, index=index: stream(2, index))
        assert (sample.images["blurred"] == 255).all()


def test_camera_noise_reaches_all_that_is_not_white():
    light = np.float32([[254.0 / 255], [1 - 2**-15]]).repeat(50, axis=1)
    noisy, _ = noise_model("realblur").apply(light, 1.0, np.random.default_rng(0))
    assert (noisy != light).mean() > 0.95


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_a_function_of_the_generator(name):
    light = np.random.default_rng(0).random((8, 9, 3), np.float32)
    before = light.copy()
    first, again = (noise_model(name).apply(light, 0.5, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert first[0].shape == light.shape
    assert first[0].dtype == np.float32
    assert first[1] == again[1]
    assert np.array_equal(light, before)


def test_no_noise_changes_nothing():
    light = np.random.default_rng(0).random((4, 4, 3), np.float32)
    noisy, drawn = noise_model("none").apply(light, 1.0, np.random.default_rng(0))
    assert np.array_equal(noisy, light)
    assert drawn == {}


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("boracci-foi", {}, "did you mean 'boracchi-foi'"),
        ("boracchi-foi", {"photon": 3}, "'noise.photon': did you mean 'noise.photons'"),
        ("boracchi-foi", {"photons": 0}, r"photons must be in \(0, 1e\+12\]"),
        ("boracchi-foi", {"photons": np.inf}, r"photons must be in \(0, 1e\+12\]"),
        ("boracchi-foi", {"read": 1e13}, "read not negative"),
        ("realblur", {"read": -1}, "read not negative"),
        ("none", {"read": 1}, "no option 'noise.read'"),
    ],
)
def test_wrong_noise_is_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        noise_model(name, **fields)


def test_saturation_is_drawn_from_its_range():
    drawn = [draw_saturation(np.random.default_rng(seed)) for seed in range(400)]
    assert min(drawn) >= 0.25
    assert max(drawn) <= 1.75
    assert np.mean(drawn) == pytest.approx(1, abs=5 * 1.5 / np.sqrt(12 * 400))
