"""Outside evidence: Richardson-Lucy of scikit-image sharpens the blurred images of a file with the kernels beside them.

It does so only if the kernel is not flipped, and best if both sides mean the same light. All gains are in dB over the
blurred image, scored in linear light and away from the borders.
"""

import numpy as np
import pytest
from skimage.restoration import richardson_lucy

from blurgen.imaging import response
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import make_plan
from blurgen.shards import open_shards

MARGIN_PX, ITERATIONS, GREEN = 40, 60, 1
INSIDE = (slice(MARGIN_PX, -MARGIN_PX),) * 2
SRGB = response("srgb")


def samples(images, out, count, crop_px):
    """Return samples that `make` has written: the default kernels, no noise, one crop from each image."""
    options = MakeOptions(source=Chosen(str(images)), kernel=Chosen("deblurgan"), crop=crop_px, count=count)
    make(make_plan(options), out, RunOptions(workers=1, backend="threading"))
    return open_shards(out)


def psnr(light, sharp):
    """Return the PSNR in dB, borders left out."""
    return -10 * np.log10(np.mean((np.clip(light, 0, 1) - sharp)[INSIDE] ** 2))


def sharpened(blurred, kernel):
    padded = np.pad(blurred.astype(np.float32), MARGIN_PX, "reflect")
    return richardson_lucy(padded, kernel, num_iter=ITERATIONS, clip=False)[INSIDE]


def gains_db(sample):
    """Return what is gained as it should be done, with the kernel flipped, and in encoded values."""
    sharp, blurred, kernel = sample.sharp[..., GREEN], sample.blurred[..., GREEN], sample.kernel
    truth, light = SRGB.to_linear(sharp), SRGB.to_linear(blurred)
    tries = [
        sharpened(light, kernel),
        sharpened(light, kernel[::-1, ::-1]),
        SRGB.to_linear(sharpened(blurred / 255, kernel).clip(0, 1)),
    ]
    return [psnr(result, truth) - psnr(light, truth) for result in tries]


@pytest.mark.slow
def test_richardson_lucy_gains_with_the_stored_kernel_in_linear_light_alone(data_root, tmp_path):
    images, count = data_root / "bsds500", 20
    if len(list(images.rglob("*.jpg"))) < count:
        pytest.skip("the test images lack bsds500")
    shards = samples(images, tmp_path / "a.h5", count, 256)
    assert len(shards) == count
    right, flipped, wrong_light = np.mean([gains_db(sample) for sample in shards], axis=0)
    assert right >= 5
    assert flipped <= 0
    assert 0.5 <= right - wrong_light <= 3
