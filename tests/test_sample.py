"""One sample: crops, scales, alignment, and the identity between blurred and sharp."""

import numpy as np
import pytest
from photos import photo
from PIL import Image

from blurgen import blur, kernel_model
from blurgen.imaging import noise_model, response
from blurgen.resample import resample
from blurgen.rng import stream
from blurgen.sample import Box, CropRule, Look, TooSmall, cut, reduce_area, render

SRGB = response("srgb")


def streams(index=0):
    return lambda purpose: stream(7, "key", index, purpose)


def look_of(rule, length_px=12.0, **fields):
    model = kernel_model("walk", length_px=length_px, anxiety=0.01, side_px=3)
    side = 2 * int((model.reach_px() * rule.largest_scale() + 3) // 2) + 1
    return Look(rule, model, side, **fields)


RULES = {
    "own scale": CropRule(48),
    "random scale": CropRule(48, scale_mean=48, scale_std=20),
    "reduced first": CropRule(48, resize_short=60),
    "enlarged": CropRule(80, small="scale"),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("index", range(4))
def test_interior_of_blurred_is_sharp_convolved_with_kernel_bit_for_bit(rule, index):
    look = look_of(rule)
    image = photo(index, 70, 110) if rule.small == "scale" else photo(index)
    (sample,) = render(image, None, look, streams(index))
    margin = look.kernel_side // 2
    inside = slice(margin, rule.crop - margin)
    expected = blur(sample.images["sharp"], sample.kernel)
    assert np.array_equal(expected[inside, inside], sample.images["blurred"][inside, inside])


def test_border_of_a_crop_is_blurred_with_what_the_image_shows_there():
    image = photo(1)
    look = look_of(CropRule(48))
    (sample,) = render(image, None, look, streams())
    y, x = int(sample.box.y), int(sample.box.x)
    whole = blur(image, sample.kernel)
    assert np.array_equal(whole[y : y + 48, x : x + 48], sample.images["blurred"])
    assert np.array_equal(image[y : y + 48, x : x + 48], sample.images["sharp"])


def test_crop_as_large_as_the_image_is_mirrored_at_its_border():
    image = photo(2, 48, 48)
    (sample,) = render(image, None, look_of(CropRule(48), length_px=120.0), streams())
    assert np.array_equal(blur(image, sample.kernel), sample.images["blurred"])


@pytest.mark.parametrize("factor", [2, 4])
def test_low_resolution_is_the_area_average_in_linear_light(factor):
    (sample,) = render(photo(3), None, look_of(CropRule(48), lowres=(factor,)), streams())
    for side in ("sharp", "blurred"):
        image = sample.images[side].astype(np.float64) / 255
        light = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
        mean = np.zeros((48 // factor, 48 // factor, 3))
        for y in range(factor):
            for x in range(factor):
                mean += light[y::factor, x::factor] / factor**2
        encoded = np.where(mean <= 0.0031308, 12.92 * mean, 1.055 * mean ** (1 / 2.4) - 0.055)
        assert np.abs(sample.images[f"{side}_x{factor}"] - 255 * encoded).max() <= 0.5 + 1e-3


def test_low_resolution_has_no_phase_shift():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 2, (64, 1, 3))
    reduced = reduce_area(ramp, 2, response("linear"))
    assert np.array_equal(reduced[0, :, 0], np.floor(np.arange(0.5, 63, 2) * 2 + 0.5))


def test_scaled_crop_keeps_positions():
    """A linear ramp in linear light keeps its values at the centres of the output pixels."""
    ramp = np.tile(np.linspace(20, 220, 128)[None, :, None], (128, 1, 3)).round().astype(np.uint8)
    out = cut(ramp, Box(31.3, 30.7, 60.0), 40, 0, response("linear"))
    centres = 30.7 + (np.arange(40) + 0.5) * 1.5 - 0.5
    assert np.abs(out[20, :, 0] - np.interp(centres, np.arange(128), ramp[0, :, 0])).max() < 1.0


@pytest.mark.parametrize("box", [Box(20.25, 31.7, 55.0), Box(11.1, 13.3, 27.9)], ids=["reduced", "enlarged"])
def test_scaled_crop_does_not_depend_on_its_context(box):
    image = photo(11)
    narrow, wide = (cut(image, box, 40, margin, SRGB)[margin:-margin, margin:-margin] for margin in (3, 29))
    assert np.array_equal(narrow, wide)


@pytest.mark.parametrize("box", [Box(20.25, 31.7, 55.0), Box(11.1, 13.3, 27.9)], ids=["reduced", "enlarged"])
def test_scaled_crop_is_that_of_pillow(box):
    plane = response("linear").to_linear(photo(12)[..., :1])
    pillow = Image.fromarray(plane[..., 0]).resize(
        (40, 40), Image.Resampling.BICUBIC, (box.x, box.y, box.x + box.side, box.y + box.side)
    )
    ours = resample(plane, (0, 0), (box.y, box.x), box.side / 40, 0, 40)
    assert np.abs(ours[..., 0] - np.asarray(pillow)).max() < 1e-5


def test_boxes_of_reduced_images_stay_inside():
    rule = CropRule(50, resize_short=100)
    for width in range(174, 260):
        box = max((rule.draw(173, width, stream(0, index)) for index in range(40)), key=lambda drawn: drawn.x)
        assert box.x + box.side <= width + 1e-6


def test_mean_light_survives_scaling():
    image = np.zeros((128, 128, 3), np.uint8)
    image[::2] = 255
    out = SRGB.to_linear(cut(image, Box(20, 20, 80.0), 20, 0, SRGB))
    assert abs(out.mean() - 0.5) < 0.01


def test_trajectory_scales_with_the_crop():
    drawn = [render(photo(4), None, look_of(CropRule(48, 48, 15)), streams(index))[0] for index in range(6)]
    for sample in drawn:
        assert sample.scale == pytest.approx(48 / sample.box.side)
        assert sample.length_px == pytest.approx(12 * sample.scale)
    assert len({sample.box.side for sample in drawn}) > 3


def test_sides_of_random_scale_crops_follow_the_clipped_normal_law():
    rule = CropRule(256, 256, 100)
    sides = np.array([rule.draw(720, 1280, stream(0, index)).side for index in range(4000)])
    assert sides.min() == 128
    assert sides.max() <= 720
    rng = np.random.default_rng(0)
    expected = np.clip(rng.normal(256, 100, 400_000), 128, 720)
    assert abs(sides.mean() - expected.mean()) < 6
    assert abs((sides == 128).mean() - (expected == 128).mean()) < 0.02


def test_crops_reach_every_corner_and_stay_inside():
    boxes = [CropRule(20).draw(23, 24, stream(1, index)) for index in range(300)]
    assert {box.y for box in boxes} == {0, 1, 2, 3}
    assert {box.x for box in boxes} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("rule", "size"),
    [(CropRule(64), (63, 200)), (CropRule(64, 64, 1), (31, 99)), (CropRule(64, small="scale"), (99, 31))],
)
def test_image_without_such_a_crop_is_refused(rule, size):
    with pytest.raises(TooSmall, match=r"too small for a crop of 64 px"):
        rule.draw(*size, stream(0))


def test_reduction_first_never_enlarges():
    rule = CropRule(64, resize_short=360)
    assert rule.reduction(300, 400) == 1
    assert rule.reduction(720, 1280) == 0.5
    box = rule.draw(720, 1280, stream(0))
    assert box.side == 128


def test_exposures_share_crop_and_trajectory():
    short, whole = render(photo(5), None, look_of(CropRule(48), exposures=(0.1, 1.0)), streams())
    assert short.box == whole.box
    assert short.params == whole.params
    assert np.array_equal(short.images["sharp"], whole.images["sharp"])
    assert (short.kernel > 0).sum() < (whole.kernel > 0).sum()


def test_saturation_brightens_only_around_white():
    image = photo(6)
    plain = render(image, None, look_of(CropRule(96)), streams())[0].images["blurred"].astype(int)
    sample = render(image, None, look_of(CropRule(96), saturation=True), streams())[0]
    bright = sample.images["blurred"].astype(int)
    white = (image == 255).any()
    assert white
    assert 0.25 <= sample.saturation <= 1.75
    assert (bright >= plain).all()
    assert (bright > plain).any()


def test_noise_changes_blurred_and_leaves_sharp():
    look = look_of(CropRule(48), noise=noise_model("boracchi-foi"))
    noisy, clean = (
        render(photo(7), None, look, streams())[0],
        render(photo(7), None, look_of(CropRule(48)), streams())[0],
    )
    assert np.array_equal(noisy.images["sharp"], clean.images["sharp"])
    assert not np.array_equal(noisy.images["blurred"], clean.images["blurred"])
    assert noisy.noise == {"photons": 2048.0, "read": 0.05}


def test_real_pair_is_cropped_alike_and_has_no_kernel():
    sharp, blurred = photo(8), photo(9)
    (sample,) = render(sharp, blurred, Look(CropRule(32), None), streams())
    y, x = int(sample.box.y), int(sample.box.x)
    assert sample.kernel is None
    assert np.array_equal(sample.images["sharp"], sharp[y : y + 32, x : x + 32])
    assert np.array_equal(sample.images["blurred"], blurred[y : y + 32, x : x + 32])


def test_one_sided_picture_makes_one_sided_sample():
    (sample,) = render(None, photo(8), Look(CropRule(32), None, lowres=(2,)), streams())
    assert set(sample.images) == {"blurred", "blurred_x2"}
