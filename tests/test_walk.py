"""The random walks: their numbers, the paths against plain Python, and the laws that they must follow."""

import math

import naive
import numba
import numpy as np
import pytest
from scipy import stats

from blurgen.kernels import draw_kernels
from blurgen.kernels.chain import fill_paths
from blurgen.kernels.noise import cos_sin, fill_normals, key_of, log, uniform, word
from blurgen.kernels.smooth_walk import SmoothWalk
from blurgen.kernels.walk import Walk
from blurgen.rng import stream

COMPILED = not numba.config.DISABLE_JIT


@pytest.fixture(autouse=True)
def _integers_wrap_around():
    with np.errstate(over="ignore"):  # what compiled code does without a word
        yield


def paths(model, n, seed=0):
    """Return n paths (n, 2, samples) of a model by the compiled loop alone."""
    chains = np.array([model.draw_chain(stream(seed, i))[0] for i in range(n)])
    filled = np.empty((n, 2, model.samples))
    fill_paths(chains, filled)
    return filled


def normals(n, key=123456789):
    first, second = np.empty(n), np.empty(n)
    fill_normals(np.uint64(key), 1.0, first, second)
    return first, second


def end_to_end(filled):
    return np.hypot(*(filled[:, :, -1] - filled[:, :, 0]).T)


# the sampler


@pytest.mark.parametrize("key", [0, 1, 2**53 - 1, 2**64 - 1])
def test_uniform_numbers_equal_the_plain_hash(key):
    for index in (0, 1, 2, 3, 1000, 2**40, 2**63):
        assert int(word(np.uint64(key), np.uint64(index))) == naive.word(key, index)
        assert uniform(np.uint64(key), np.uint64(index)) == naive.uniform(key, index)


def test_uniform_numbers_are_splitmix64():
    """The outputs 1 and 2 of the seed 1234567 are those that the authors of the generator publish."""
    assert int(word(np.uint64(1234567), np.uint64(1))) == 6457827717110365317
    assert int(word(np.uint64(1234567), np.uint64(2))) == 3203168211198807973


def test_keys_hold_64_bits():
    assert int(key_of(0.0, 0.0)) == 0
    assert int(key_of(1 - 2**-53, 0.0)) == 2**64 - 2**11
    for numbers in np.random.default_rng(0).random((50, 2)):
        assert int(key_of(*numbers)) == naive.key_of(*numbers)


def test_log_is_the_logarithm():
    numbers = np.concatenate((np.random.default_rng(0).random(500), 2.0 ** -np.arange(54), [1 - 2**-53, 0.5, 1.0]))
    for number in numbers:
        assert log(number) == pytest.approx(math.log(number), rel=1e-15, abs=0)


def test_cos_sin_are_cosine_and_sine():
    for turns in np.concatenate((np.linspace(-2, 2, 65), np.random.default_rng(1).uniform(-2, 2, 500))):
        cosine, sine = cos_sin(turns)
        assert abs(cosine - math.cos(2 * math.pi * turns)) < 1e-14
        assert abs(sine - math.sin(2 * math.pi * turns)) < 1e-14


def test_normal_numbers_equal_plain_box_muller():
    first, second = normals(300, 2**63 + 77)
    expected = [naive.normal_pair(2**63 + 77, step) for step in range(300)]
    assert np.allclose(first + 1j * second, expected, rtol=0, atol=1e-13)


def test_normal_numbers_are_normal():
    numbers = np.concatenate(normals(500_000 if COMPILED else 5_000))
    n = numbers.size
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    for order, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(np.mean(numbers**order) - moment) < 4 * math.sqrt(variance / n)
    for limit in (1.0, 2.0, 3.0, 4.0):
        expected = n * 2 * stats.norm.sf(limit)
        assert abs(np.sum(np.abs(numbers) > limit) - expected) < 4 * math.sqrt(expected) + 1


