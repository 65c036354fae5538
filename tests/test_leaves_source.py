"""The drawn scenes: the statistics of photographs, an inverse cube law of sizes, and bytes fixed by seed and index."""

import hashlib
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest

from blurgen.sources import BadImage, Entry
from blurgen.sources.leaves import LeavesSource
from blurgen.sources.scenes import scene
from blurgen.sources.scenes.materials import BLOB, BOX, ELLIPSE, LENS, MATERIALS, POLYGON, SETTINGS, TWIG
from blurgen.sources.scenes.paint import LEAF, paint_leaves

# The 10th and 90th percentile over the 200 training images of BSDS500, by light.
BSDS500_RANGE = {
    "encoded": {"slope": (-2.75, -1.87), "kurtosis": (7.9, 38.9)},
    "linear": {"slope": (-2.77, -1.82), "kurtosis": (11.4, 79.0)},
}


def _luma(image, light):
    """Return Rec. 601 luma of the encoded values, or Rec. 709 luminance of linear light, (h, w) float64."""
    if light == "encoded":
        return image @ np.array([0.299, 0.587, 0.114])
    v = np.arange(256) / 255
    table = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    return table[image] @ np.array([0.2126, 0.7152, 0.0722])


def _spectral_slope(gray):
    """Return the exponent of the radially averaged power spectrum of the central square, 1/80 to 0.4 cycles a pixel."""
    n = min(gray.shape) // 64 * 64  # a fast length for the transform
    top, left = ((side - n) // 2 for side in gray.shape)
    square = gray[top : top + n, left : left + n]
    window = np.hanning(n)
    power = np.abs(np.fft.fft2((square - square.mean()) * np.outer(window, window))) ** 2
    f = np.fft.fftfreq(n)
    edges = np.geomspace(1 / 80, 0.4, 17)
    ring = np.digitize(np.hypot(f[:, None], f).ravel(), edges)
    mean = [power.ravel()[ring == i].mean() for i in range(1, 17)]
    return np.polyfit(np.log(edges[1:] * edges[:-1]) / 2, np.log(mean), 1)[0]


def _gradient_kurtosis(gray):
    """Return the fourth standardised moment (3 for a Gaussian) of differences between neighbours."""
    d = np.concatenate([np.diff(gray, axis=axis).ravel() for axis in (0, 1)])
    d -= d.mean()
    squares = d * d
    return (squares * squares).mean() / squares.mean() ** 2


STATISTICS = {"slope": _spectral_slope, "kurtosis": _gradient_kurtosis}


def _scene(index, **settings):
    return LeavesSource(**settings).read(f"leaves/{index:06}").sharp


@pytest.fixture(scope="module")
def scenes():
    return [_scene(i) for i in range(20)]


# Statistics


@pytest.mark.parametrize("light", BSDS500_RANGE)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_scenes_have_the_statistics_of_photographs(scenes, light, statistic):
    low, high = BSDS500_RANGE[light][statistic]
    values = [STATISTICS[statistic](_luma(image, light)) for image in scenes]
    assert low < np.median(values) < high
    # in a range that holds 80 % of the photographs lie at least 80 % of the scenes
    assert np.mean([low < value < high for value in values]) >= 0.8


@pytest.mark.slow
def test_range_of_photographs_is_that_of_bsds500(data_root):
    paths = sorted((data_root / "bsds500").rglob("*.jpg"))
    if len(paths) < 200:
        pytest.skip("not all training images of BSDS500 are here")
    images = [cv2.imread(str(path))[..., ::-1] for path in paths]
    for light, ranges in BSDS500_RANGE.items():
        grays = [_luma(image, light) for image in images]
        for statistic, measure in STATISTICS.items():
            measured = np.percentile([measure(gray) for gray in grays], [10, 90])
            np.testing.assert_allclose(measured, ranges[statistic], rtol=0.01)


def test_slope_of_a_known_spectrum_is_found():
    rng = np.random.default_rng(0)
    f = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512))
    f[0, 0] = np.inf
    gray = np.fft.ifft2(np.fft.fft2(rng.normal(size=(512, 512))) / f).real
    assert _spectral_slope(gray) == pytest.approx(-2, abs=0.05)
    assert _gradient_kurtosis(gray) == pytest.approx(3, abs=0.1)


def test_radii_follow_the_inverse_cube_law():
    radii = np.concatenate([scene._draw_radii(np.random.default_rng(i), 4096, 4096) for i in range(4)])
    r = np.sort(radii[(radii > 3) & (radii < 40)])
    # the survival function of r^-3 falls as r^-2; things beside a scene are fewer than 2 % of it at these sizes
    survival = (r**-2.0 - 40**-2.0) / (3**-2.0 - 40**-2.0)
    np.testing.assert_allclose(1 - np.arange(len(r)) / len(r), survival, atol=0.01)


def test_exposure_stays_within_bounds(scenes):
    for image in scenes:
        assert 0.1 < _luma(image, "linear").mean() < 0.3
        assert (image == 255).mean() < 0.1
        assert (image.max(axis=2) < 4).mean() < 0.1


# Painting


