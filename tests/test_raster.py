"""The rasteriser: equal to an exact naive one, nothing lost, every anchor, every exposure."""

import itertools
import math

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from blurgen.raster import ANCHORS, rasterize, render, taps


def random_path(seed, n, step):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(size=(n, 2)) * step, axis=0) + rng.normal(size=2) * 100


def assert_equal_to_naive(kernel, path, weights, centre, tolerance=1e-6):
    half = len(kernel) // 2
    expected = np.zeros_like(kernel, float)
    for (row, column), mass in naive.kernel(path, weights, centre, half).items():
        if mass > 0:
            expected[row + half, column + half] = mass
    assert np.abs(kernel - expected).max() < tolerance


def assert_is_kernel(kernel, least_side=1):
    assert kernel.dtype == np.float32
    assert kernel.shape[0] == kernel.shape[1] >= least_side
    assert kernel.shape[0] % 2 == 1
    assert np.isfinite(kernel).all()
    assert kernel.min() >= 0
    assert abs(kernel.sum(dtype=float) - 1) < 1e-6


@pytest.mark.parametrize("step", [0.01, 0.3, 4.0])
@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("exposure", [(0.0, 1.0), (0.0, 0.35), (0.123, 0.124), (0.5, 1.0)])
def test_rasterize_equals_exact_splitting(step, anchor, exposure):
    path = random_path(3, 40, step)
    weights = np.random.default_rng(4).random(39)
    kernel, shift = rasterize(path, 9, weights, exposure, anchor)
    assert_is_kernel(kernel, 9)
    seen, spent = naive.exposed(path.tolist(), weights.tolist(), *exposure)
    assert_equal_to_naive(kernel, seen, spent, -shift)


@pytest.mark.parametrize(
    "path",
    [
        [(0, 0), (4, 0), (4, 3), (0, 3), (0, 0)],  # along pixel lines
        [(0.5, 0.5), (3.5, 0.5), (3.5, 3.5)],  # between them
        [(0, 0), (3, 3), (0, 3), (3, 0)],  # through corners
        [(1, 0), (-1, 0), (1, 0), (-1, 0)],
        [(0, 0), (1e-17, 1e-17), (2, 1e-17), (2 + 1e-15, 0)],
    ],
)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_rasterize_is_exact_on_grid_lines(path, anchor):
    kernel, shift = rasterize(path, anchor=anchor)
    assert_is_kernel(kernel)
    assert_equal_to_naive(kernel, path, [1.0] * (len(path) - 1), -shift, 1e-7)


def test_rasterize_of_a_sampled_segment_equals_that_of_the_segment():
    ends = np.array([(0.2, 0.7), (13.9, -5.1)])
    points = ends[0] + np.linspace(0, 1, 500)[:, None] * (ends[1] - ends[0])
    assert np.abs(rasterize(ends)[0] - rasterize(points)[0]).max() < 1e-7


@pytest.mark.parametrize("path", [[(5.3, -2.2)], [(5.3, -2.2)] * 7, [(1e300, 1e300)] * 2])
def test_rasterize_of_rest_is_a_delta(path):
    kernel, shift = rasterize(path, 5)
    assert taps(kernel).offsets.tolist() == [[0, 0]]
    assert shift.tolist() == [-path[0][0], -path[0][1]]


def test_barycentre_anchor_centres_the_mass():
    for seed in range(20):
        path = random_path(seed, 30, 2.0)
        kernel, _ = rasterize(path, exposure=(0.1, 0.8))
        _, (x, y), _ = naive.moments(kernel.tolist())
        assert math.hypot(x, y) < 1e-5


def test_anchors_put_the_named_point_on_the_centre_pixel():
    path, weights = np.array([(0.0, 0.0), (10.0, 2.0), (10.0, 8.0)]), np.array([1.0, 3.0])
    exposure = (0.25, 0.75)
    expected = {"start": (0, 0), "mid-exposure": (10, 4), "bbox": (10, 4), "barycentre": (10, 4)}
    for anchor in ANCHORS:
        _, shift = rasterize(path, weights=weights, exposure=exposure, anchor=anchor)
        assert np.allclose(-shift, expected[anchor])
    assert np.allclose(rasterize(path, weights=weights, anchor="bbox")[1], (-5, -4))
    assert np.allclose(rasterize(path, weights=weights)[1], (-8.75, -4))