def test_normal_numbers_are_independent_over_steps_axes_and_keys():
    n = 200_000 if COMPILED else 4_000
    first, second = normals(n)
    others = [normals(n, key) for key in (123456788, 123456791, 123456789 + 2**62)]
    limit = 4.5 / math.sqrt(n)
    for lag in (1, 2, 3, 4, 8, 16, 64):
        assert abs(np.mean(first[lag:] * first[:-lag])) < limit
        assert abs(np.mean(first[lag:] * second[:-lag])) < limit
        assert abs(np.mean((first[lag:] ** 2 - 1) * (second[:-lag] ** 2 - 1))) < 2 * limit
    assert abs(np.mean(first * second)) < limit
    assert abs(np.mean((first**2 - 1) * (second**2 - 1))) < 2 * limit
    for other in others:
        assert abs(np.mean(first * other[0])) < limit
        assert abs(np.mean(second * other[1])) < limit
        assert abs(np.mean((first**2 - 1) * (other[0] ** 2 - 1))) < 2 * limit


def test_numbers_of_one_step_over_many_streams_are_uniform():
    chains = np.array([Walk().draw_chain(stream(3, i))[0] for i in range(4000 if COMPILED else 400)])
    for index in (0, 1, 777):
        numbers = [naive.uniform(naive.key_of(row[6], row[7]), index) for row in chains]
        assert stats.kstest(numbers, "uniform").pvalue > 1e-3


# the paths against plain Python

WALKS = [
    {},
    {"anxiety": 0.0},
    {"anxiety": 0.005},
    {"anxiety": 1.0},
    {"anxiety": 0.3, "shake_rate": 1.0},
    {"anxiety": 1.0, "shake_rate": 1.0},
    {"anxiety": 0.01, "gaussian": 0.0, "centripetal": 0.0},
    {"anxiety": 0.05, "gaussian": 1.0, "centripetal": 20.0, "shake_rate": 0.0},
    {"length_px": 1e-9, "anxiety": 0.01},
    {"length_px": 500.0, "anxiety": 0.1, "centripetal": 0.0},
]


@pytest.mark.parametrize("settings", WALKS)
@pytest.mark.parametrize("samples", [2, 3, 400])
def test_walk_equals_plain_python_sample_for_sample(settings, samples):
    model = Walk(samples=samples, **settings)
    for i in range(4):
        path = model.path(stream(1, i))
        expected = naive.walk_path(stream(1, i), samples, **{"length_px": 60.0, **settings})
        assert np.abs(path @ (1, 1j) - expected).max() < 1e-9 * max(model.length_px, 1)


@pytest.mark.parametrize("persistence_px", [5.0, 50.0, 1e4])
@pytest.mark.parametrize("shakes", [0.0, 5.0])
@pytest.mark.parametrize("pull", [0.0, 0.05])
def test_smooth_walk_equals_plain_python_sample_for_sample(persistence_px, shakes, pull):
    settings = {"length_px": 40.0, "persistence_px": persistence_px, "shakes": shakes, "pull": pull}
    path = SmoothWalk(samples=500, **settings).path(stream(2, 0))
    expected = naive.smooth_walk_path(stream(2, 0), 500, **settings)
    assert np.abs(path @ (1, 1j) - expected).max() < 1e-9


def test_lanes_do_not_influence_each_other():
    model = Walk(samples=300, anxiety=(0.01, 0.5))
    together = paths(model, 37)
    for i in (0, 1, 31, 36):
        assert np.array_equal(together[i].T, model.path(stream(0, i)))


def test_params_record_what_was_drawn():
    drawn = Walk(samples=50).trajectory(stream(4, 0)).params
    numbers = stream(4, 0).random(8)
    assert drawn["anxiety"] == 0.1 * numbers[0]
    assert drawn["centripetal"] == 0.7 * numbers[1]
    assert drawn["gaussian"] == 10 * numbers[2]
    assert drawn["shake_rate"] == 0.2 * numbers[3]
    assert drawn["heading_deg"] == 360 * numbers[4]
    again = Walk(samples=50, **{name: drawn[name] for name in ("anxiety", "centripetal", "gaussian", "shake_rate")})
    assert np.array_equal(again.path(stream(4, 0)), Walk(samples=50).path(stream(4, 0)))


def test_zoom_lengthens_and_calms():
    model = Walk(samples=50, anxiety=(0.01, 0.005), zoom=(2.5, 10.0))
    seen = set()
    for i in range(40):
        path, _, params = model.trajectory(stream(5, i))
        zoom = params["length_px"] / 60
        assert np.hypot(*np.diff(path, axis=0).T).sum() == pytest.approx(60 * zoom)
        seen.add((zoom, round(params["anxiety"] * zoom, 9)))
    assert seen == {(2.5, 0.01), (2.5, 0.005), (10.0, 0.01), (10.0, 0.005)}


