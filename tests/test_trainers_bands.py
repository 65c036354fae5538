"""The exact mode is the whole image: its rows, its statistics, what it keeps and what it leaves behind."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from restorers import SMALL, photograph, restorer_of
from torch import nn

from trainers import bands
from trainers.band_plan import BandPlan
from trainers.bands import run_in_bands
from trainers.blocks import InstanceNorm, LayerNorm
from trainers.method import Restorer
from trainers.moments import Moments
from trainers.padding import PaddedImage
from trainers.rows import Rows, layer_of, trace_encoding, trace_restoring

CPU = torch.device("cpu")
MOST_ERROR = 1e-4  # The promise is 1e-3.


@torch.inference_mode()
def restore_in_bands(restorer, image, z, band_bytes, keep_in=CPU):
    plan = BandPlan(trace_restoring(restorer), image.height, image.width, restorer.latent, band_bytes)
    rows = {}
    run_in_bands(plan, image, z, rows.__setitem__, keep_in)
    return plan, torch.cat([rows[first] for first in sorted(rows)], 2)


@torch.inference_mode()
def encode(restorer, image):
    return restorer.encode(image.whole())[0] if restorer.latent else None


@pytest.mark.parametrize(
    ("height", "width", "band_bytes"),
    [(64, 64, 1), (131, 90, 300_000), pytest.param(70, 203, 1 << 30, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", SMALL)
def test_bands_equal_the_whole_image(name, height, width, band_bytes):
    restorer = SMALL[name]()
    image = PaddedImage(photograph(height, width), restorer.multiple, CPU)
    z = encode(restorer, image)
    with torch.inference_mode():
        whole = restorer.restore(image.whole(), z)
    assert whole.std() > 0.05
    plan, result = restore_in_bands(restorer, image, z, band_bytes)
    assert (result - whole).abs().max() <= MOST_ERROR
    assert all(stage.rows == 1 for stage in plan.stages.values()) == (band_bytes == 1)


def test_maps_on_disk_give_the_same_and_leave_no_file(tmp_path):
    restorer = SMALL["disentangled"]()
    image = PaddedImage(photograph(90, 77), 4, CPU)
    z = encode(restorer, image)
    in_memory = restore_in_bands(restorer, image, z, 200_000)[1]
    on_disk = restore_in_bands(restorer, image, z, 200_000, tmp_path)[1]
    assert torch.allclose(on_disk, in_memory, atol=1e-5)
    assert not list(tmp_path.iterdir())


def test_code_in_bands_equals_the_whole_images():
    restorer = SMALL["disentangled"]()
    image = PaddedImage(photograph(301, 90), 4, CPU)
    with torch.inference_mode():
        expected = restorer.encode(image.whole())
        for band_bytes in (1, 500_000):
            plan = BandPlan(trace_encoding(restorer), image.height, image.width, band_bytes=band_bytes)
            for mean, whole in zip(run_in_bands(plan, image), expected, strict=True):
                assert (mean - whole).abs().max() <= 1e-5
            assert not plan.kept


def test_blank_page_is_the_whole_images():
    restorer = SMALL["cyclegan"]()
    image = PaddedImage(np.full((90, 80, 3), 255, np.uint8), 4, CPU)
    with torch.inference_mode():
        whole = restorer(image.whole())
    assert (restore_in_bands(restorer, image, None, 100_000)[1] - whole).abs().max() <= MOST_ERROR


def test_bf16_bands_are_near_the_whole_images():
    restorer = SMALL["disentangled"]()
    image = PaddedImage(photograph(100, 70), 4, CPU)
    z = encode(restorer, image)
    with torch.autocast("cpu", torch.bfloat16):
        result = restore_in_bands(restorer, image, z, 300_000)[1].float()
    with torch.inference_mode():
        whole = restorer.restore(image.whole(), z)
    assert (result - whole).abs().mean() <= 0.03


def test_plan_says_what_is_kept_at_most(monkeypatch):
    held, most = {}, []

    class Counting(bands.MapInMemory):
        def write(self, first, rows):
            super().write(first, rows)
            held[self] = self._values.nbytes
            most.append(sum(held.values()))

        def close(self):
            super().close()
            held.pop(self)

    monkeypatch.setattr(bands, "MapInMemory", Counting)
    for name in ("disentangled", "cyclegan", "enlarging"):
        most.clear()
        restorer = SMALL[name]()
        image = PaddedImage(photograph(70, 70), restorer.multiple, CPU)
        plan, _ = restore_in_bands(restorer, image, encode(restorer, image), 300_000)
        assert max(most) == plan.kept_bytes
        assert not held


def test_maps_are_closed_when_a_run_fails(tmp_path, monkeypatch):
    restorer = SMALL["cyclegan"]()
    image = PaddedImage(photograph(64, 64), 4, CPU)
    plan = BandPlan(trace_restoring(restorer), 64, 64)

    def fail(first, rows):
        raise KeyboardInterrupt

    closed = []
    monkeypatch.setattr(bands.MapOnDisk, "close", lambda self: closed.append(self._file.close()))
    with torch.inference_mode(), pytest.raises(KeyboardInterrupt):
        run_in_bands(plan, image, fill=fail, keep_in=tmp_path)
    assert len(closed) == len(plan.kept)


def test_progress_rises_to_one():
    restorer = SMALL["cyclegan"]()
    image = PaddedImage(photograph(64, 64), 4, CPU)
    seen = []
    with torch.inference_mode():
        run_in_bands(BandPlan(trace_restoring(restorer), 64, 64, band_bytes=100_000), image, progress=seen.append)
    assert all(before < after for before, after in pairwise(seen))
    assert seen[-1] == pytest.approx(1)


LAYERS = {
    "conv": nn.Conv2d(2, 3, 3),
    "stride": nn.Conv2d(2, 3, 3, stride=2, padding=1),
    "patches": nn.Conv2d(2, 3, 4, stride=4),
    "wide": nn.Conv2d(2, 2, (5, 3), padding=(3, 0), dilation=(2, 1), groups=2),
    "pool": nn.AvgPool2d(2),
    "tall pool": nn.AvgPool2d((2, 1), 1),
    "double": nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1),
    "point": nn.ConvTranspose2d(2, 3, 1),
    "triple": nn.ConvTranspose2d(2, 2, 5, stride=3, padding=2, output_padding=2, groups=2),
    "sparse": nn.ConvTranspose2d(2, 3, 2, stride=3, output_padding=1),
    "reflect": nn.ReflectionPad2d(3),
    "reflect below": nn.ReflectionPad2d((0, 1, 0, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_rows_of_a_layer_are_rows_of_its_output(name):
    module = LAYERS[name]
    x = torch.randn(1, 2, 12, 9, generator=torch.Generator().manual_seed(0))
    whole, layer = module(x), layer_of(module)
    height = whole.shape[2]
    for first in range(height):
        for last in range(first + 1, height + 1):
            low, high = layer.needs(first, last, 12)
            assert 0 <= low < high <= 12
            rows = layer.make(Rows(low, x[:, :, low:high]), first, last, 12)
            assert rows.shape == whole[:, :, first:last].shape
            assert (rows - whole[:, :, first:last]).abs().max() <= 1e-6


@pytest.mark.parametrize("offset", [0, 1000])
def test_moments_of_parts_are_those_of_the_whole(offset):
    values = np.random.default_rng(0).normal(offset, [[[1]], [[3]]], (1, 2, 40, 30)).astype(np.float32)
    moments = Moments()
    for first, last in pairwise([0, 1, 7, 33, 40]):
        moments.add(torch.from_numpy(values[:, :, first:last]))
    of_channels = values.astype(np.float64).reshape(2, -1)
    instance = moments.normalisation(InstanceNorm())
    assert np.allclose(instance.mean, of_channels.mean(1), rtol=1e-6)
    assert np.allclose(instance.variance, of_channels.var(1), rtol=1e-5)
    layer = moments.normalisation(LayerNorm(2))
    assert np.allclose(layer.mean, of_channels.mean(), rtol=1e-6)
    assert np.allclose(layer.variance, of_channels.var(), rtol=1e-5)


def test_channel_that_is_flat_but_for_rounding_becomes_zero():
    values = torch.full((1, 2, 8, 8), 0.7)
    values[0, 0, 3, 3] += 1e-7
    values[0, 1, 3, 3] += 1e-3
    moments = Moments()
    for rows in values.split(3, 2):
        moments.add(rows)
    result = moments.normalisation(InstanceNorm())(values)
    assert torch.equal(result[0, 0], torch.zeros(8, 8))
    assert torch.allclose(result, InstanceNorm()(values), atol=1e-4)


class Unknown(Restorer):
    """Holds a layer that takes from all pixels."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def restore(self, blurred, z=None):
        return self.layers(blurred)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([nn.Softmax2d()], "Softmax2d"),
        ([nn.AvgPool2d(3, 1, padding=1)], "AvgPool2d"),
        ([nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")], "Conv2d"),
        ([InstanceNorm()], "norm of the image itself"),
        ([nn.Flatten(2), nn.Unflatten(2, (64, 64))], "Flatten"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unknown_layers_are_refused(layers, words):
    with pytest.raises(ValueError, match=rf"(?s){words}.*cannot be computed in parts here: take --tiles whole"):
        BandPlan(trace_restoring(Unknown(*layers).eval()), 64, 64)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path):
    code = """if True:
        import sys, resource, numpy as np, torch
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from restorers import photograph, restorer_of
        from trainers.infer import Means, deblur_colors
        torch.set_num_threads(1)
        means = Means(torch.device("cpu"), tiles="exact", memory_bytes=100 << 20, scratch=Path(sys.argv[2]))
        deblur_colors(restorer_of("disentangled", 16), photograph(int(sys.argv[3]), 1000), means)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    peaks = []
    for height in (500, 2000):
        command = [
            sys.executable,
            "-c",
            code,
            str(Path(__file__).parent),
            str(tmp_path),
            str(height),
        ]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True).stdout) << 10)
    pixels = 1500 * 1000
    assert BandPlan(trace_restoring(restorer_of("disentangled", 16)), 2000, 1000, 8).kept_bytes > 200e6
    # The image, its result, and a few copies of them at most.
    assert peaks[1] - peaks[0] < 60 * pixels