def test_exposures_of_one_path_add_up_around_its_start():
    path, weights = random_path(8, 60, 1.0), np.random.default_rng(9).random(59)
    cuts = [0.0, 0.001, 0.1, 0.5, 1.0]
    side = 99
    whole, _ = rasterize(path, side, weights, anchor="start")
    parts = [(b - a) * rasterize(path, side, weights, (a, b), "start")[0] for a, b in itertools.pairwise(cuts)]
    assert np.abs(sum(parts) - whole).max() < 1e-7
    for end, expected in zip(cuts[1:], np.cumsum(parts, axis=0), strict=True):
        assert np.abs(end * rasterize(path, side, weights, (0, end), "start")[0] - expected).max() < 1e-7


def test_time_spent_weighs_the_segments():
    kernel, _ = rasterize([(0, 0), (0, 0), (8, 0), (8, 0)], weights=[3, 0, 1], anchor="start")
    assert taps(kernel).offsets.tolist() == [[0, 0], [0, 8]]
    assert taps(kernel).values.tolist() == [0.75, 0.25]


@pytest.mark.parametrize("anchor", ANCHORS)
def test_support_grows_rather_than_losing_mass(anchor):
    path = random_path(5, 50, 3.0)
    small, shift = rasterize(path, 3, anchor=anchor)
    large, same_shift = rasterize(path, 257, anchor=anchor)
    margin = (257 - len(small)) // 2
    assert_is_kernel(small, 3)
    assert np.array_equal(large[margin:-margin, margin:-margin], small)
    assert large.astype(bool).sum() == small.astype(bool).sum()
    assert np.array_equal(shift, same_shift)


def test_kernels_stay_in_one_piece_on_a_large_support():
    path = random_path(6, 30, 25.0)
    kernel, _ = rasterize(path, 257)
    assert ndimage.label(kernel)[1] == 1


def test_a_far_path_keeps_its_sub_pixel_precision():
    path = np.array([(0.0, 0.0), (3.25, 1.5), (-2.0, 2.75)])
    near, _ = rasterize(path)
    far, shift = rasterize(path + 2.0**40)
    assert np.abs(near - far).max() < 1e-7
    assert abs(shift[0]) > 2.0**39


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.floats(-60, 60)] * 2), min_size=1, max_size=8),
    st.floats(0, 0.9),
    st.floats(1e-6, 0.1),
    st.sampled_from(ANCHORS),
)
def test_any_path_keeps_the_contract(path, start, duration, anchor):
    kernel, shift = rasterize(path, 5, exposure=(start, start + duration), anchor=anchor)
    assert_is_kernel(kernel, 5)
    assert np.isfinite(shift).all()
    if anchor == "barycentre":
        _, (x, y), _ = naive.moments(kernel.tolist())
        assert math.hypot(x, y) < 1e-3


@pytest.mark.parametrize(
    ("weights", "exposure", "ends"),
    [
        ([0, 1, 1], (0, 0.5), (5, 9)),
        ([0, 1, 1], (0.5, 1), (9, 10)),
        ([1, 0, 1], (0, 0.5), (0, 5)),
        ([1, 0, 1], (0.5, 1), (9, 10)),
        ([1, 1, 0], (0.5, 1), (5, 9)),
        ([1e-200, 1e200, 1e200], (0, 0.5), (5, 9)),
        ([1e-200, 1e200, 1e-200], (0, 1e-320), (5, 5)),
    ],
)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_an_exposure_sees_only_the_segments_that_take_time(weights, exposure, ends, anchor):
    kernel, shift = rasterize([(0, 0), (5, 0), (9, 0), (10, 0)], None, weights, exposure, anchor)
    assert_equal_to_naive(kernel, [(ends[0], 0), (ends[1], 0)], [1.0], -shift)


@pytest.mark.parametrize("weights", [[1, 0], [0, 1]])
def test_mid_exposure_may_lie_on_a_jump(weights):
    for exposure in [(1 - 2**-53, 1), (0, math.ulp(0.0))]:
        _, shift = rasterize([(0, 0), (5, 0), (9, 0)], None, weights, exposure, "mid-exposure")
        assert 0 <= -shift[0] <= 9


