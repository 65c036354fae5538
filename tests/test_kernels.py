"""The kernel models by name: the contract that each keeps, and what each draws."""

import dataclasses
import math
import pickle

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from blurgen.kernels import KERNELS, PRESETS, draw_kernels, kernel_model
from blurgen.kernels.gp import GaussianProcess
from blurgen.kernels.linear import Linear
from blurgen.kernels.model import MAX_LENGTH_PX
from blurgen.kernels.spline import Spline
from blurgen.raster import ANCHORS, MAX_SIDE_PX, rasterize
from blurgen.rng import stream

COMPILED = not numba.config.DISABLE_JIT
FEW = {} if COMPILED else {"samples": 900}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a function that builds a model or preset of any name with some length and side."""
    turns = np.cumsum(np.random.default_rng(0).normal(size=200) * 0.2)
    curve = np.cumsum(np.stack((np.cos(turns), np.sin(turns)), axis=1), axis=0) / 199
    file = tmp_path_factory.mktemp("motion") / "curve.csv"
    np.savetxt(file, curve, delimiter=",", header="x,y")

    def build(name, length_px=None, **fields):
        kind = PRESETS.get(name, (name, {}))[0]
        if kind in ("walk", "smooth-walk"):
            fields = {**FEW, **fields}
        if kind == "file":
            fields["file"], fields["zoom"] = str(file), 20.0 if length_px is None else float(length_px)
        elif length_px is not None:
            fields["length_px"] = float(length_px)
        return kernel_model(name, **fields)

    return build


def assert_keeps_the_contract(kernel, side_px):
    assert kernel.dtype == np.float32
    assert kernel.shape[0] == kernel.shape[1] >= side_px
    assert kernel.shape[0] % 2 == 1
    assert np.isfinite(kernel).all()
    assert kernel.min() >= 0
    assert abs(kernel.sum(dtype=float) - 1) < 1e-6
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    assert abs(kernel.sum(axis=0, dtype=float) @ offsets) < 1e-3
    assert abs(kernel.sum(axis=1, dtype=float) @ offsets) < 1e-3


# every model


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("side_px", [3, 5, 33, 65, 257])
@pytest.mark.parametrize("length_px", [0, 1e-12, 0.4, 7, 60, 256, 1000])
def test_every_model_keeps_the_contract(model, name, side_px, length_px):
    drawn = model(name, length_px, side_px=side_px)
    for i in range(2):
        kernel = drawn.draw(stream(1, i))
        assert_keeps_the_contract(kernel, side_px)
        if length_px == 0:
            assert kernel[len(kernel) // 2, len(kernel) // 2] == 1
        assert len(kernel) <= max(side_px, drawn.reach_px() + 3)


@pytest.mark.parametrize("name", [*KERNELS, *PRESETS])
@pytest.mark.parametrize("exposure", [(0.0, 1.0), (0.0, 0.1), (0.37, 0.9), (0.999, 1.0)])
def test_a_support_of_the_reach_holds_every_exposure(model, name, exposure):
    drawn = model(name)
    for i in range(20 if COMPILED else 2):
        for scale in (0.21, 1.0):
            path, weights, _ = drawn.trajectory(stream(2, i))
            kernel, _ = rasterize(scale * path, None, weights, exposure)
            assert len(kernel) <= drawn.reach_px() * scale + 3


@pytest.mark.parametrize("name", [*KERNELS, *PRESETS])
def test_every_kernel_is_one_piece_on_a_large_support(model, name):
    drawn = model(name, 250, side_px=257) if name != "vegan" else model(name, side_px=257)
    for i in range(10 if COMPILED else 1):
        assert ndimage.label(drawn.draw(stream(3, i)), np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("name", [*KERNELS, *PRESETS])
def test_draw_kernels_equals_draw_bit_for_bit(model, name):
    drawn = model(name, side_px=5)  # smaller than some, so that supports differ
    n = 70 if COMPILED else 3
    kernels = draw_kernels(drawn, n, seed=9)
    assert kernels.dtype == np.float32
    for i in (*range(3), *range(n - 3, n)):
        kernel = drawn.draw(stream(9, i))
        margin = (kernels.shape[1] - len(kernel)) // 2
        assert np.array_equal(kernels[i], np.pad(kernel, margin))


@pytest.mark.parametrize("name", [*KERNELS, *PRESETS])
def test_sample_returns_path_kernel_and_params_that_agree(model, name):
    drawn = model(name)
    sample = drawn.sample(stream(4, 0))
    path, weights, params = drawn.trajectory(stream(4, 0))
    assert np.array_equal(sample.path, path)
    assert sample.path.dtype == np.float64
    assert sample.path.shape[1] == 2
    assert (sample.weights is None) == (weights is None)
    assert np.array_equal(drawn.path(stream(4, 0)), path)
    assert np.array_equal(drawn.draw(stream(4, 0)), sample.kernel)
    assert tuple(sample.params) == tuple(params) == drawn.PARAMS
    assert len(drawn.PARAMS) <= 16
    assert all(isinstance(value, float) and math.isfinite(value) for value in sample.params.values())
    kernel, shift = rasterize(path, drawn.side_px, weights)
    assert np.array_equal(kernel, sample.kernel)
    assert np.array_equal(shift, sample.shift)


@pytest.mark.parametrize("name", [*KERNELS, *PRESETS])
def test_models_are_frozen_hashable_and_picklable(model, name):
    drawn = model(name)
    again = pickle.loads(pickle.dumps(drawn))
    assert again == drawn
    assert hash(again) == hash(drawn)
    with pytest.raises(dataclasses.FrozenInstanceError):
        drawn.side_px = 3
    assert dataclasses.replace(drawn, side_px=7).side_px == 7


@pytest.mark.parametrize("name", KERNELS)
def test_different_streams_draw_different_motions(model, name):
    drawn = model(name)
    same = np.array_equal(drawn.path(stream(0, "a")), drawn.path(stream(0, "b")))
    assert same == (name == "file")


@pytest.mark.parametrize("name", KERNELS)
def test_every_model_refuses_an_even_side_and_a_negative_length(model, name):
    with pytest.raises(ValueError, match="positive odd number, got 64"):
        model(name, side_px=64)
    with pytest.raises(ValueError, match="must be in"):
        model(name, -1)


@settings(deadline=None, max_examples=60 if COMPILED else 10)
@given(
    st.floats(0, 300),
    st.floats(0, 1),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.integers(2, 90),
    st.integers(0, 2**32),
    st.sampled_from(ANCHORS),
)
def test_no_walk_is_ever_nan(length_px, anxiety, gaussian, centripetal, rate, samples, seed, anchor):
    walk = kernel_model(
        "walk", length_px=length_px, anxiety=anxiety, gaussian=gaussian, centripetal=centripetal, shake_rate=rate,
        samples=samples, side_px=3,
    )  # fmt: skip
    path, _, kernel, shift, _ = walk.sample(stream(seed), anchor=anchor)
    assert np.isfinite(path).all()
    assert np.isfinite(shift).all()
    assert np.isfinite(kernel).all()
    assert abs(kernel.sum(dtype=float) - 1) < 1e-6
    assert np.hypot(*np.diff(path, axis=0).T).sum() == pytest.approx(length_px)


# names and presets


def test_draw_kernels_takes_names_and_counts():
    assert draw_kernels("linear", 0).shape == (0, 65, 65)
    assert draw_kernels("linear", 3, seed=1).shape == (3, 65, 65)
    assert draw_kernels(kernel_model("walk", **FEW), 0).shape == (0, 65, 65)
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        draw_kernels("linear", -1)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        draw_kernels("linear", 3, seed=-1)


def test_draw_kernels_takes_numpy_integers_for_what_they_are():
    assert np.array_equal(draw_kernels("linear", 2, np.int64(7)), draw_kernels("linear", 2, 7))


def test_draw_kernels_refuses_more_than_the_memory_holds(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}[name])
    assert draw_kernels("linear", 2).nbytes < 40960
    with pytest.raises(ValueError, match=r"3 kernels of 65x65 px need .* GiB, .*; draw fewer at a time"):
        draw_kernels("linear", 3)
    with pytest.raises(ValueError, match="draw fewer at a time"):
        draw_kernels(kernel_model("linear", side_px=3, length_px=300, angle_deg=0), 2)


@pytest.mark.parametrize("name", ["linear", "walk", "gp", "spline", "smooth-walk"])
@pytest.mark.parametrize("length_px", [8192, 100_000, math.inf])
def test_a_length_beyond_the_raster_is_refused_by_its_name(name, length_px):
    with pytest.raises(ValueError, match=r"length_px must be in \[0, 8191\]"):
        kernel_model(name, length_px=length_px)


@pytest.mark.parametrize("name", ["linear", "walk", "gp", "spline"])
def test_the_greatest_length_fits_the_raster(name):
    assert kernel_model(name, length_px=MAX_LENGTH_PX).reach_px() + 3 <= MAX_SIDE_PX


def test_the_zoom_counts_with_the_length():
    with pytest.raises(ValueError, match="length_px times zoom must be at most 8191, got 9000; lower either"):
        kernel_model("walk", length_px=900, zoom=[1, 10])


@pytest.mark.skipif(not COMPILED, reason="too many cells for the interpreter")
def test_a_kernel_wider_than_the_raster_takes_is_refused():
    with pytest.raises(ValueError, match="at most 16385 px wide"):
        rasterize([(0, 0), (16000, 0), (-16000, 0)])


def test_kernel_model_takes_lists_and_numpy_numbers():
    assert kernel_model("walk", zoom=[1, 2.5]).zoom == (1.0, 2.5)
    assert kernel_model("linear", length_px=np.float32(9), side_px=np.int64(33)) == Linear(length_px=9.0, side_px=33)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("deblurgann", {}, "no kernel 'deblurgann': did you mean 'deblurgan'"),
        ("zzz", {}, "known are boracchi-foi, deblurgan"),
        ("walk", {"lenght_px": 3}, "there is no option 'kernel.lenght_px': did you mean 'kernel.length_px'"),
        ("walk", {"PARAMS": 1}, "there is no option 'kernel.PARAMS': known are kernel.anxiety, (?!.*PARAMS)"),
        ("walk", {"length_px": "abc"}, "kernel.length_px must be a number, got 'abc'"),
        ("walk", {"anxiety": [0.1, "abc"]}, "kernel.anxiety must be a number or a list"),
        ("walk", {"samples": 2000.5}, "kernel.samples must be a whole number, got 2000.5"),
        ("gp", {"nu": 2.0}, "nu must be 1.5 or 2.5, got 2.0"),
        ("gp", {"timescale": 0.0}, "timescale must be in"),
        ("spline", {"degree": 0}, "degree must be a whole number"),
        ("linear", {"angle_deg": 1e9}, "angle_deg must be in"),
    ],
)
def test_kernel_model_refuses(name, fields, message):
    with pytest.raises(ValueError, match=message):
        kernel_model(name, **fields)


def test_presets_have_the_published_settings():
    original = kernel_model("boracchi-foi")
    assert (original.length_px, original.samples, original.anxiety, original.gaussian) == (60, 2000, None, None)
    drawn = [kernel_model("deblurgan", **FEW).trajectory(stream(0, i)).params for i in range(60)]
    assert {params["anxiety"] for params in drawn} == {0.01, 0.009, 0.008, 0.007, 0.005, 0.003}
    assert {params["length_px"] for params in drawn} == {60.0}
    assert kernel_model("deblurgan").side_px == 65
    vegan = [kernel_model("vegan", **FEW).trajectory(stream(0, i)).params for i in range(100)]
    assert {params["length_px"] for params in vegan} == {60 / 64 * canvas for canvas in (160, 320, 480, 640)}
    calmest = min(params["anxiety"] * params["length_px"] for params in vegan)
    assert calmest == pytest.approx(0.003 * 60)


LEVIN = np.array(  # max, sigma minor / major, pixels > 2 % of max, entropy in bits, 1 / sum p^2 of the eight kernels
    [
        (0.1118, 1.12 / 3.66, 39, 4.76, 19.8),
        (0.1028, 1.11 / 3.99, 43, 5.13, 26.8),
        (0.0724, 1.30 / 2.19, 41, 5.01, 27.5),
        (0.0943, 1.83 / 9.18, 68, 5.59, 31.6),
        (0.1063, 1.52 / 2.15, 38, 4.76, 19.7),
        (0.1105, 1.01 / 5.07, 48, 5.00, 21.4),
        (0.0860, 1.98 / 5.95, 75, 5.55, 27.2),
        (0.0747, 1.64 / 6.42, 71, 5.64, 33.1),
    ]
)


def five_statistics(kernel):
    values = kernel[kernel > 0].astype(float)
    _, _, (minor, major) = naive.moments(kernel)
    large = np.sum(values > 0.02 * values.max())
    return values.max(), minor / major, large, -np.sum(values * np.log2(values)), 1 / np.sum(values**2)


def test_levin_like_kernels_have_the_statistics_of_the_measured_ones():
    kernels = draw_kernels("levin-like", 1000 if COMPILED else 60, seed=0)
    medians = np.median([five_statistics(kernel) for kernel in kernels], axis=0)
    assert (medians > LEVIN.min(axis=0)).all()
    assert (medians < LEVIN.max(axis=0)).all()


def test_levin_like_kernels_have_the_size_of_the_measured_ones():
    sigmas = [naive.moments(kernel)[2] for kernel in draw_kernels("levin-like", 300 if COMPILED else 60, seed=1)]
    minor, major = np.median(sigmas, axis=0)
    assert 1.0 < minor < 2.0
    assert 2.15 < major < 9.18


# what single models draw


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, 135.0, -45.0])
def test_linear_motion_has_the_length_and_the_direction(angle_deg):
    kernel = Linear(length_px=21.0, angle_deg=angle_deg).draw(stream(0))
    _, _, (_, major) = naive.moments(kernel.tolist())
    assert major == pytest.approx(21 / math.sqrt(12), rel=0.02)
    offsets = np.arange(65) - 32
    xy = kernel @ offsets @ offsets
    assert np.sign(round(float(xy), 3)) == np.sign(round(math.sin(math.radians(2 * angle_deg)), 3))


def test_linear_directions_are_uniform_over_the_half_circle():
    angles = [Linear().trajectory(stream(1, i)).params["angle_deg"] for i in range(2000)]
    assert 0 <= min(angles) < 2
    assert 178 < max(angles) < 180
    assert np.mean(angles) == pytest.approx(90, abs=5)


@pytest.mark.parametrize("nu", [1.5, 2.5])
def test_matern_covariance_is_that_of_its_name(nu):
    """The general formula with a Bessel function, Rasmussen and Williams eq. 4.14."""
    from scipy.special import gamma, kv

    r = np.linspace(0.01, 5, 50)
    scaled = math.sqrt(2 * nu) * r
    assert np.allclose(naive.matern(r, nu), 2 ** (1 - nu) / gamma(nu) * scaled**nu * kv(nu, scaled), rtol=1e-12)
    assert naive.matern(np.zeros(1), nu) == 1


@pytest.mark.parametrize("nu", [1.5, 2.5])
def test_gaussian_process_has_the_covariance_of_its_name(nu):
    """Scaling to one length keeps the ratio of any two directions: the correlation of increments is compared."""
    process = GaussianProcess(nu=nu, timescale=0.3)
    paths = np.array([process.path(stream(2, i)) for i in range(4000 if COMPILED else 1000)])
    early, late = paths[:, 64] - paths[:, 0], paths[:, 192] - paths[:, 128]
    seen = np.sum(early * late) / math.sqrt(np.sum(early**2) * np.sum(late**2))
    t = np.array([0, 64, 128, 192]) / 255 / 0.3
    covariance = naive.matern(t[:, None] - t, nu)
    expected = covariance[1, 3] - covariance[1, 2] - covariance[0, 3] + covariance[0, 2]
    expected /= 2 - 2 * covariance[0, 1]
    assert seen == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("nu", [1.5, 2.5])
@pytest.mark.parametrize("timescale", [0.05, 2.0])
def test_gaussian_process_is_smooth_at_the_limits_of_its_timescale(nu, timescale):
    """A rough path would turn sharply between neighbours; the velocity of a Matérn process exists."""
    steps = np.diff(GaussianProcess(nu=nu, timescale=timescale).path(stream(6)), axis=0)
    cosines = np.sum(steps[1:] * steps[:-1], axis=1) / np.hypot(*steps[1:].T) / np.hypot(*steps[:-1].T)
    assert np.median(cosines) > 0.9


@pytest.mark.parametrize("model", [GaussianProcess(length_px=30), Spline(length_px=30)])
def test_curves_have_the_arc_length(model):
    for i in range(5):
        path = model.path(stream(3, i))
        assert np.hypot(*np.diff(path, axis=0).T).sum() == pytest.approx(30)
        assert np.allclose(path[0], 0)


def test_spline_is_the_bezier_curve_of_its_control_points():
    path = Spline(length_px=30, degree=3).path(stream(5))
    points = stream(5).standard_normal((4, 2))
    for row, t in ((0, 0.0), (100, 100 / 255), (255, 1.0)):
        control = points
        while len(control) > 1:  # de Casteljau
            control = (1 - t) * control[:-1] + t * control[1:]
        expected = control[0] - points[0]
        scale = np.hypot(*path[-1]) / np.hypot(*(points[-1] - points[0]))
        assert np.allclose(path[row], scale * expected)
