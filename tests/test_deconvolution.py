"""Outside evidence: Richardson-Lucy of scikit-image sharpens what `blur` has blurred, given the kernel as it is stored.

It does so only if the kernel is not flipped, and best if both sides mean the same light.
"""

import numpy as np
import pytest
from PIL import Image
from skimage.restoration import richardson_lucy

from blurgen import blur, kernel_model
from blurgen.imaging import response
from blurgen.rng import stream

MARGIN_PX, ITERATIONS = 40, 60
INSIDE = (slice(MARGIN_PX, -MARGIN_PX),) * 2


def psnr(light, sharp):
    """Return the PSNR in dB, borders left out."""
    return -10 * np.log10(np.mean((np.clip(light, 0, 1) - sharp)[INSIDE] ** 2))


def sharpened(blurred, kernel):
    padded = np.pad(blurred.astype(np.float64), MARGIN_PX, "reflect")
    return richardson_lucy(padded, kernel, num_iter=ITERATIONS, clip=False)[INSIDE]


def gains_db(sharp, kernel):
    """Return the gains over the blurred image: as it should be, with the kernel flipped, and in encoded values."""
    curve, blurred = response("srgb"), blur(sharp, kernel)
    truth, light = curve.to_linear(sharp), curve.to_linear(blurred)
    tries = [
        sharpened(light, kernel),
        sharpened(light, kernel[::-1, ::-1]),
        curve.to_linear(sharpened(blurred / 255, kernel).clip(0, 1)),
    ]
    return [psnr(result, truth) - psnr(light, truth) for result in tries]


@pytest.mark.parametrize(
    ("count", "crop_px"), [(4, 160), pytest.param(20, 256, marks=pytest.mark.slow)], ids=["4 small", "20 whole"]
)
def test_richardson_lucy_gains_with_the_stored_kernel_in_linear_light_alone(data_root, count, crop_px):
    files = sorted((data_root / "bsds500").rglob("*.jpg"))
    if len(files) < count:
        pytest.skip("the test images lack bsds500")
    model, gains = kernel_model("deblurgan"), []
    for index, file in enumerate(files[:count]):
        sharp = np.asarray(Image.open(file).convert("L"))[:crop_px, :crop_px]
        gains.append(gains_db(sharp, model.draw(stream(0, "deconvolution", index))))
    right, flipped, wrong_light = np.mean(gains, axis=0)
    assert right >= 5
    assert flipped <= 0
    assert wrong_light <= right - 0.5