# the laws


@pytest.mark.parametrize("model", [Walk(anxiety=0.01), Walk(anxiety=1.0), SmoothWalk(persistence_px=5)])
def test_arc_length_is_exact(model):
    for path in paths(model, 5):
        assert np.hypot(*np.diff(path)).sum() == pytest.approx(60, rel=1e-12)


@pytest.mark.parametrize("length_px", [5.0, 31.0, 60.0])
def test_no_anxiety_gives_a_segment_of_the_known_width(length_px):
    model = Walk(length_px=length_px, anxiety=0.0, samples=100)
    path = model.path(stream(6, 0))
    fraction = np.linspace(0, 1, 100)[:, None]
    assert np.allclose(path, fraction * path[-1], atol=1e-12)
    weights = np.full(99, 1 / 99)
    middles = (path[1:] + path[:-1]) / 2
    steps = np.diff(path, axis=0)
    covariance = np.cov(middles.T, aweights=weights, bias=True) + np.mean(steps[:, :, None] * steps[:, None], 0) / 12
    assert math.sqrt(np.linalg.eigvalsh(covariance)[1]) == pytest.approx(length_px / math.sqrt(12), rel=1e-9)
    _, _, (minor, major) = naive.moments(model.draw(stream(6, 0)).tolist())
    assert major == pytest.approx(math.hypot(length_px / math.sqrt(12), math.sqrt(1 / 6)), rel=0.02)
    assert minor < 0.6


WORM_LIKE = [(2000, 0.005, 5), (2000, 0.005, 10), (2000, 0.01, 5), (1000, 0.005, 5), (4000, 0.005, 5), (500, 0.005, 5)]


def worm_like_mean_square(length_px, persistence_px):
    ratio = persistence_px / length_px
    return 2 * ratio * length_px**2 * (1 - ratio * (1 - math.exp(-1 / ratio)))


@pytest.mark.skipif(not COMPILED, reason="20,000 trajectories need the compiled loop")
@pytest.mark.parametrize(("samples", "anxiety", "gaussian"), WORM_LIKE)
def test_walk_follows_the_worm_like_chain(samples, anxiety, gaussian):
    model = Walk(samples=samples, anxiety=anxiety, gaussian=gaussian, centripetal=0.0, shake_rate=0.0)
    square = np.concatenate([end_to_end(paths(model, 1000, seed)) ** 2 for seed in range(20)])
    persistence_px = 2 * 60 / (samples - 1) / (anxiety * gaussian) ** 2
    assert square.mean() == pytest.approx(worm_like_mean_square(60, persistence_px), rel=0.02)