_FRACTIONS = st.one_of(st.sampled_from([0.0, math.ulp(0.0), 0.25, 0.5, 1 - 2**-53, 1.0]), st.floats(0, 1))
_WEIGHTS = st.one_of(st.sampled_from([0.0, math.ulp(0.0), 1e-200, 1.0, 1e200, 1.7e308]), st.floats(0, 1e308))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(_WEIGHTS, *[st.floats(-60, 60)] * 2), min_size=1, max_size=7).filter(
        lambda rows: any(row[0] for row in rows)
    ),
    st.tuples(_FRACTIONS, _FRACTIONS).filter(lambda pair: pair[0] != pair[1]),
    st.sampled_from(ANCHORS),
)
def test_any_weights_and_exposure_give_a_kernel(rows, exposure, anchor):
    weights, xs, ys = zip(*rows, strict=True)
    path = [(0.0, 0.0), *zip(xs, ys, strict=True)]
    kernel, shift = rasterize(path, 3, weights, sorted(exposure), anchor)
    assert_is_kernel(kernel, 3)
    assert np.isfinite(shift).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, 1e6])
@pytest.mark.parametrize("where", [(0, 0), (1, 0), (0, 1), (1, 2)])
def test_the_compiled_loop_ends_on_any_path(bad, where):
    path = np.zeros((2, 3))
    path[where] = bad
    with pytest.raises(ValueError, match="at most 16385 px wide"):
        render(path, np.full(2, 0.5), 0.0, 0.0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": []}, r"shape \(n, 2\)"),
        ({"path": np.empty((0, 2))}, r"shape \(n, 2\)"),
        ({"path": [(0, 0, 0)]}, r"shape \(n, 2\)"),
        ({"path": [0, 1]}, r"shape \(n, 2\)"),
        ({"path": [(0, 0), (math.nan, 0)]}, "NaN or infinity"),
        ({"path": [(math.nan, 0), (0, 0)]}, "NaN or infinity"),
        ({"path": [(0, 0), (0, math.inf)]}, "NaN or infinity"),
        ({"path": [(0, 0), (0, -math.inf)]}, "NaN or infinity"),
        ({"path": [(0, 0), (0, 20000)]}, "within 16385 px"),
        ({"path": [(-1e308, 0), (1e308, 0)]}, "within 16385 px"),
        ({"side_px": 4}, "positive odd number, got 4"),
        ({"side_px": -1}, "positive odd number, got -1"),
        ({"side_px": 3.5}, "positive odd number, got 3.5"),
        ({"side_px": 20001}, "at most 16385"),
        ({"weights": [1, 2]}, r"shape \(1,\), got \(2,\)"),
        ({"weights": [-1]}, "non-negative"),
        ({"weights": [0]}, "non-negative"),
        ({"weights": [math.nan]}, "non-negative"),
        ({"weights": [math.inf]}, "non-negative"),
        ({"exposure": (0.5, 0.5)}, "start < end"),
        ({"exposure": (-0.1, 0.5)}, "start < end"),
        ({"exposure": (0.1, 1.5)}, "start < end"),
        ({"exposure": (0, math.nan)}, "start < end"),
        ({"anchor": "middle"}, "barycentre, mid-exposure, start, bbox, got 'middle'"),
    ],
)
def test_rasterize_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        rasterize(**{"path": [(0, 0), (1, 1)], **arguments})


def test_huge_weights_are_relative():
    path = [(0, 0), (4, 0), (4, 4)]
    assert np.array_equal(rasterize(path, weights=[1e308, 1e308])[0], rasterize(path)[0])


def test_taps_are_the_kernel():
    kernel, _ = rasterize(random_path(1, 20, 1.0), 15)
    offsets, values = taps(kernel)
    again = np.zeros_like(kernel)
    again[offsets[:, 0] + len(kernel) // 2, offsets[:, 1] + len(kernel) // 2] = values
    assert np.array_equal(again, kernel)
    assert (values > 0).all()
    assert offsets.tolist() == sorted(offsets.tolist())


def test_taps_refuse_what_is_no_kernel():
    with pytest.raises(ValueError, match=r"odd side, got shape \(4, 4\)"):
        taps(np.zeros((4, 4)))


def test_callers_arrays_are_not_changed():
    path, weights = random_path(2, 10, 1.0), np.ones(9)
    path.flags.writeable = weights.flags.writeable = False
    before = path.copy()
    rasterize(path, weights=weights, exposure=(0.2, 0.7))
    assert np.array_equal(path, before)