def _painted(leaves, side=64, colour=(1.0, 0.5, 0.25)):
    """Paint plain leaves of one colour onto black; return linear light, clearness and light left."""
    leaves["colour"] = leaves["other"] = colour
    leaves["softness"] = 1
    linear, clear, lit = np.zeros((side, side, 3), np.float32), *np.ones((2, side, side), np.float32)
    outlines = np.zeros((len(leaves), 6, 3), np.float32)
    outlines[..., 0], outlines[..., 1] = np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)
    outlines[leaves["shape"] == BLOB] = 0
    outlines[..., 2] = 0.8
    paint_leaves(linear, clear, lit, leaves, outlines, scene.surface_tiles(), np.array([0.0, 1.0]))
    return linear, clear, lit


def _leaf(shape, aspect=0.5, **fields):
    leaf = np.zeros(1, LEAF)
    for name, value in {"x": 31.3, "y": 30.6, "radius": 20, "aspect": aspect, "cos": 0.8, "sin": 0.6, **fields}.items():
        leaf[name] = value
    leaf["shape"] = shape
    return leaf


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (ELLIPSE, np.pi * 20 * 10),
        (BOX, 40 * 20 - (4 - np.pi) * 2.5**2),
        (TWIG, 40 * 20 - (4 - np.pi) * 2.5**2),
        (LENS, 8 / 3 * 20 * 10),
        (POLYGON, 2 * np.sqrt(3) * 16**2),
        (BLOB, np.pi * 16**2),
    ],
)
def test_coverage_sums_to_the_area_of_the_shape(shape, area):
    _, clear, _ = _painted(_leaf(shape))
    assert (1 - clear).sum() == pytest.approx(area, rel=0.02)


def test_edges_are_anti_aliased():
    _, clear, _ = _painted(_leaf(ELLIPSE))
    partial = (clear > 0.02) & (clear < 0.98)
    circumference = 2 * np.pi * np.sqrt((20**2 + 10**2) / 2)
    assert partial.sum() == pytest.approx(circumference, rel=0.35)


def test_front_hides_what_lies_behind():
    both = np.concatenate([_leaf(ELLIPSE, 1), _leaf(ELLIPSE, 1)])
    front, clear, _ = _painted(_leaf(ELLIPSE, 1))
    linear, _, _ = _painted(both)
    np.testing.assert_array_equal(linear[clear < 1e-3], front[clear < 1e-3])


def test_coverage_and_light_add_up():
    linear, clear, _ = _painted(_leaf(BLOB), colour=(1, 1, 1))
    np.testing.assert_allclose(linear, np.repeat((1 - clear)[..., None], 3, 2), atol=1e-6)


def test_shadow_falls_away_from_the_light_and_leaves_the_leaf_itself():
    _, clear, lit = _painted(_leaf(ELLIPSE, 1, shadow=0.5, drop=6))
    assert lit.min() == pytest.approx(0.5, abs=0.01)
    rows = np.arange(64)
    shade = 1 - lit
    assert (shade.sum(1) * rows).sum() / shade.sum() > 36
    assert (lit[clear == 1] < 0.95).any()


def test_settings_name_known_materials():
    assert {name for together in SETTINGS for name in together} == set(MATERIALS)


# The source


def test_entries_are_keys_in_order_each_its_own_group():
    assert LeavesSource().entries(2) == [Entry(f"leaves/00000{i}", f"leaves/00000{i}", "train") for i in range(2)]
    assert len(LeavesSource().entries()) == 1000


def test_scene_has_the_announced_size_and_the_digest_of_its_pixels():
    source = LeavesSource(width=200, height=120)
    picture = source.read("leaves/000003")
    assert picture.sharp.shape == (120, 200, 3)
    assert picture.sharp.dtype == np.uint8
    assert picture.blurred is None
    assert source.size("leaves/000003") == (200, 120)
    assert picture.sha256 == hashlib.sha256(picture.sharp.tobytes()).digest()


@pytest.mark.slow
def test_same_scene_in_a_fresh_process_and_in_any_order():
    source = pickle.loads(pickle.dumps(LeavesSource(seed=5)))
    digests = [source.read(f"leaves/{i:06}").sha256.hex() for i in (4, 0)]
    script = (
        "from blurgen.sources.leaves import LeavesSource as L\n"
        "print(*[L(seed=5).read(f'leaves/{i:06}').sha256.hex() for i in (0, 4)])"
    )
    fresh = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert fresh == digests[::-1]


def test_scenes_differ_by_seed_and_index(scenes):
    assert len({image.tobytes() for image in [*scenes, _scene(0, seed=1)]}) == len(scenes) + 1


@pytest.mark.parametrize("key", ["leaves/x", "text/000001", "leaves/", "000001"])
def test_unknown_key_is_refused(key):
    with pytest.raises(BadImage, match="keys of this source read like leaves/000012"):
        LeavesSource().read(key)


@pytest.mark.parametrize("settings", [{"width": 63}, {"height": 8193}])
def test_size_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match="of a scene must be 64 to 8192 pixels"):
        LeavesSource(**settings)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 700), (900, 70)])
def test_scenes_of_other_sizes_are_drawn(width, height):
    image = _scene(1, width=width, height=height)
    assert image.shape == (height, width, 3)
    assert image.std() > 10


def test_surface_tiles_are_the_same_for_every_scene():
    assert scene.surface_tiles() is scene.surface_tiles()
    assert np.abs(scene.surface_tiles()).max() <= 1