@pytest.mark.parametrize("samples", [302, 2000])
@pytest.mark.parametrize("persistence_px", [10.0, 60.0])
def test_smooth_walk_follows_the_worm_like_chain_for_any_samples(samples, persistence_px):
    n, tolerance = (20_000, 0.02) if COMPILED else (60, 0.4)
    if not COMPILED and samples > 302:
        pytest.skip("slow without the compiler")
    model = SmoothWalk(samples=samples, persistence_px=persistence_px, pull=0.0, shakes=0.0)
    square = np.mean([end_to_end(paths(model, n // 20, seed)) ** 2 for seed in range(20)])
    assert square == pytest.approx(worm_like_mean_square(60, persistence_px), rel=tolerance)


@pytest.mark.skipif(not COMPILED, reason="thousands of trajectories need the compiled loop")
def test_smooth_walk_with_pull_and_shakes_has_the_same_law_for_any_samples():
    coarse, fine = (
        end_to_end(paths(SmoothWalk(samples=samples, persistence_px=30.0, pull=0.02, shakes=2.0), 6000, seed))
        for samples, seed in ((200, 1), (2400, 2))
    )
    assert stats.ks_2samp(coarse, fine).pvalue > 1e-3
    assert coarse.mean() == pytest.approx(fine.mean(), rel=0.03)


def test_half_the_samples_double_the_persistence_of_the_original_only():
    def kick_per_px(model):
        chain, _ = model.draw_chain(stream(0, 0))
        return chain.kick**2 / chain.step_px

    original = [kick_per_px(Walk(anxiety=0.005, gaussian=5.0, samples=samples)) for samples in (1001, 2001)]
    smooth = [kick_per_px(SmoothWalk(samples=samples)) for samples in (1001, 2001)]
    assert original[1] / original[0] == pytest.approx(2)
    assert smooth[1] / smooth[0] == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("rate", [1 / 1999, 0.05])
def test_shakes_are_as_frequent_and_as_abrupt_as_said(rate):
    """A shake turns the heading by pi + u about its double: seen as turns of a path without any other turn."""
    n, samples = (400, 2000) if COMPILED else (6, 300)
    model = Walk(anxiety=1.0, gaussian=0.0, centripetal=0.0, shake_rate=rate, samples=samples)
    steps = np.diff(paths(model, n))
    headings = np.arctan2(steps[:, 1], steps[:, 0])
    turns = np.abs((np.diff(headings) + math.pi) % (2 * math.pi) - math.pi)
    count = np.sum(turns > 1)
    expected = n * (samples - 2) * rate
    assert abs(count - expected) < 4 * math.sqrt(expected) + 1
    # 1 + 2 exp(i (pi + u)), |u| <= 1/2, has the argument of -1 turned by at most 1.027 rad
    assert turns[turns > 1e-6].min() > math.pi - 1.03


def test_pull_is_towards_the_start():
    free = Walk(anxiety=0.005, gaussian=5.0, centripetal=0.0, shake_rate=0.0, samples=500)
    pulled = Walk(anxiety=0.005, gaussian=5.0, centripetal=0.7, shake_rate=0.0, samples=500)
    n = 200 if COMPILED else 5
    distance = [np.hypot(*np.moveaxis(paths(model, n), 1, 0)).mean() for model in (free, pulled)]
    assert distance[1] < 0.5 * distance[0]
    circles = SmoothWalk(length_px=40, persistence_px=100, shakes=0.0, pull=1.0, samples=500)
    assert np.abs(paths(circles, n)).max() < 4


@pytest.mark.skipif(not COMPILED, reason="a thousand trajectories need the compiled loop")
@pytest.mark.parametrize(
    ("length_px", "anxiety", "minor", "major", "area"),
    [(60, 0.005, 2.43, 5.15, 71), (60, 0.05, 0.97, 1.36, 15), (30, 0.005, 1.38, 3.72, 36)],
)
def test_walk_kernels_have_the_size_of_the_original_ones(length_px, anxiety, minor, major, area):
    """Medians of kernels drawn by an independent implementation."""
    kernels = draw_kernels(Walk(length_px=length_px, anxiety=anxiety), 500, seed=5)
    sigmas = np.median([naive.moments(kernel)[2] for kernel in kernels], axis=0)
    assert sigmas == pytest.approx([minor, major], rel=0.1)
    assert np.median(1 / np.sum(kernels.astype(float) ** 2, axis=(1, 2))) == pytest.approx(area, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_px": -1.0}, "length_px must be in"),
        ({"length_px": math.nan}, "length_px must be in"),
        ({"length_px": None}, "length_px must be in"),
        ({"length_px": (60.0, 30.0)}, "length_px must be in"),
        ({"anxiety": 1.5}, r"anxiety must be in \[0, 1\], or several such numbers to draw from, got 1.5"),
        ({"anxiety": (0.1, -0.1)}, "anxiety must be in"),
        ({"anxiety": ()}, "anxiety must be in"),
        ({"anxiety": "high"}, "anxiety must be in"),
        ({"anxiety": 0.5, "zoom": 0.1}, "give a smaller anxiety"),
        ({"gaussian": math.inf}, "gaussian must be in"),
        ({"centripetal": -1.0}, "centripetal must be in"),
        ({"shake_rate": 1.1}, "shake_rate must be in"),
        ({"samples": 1}, "samples must be a whole number from 2 to 1,000,000, got 1"),
        ({"samples": 1_000_001}, "samples must be a whole number from 2 to 1,000,000"),
        ({"samples": 2.5}, "samples must be a whole number"),
        ({"side_px": 64}, "side_px must be a positive odd number, got 64"),
    ],
)
def test_walk_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        Walk(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"persistence_px": 0.0}, "persistence_px must be in"),
        ({"shakes": 5000.0}, "shakes must be in"),
        ({"persistence_px": 0.1}, "samples must be at least 30001"),
        ({"pull": 1e4}, "samples must be at least 20001"),
    ],
)
def test_smooth_walk_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        SmoothWalk(**settings)
