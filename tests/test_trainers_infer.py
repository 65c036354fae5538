"""Any image is restored at any size: padding, depth, the choice of mode, tiles, memory told beforehand."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from restorers import SMALL, photograph, restorer_of
from torch import nn

from trainers import infer, tiles
from trainers.infer import GIB, Means, TooLarge, choose_mode, deblur_colors, deblur_image, plan_tiles
from trainers.memory import activation_bytes, meta_twin, usable_bytes, weight_bytes, whole_image_bytes
from trainers.method import Restorer
from trainers.models import method_class
from trainers.padding import PaddedImage, RestoredImage, reflected
from trainers.tiles import Tiling, cut_axis, draw_by_strata, receptive_radius, run_in_tiles, sample_patches
from trainers.weights import load_weights, save_weights

CPU = torch.device("cpu")


class Negative(Restorer):
    """Makes of an image its negative, `scale` times as large."""

    def __init__(self, scale=1, multiple=4):
        super().__init__()
        self.scale, self.multiple, self.seen = scale, multiple, []

    def restore(self, blurred, z=None):
        self.seen.append(tuple(blurred.shape))
        return -blurred.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_reflection_repeats_as_numpys(length):
    row = np.arange(length)
    expected = np.pad(row, 9, mode="reflect")
    assert np.array_equal(reflected(np.arange(-9, length + 9), length), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (3, 900), (63, 64), (65, 67), (131, 90)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_image_is_padded_by_reflection(size, dtype):
    colors = photograph(*size, dtype)
    image = PaddedImage(colors, 4, CPU)
    height, width = (-(-max(side, 64) // 4) * 4 for side in size)
    expected = np.pad(colors, ((0, height - size[0]), (0, width - size[1]), (0, 0)), mode="reflect")
    expected = expected.transpose(2, 0, 1)[None] / (np.iinfo(dtype).max / 2) - 1
    assert image.whole().shape == (1, 3, height, width)
    assert np.abs(image.whole().numpy() - expected).max() < 1e-6
    assert np.abs(image.part(5, 20, 3, 30).numpy() - expected[:, :, 5:20, 3:30]).max() < 1e-6


def test_levels_are_rounded_and_clipped():
    for dtype, highest in ((np.uint8, 255), (np.uint16, 65535)):
        restored = RestoredImage(np.empty((1, 5, 3), dtype), 1)
        values = torch.tensor([-1.2, -1, 0.1, 1, 7])
        restored.fill(0, values.expand(1, 3, 4, 5))
        expected = [round(min(max((v + 1) * highest / 2, 0), highest)) for v in values.tolist()]
        assert restored.pixels[0, :, 2].tolist() == expected


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (64, 64), (65, 130)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("scale", "multiple"), [(1, 4), (2, 2), (4, 1)])
def test_any_size_and_depth_comes_back(size, dtype, scale, multiple):
    colors = photograph(*size, dtype)
    restorer = Negative(scale, multiple)
    restored = deblur_image(restorer, colors, device="cpu", tiles="whole")
    expected = (np.iinfo(dtype).max - colors).repeat(scale, 0).repeat(scale, 1)
    assert restored.dtype == dtype
    assert np.array_equal(restored, expected)
    assert restorer.seen == [(1, 3, *(-(-max(side, 64) // multiple) * multiple for side in size))]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("size", [(1, 1), (65, 130), pytest.param((200, 70), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("name", ["disentangled", "enlarging"])
def test_modes_agree_on_size(name, size, mode):
    colors = photograph(*size)
    restored = deblur_image(SMALL[name](), colors, device="cpu", tiles=mode, memory_gib=0.01)
    whole = deblur_image(SMALL[name](), colors, device="cpu", tiles="whole")
    assert restored.shape == whole.shape
    if mode == "exact":
        assert np.abs(restored.astype(int) - whole).max() <= 1


def test_gray_and_alpha_are_taken():
    alpha = photograph(40, 50)[..., :1]
    colors = photograph(40, 50)
    both = deblur_image(Negative(), np.dstack([colors, alpha]), device="cpu")
    assert np.array_equal(both, np.dstack([255 - colors, alpha]))
    gray = deblur_image(Negative(), colors[..., 0], device="cpu")
    assert np.array_equal(gray, 255 - np.repeat(colors[..., :1], 3, axis=2))
    enlarged = deblur_image(Negative(2, 2), np.dstack([colors, np.full_like(alpha, 99)]), device="cpu")
    assert enlarged.shape == (80, 100, 4)
    assert np.all(enlarged[..., 3] == 99)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "must be uint8 or uint16, got float32"),
        (np.zeros((4, 4, 2), np.uint8), r"must have the shape .* got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"must have the shape .* got \(0, 4, 3\)"),
    ],
)
def test_other_arrays_are_refused(image, words):
    with pytest.raises(ValueError, match=words):
        deblur_image(Negative(), image, device="cpu")


def test_code_is_the_mean_unless_it_is_drawn():
    restorer = restorer_of("disentangled")
    restorer.blur_encoder.log_variance.weight.zero_()
    restorer.blur_encoder.log_variance.bias.fill_(-1)
    colors = photograph(70, 64)
    x = PaddedImage(colors, 4, CPU).whole()
    epsilon = np.linspace(-2, 2, 8)
    with torch.no_grad():
        mean, log_variance = restorer.encode(x)
        drawn = mean + torch.tensor(epsilon, dtype=torch.float32) * torch.exp(0.5 * log_variance)
        expected = {"mean": restorer.restore(x, mean), "drawn": restorer.restore(x, drawn)}
    assert (expected["mean"] - expected["drawn"]).abs().max() > 0.05
    for mode in ("whole", "exact"):
        for name, given in (("mean", None), ("drawn", epsilon)):
            result = deblur_image(restorer, colors, device="cpu", tiles=mode, epsilon=given)
            levels = ((expected[name][0, :, :70] + 1) * 127.5).clamp(0, 255).permute(1, 2, 0).numpy()
            assert np.abs(result - levels).max() <= 1
    with pytest.raises(ValueError, match="epsilon must have 8 numbers, the size of the code, got 3"):
        deblur_image(restorer, colors, device="cpu", epsilon=[1, 2, 3])
    with pytest.raises(ValueError, match="epsilon must have 0 numbers"):
        deblur_image(Negative(), colors, device="cpu", epsilon=[1])


def test_weights_are_taken_as_path_and_as_loaded(tmp_path):
    system = method_class("cyclegan")
    save_weights(tmp_path / "best.safetensors", system(system.Config(width=4)), {})
    colors = photograph(64, 80)
    by_path = deblur_image(tmp_path, colors, device="cpu")
    assert np.array_equal(by_path, deblur_image(load_weights(tmp_path), colors, device="cpu"))
    assert by_path.std() > 0


def test_mode_follows_from_memory():
    restorer, image = SMALL["cyclegan"](), PaddedImage(photograph(200, 300), 4, CPU)
    needed = whole_image_bytes(restorer, image.height, image.width)
    assert choose_mode(restorer, image, Means(CPU, memory_bytes=needed)) == "whole"
    assert choose_mode(restorer, image, Means(CPU, memory_bytes=needed - 1)) == "exact"
    assert choose_mode(restorer, image, Means(CPU, tiles="fast", memory_bytes=needed)) == "whole"
    assert choose_mode(restorer, image, Means(CPU, tiles="fast", memory_bytes=needed - 1)) == "fast"
    assert choose_mode(restorer, image, Means(CPU, tiles="exact", memory_bytes=needed)) == "exact"
    with pytest.raises(
        TooLarge, match=r"needs 0\.2 GiB as a whole, more than the 0\.0 GiB allowed: raise --memory-gib"
    ):
        choose_mode(restorer, image, Means(CPU, tiles="whole", memory_bytes=1))
    with pytest.raises(ValueError, match="tiles must be one of auto, whole, exact, fast, got 'some'"):
        deblur_image(restorer, photograph(64, 64), tiles="some")


def test_full_disk_is_told_beforehand(monkeypatch, tmp_path):
    monkeypatch.setattr(infer.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    means = Means(CPU, tiles="exact", memory_bytes=1000, scratch=tmp_path)
    with pytest.raises(
        TooLarge, match=r"temporary files, and .* has 0\.0 GiB free: name another folder with --scratch"
    ):
        deblur_colors(SMALL["cyclegan"](), photograph(64, 64), means)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("length", [64, 100, 256, 1000])
def test_shares_of_tiles_add_up_to_one(length, scale):
    for side, overlap in ((64, 16), (128, 100), (36, 40), (2000, 70)):
        total = np.zeros(length * scale)
        cut = cut_axis(length, side, overlap, 4, scale)
        for tile in cut:
            assert 0 <= tile.first < tile.last <= length
            assert tile.last - tile.first == min(side, length)
            assert tile.first % 4 == 0
            total[tile.first * scale : tile.last * scale] += tile.shares
        assert np.allclose(total, 1)
        assert all(two.first - one.first <= max(4, side - overlap) for one, two in pairwise(cut))


@pytest.mark.parametrize("name", ["disentangled", "cyclegan", "enlarging"])
def test_receptive_radius_holds_all_that_matters(name, monkeypatch):
    restorer = SMALL[name]()
    radius, side = receptive_radius(restorer), 256
    monkeypatch.setattr("trainers.blocks.InstanceNorm.forward", lambda self, x: x)
    monkeypatch.setattr("trainers.blocks.LayerNorm.forward", lambda self, x: x)
    image = torch.zeros(1, 3, side, 8, requires_grad=True)
    block = side // 2
    z = torch.zeros(1, restorer.latent) if restorer.latent else None
    rows = slice(block * restorer.scale, (block + restorer.multiple) * restorer.scale)
    result = restorer.restore(image.expand(1, 3, side, 8).repeat(1, 1, 1, 8), z)[:, :, rows]
    result.square().sum().backward()
    touched = image.grad.abs().sum((0, 1, 3)).nonzero()[:, 0]
    assert touched.min() >= block - radius
    assert touched.max() < block + restorer.multiple + radius
    assert max(block - touched.min(), touched.max() + 1 - block - restorer.multiple) >= radius - 3


@pytest.mark.parametrize(("name", "bound"), [("disentangled", 0.02), ("cyclegan", 0.06), ("enlarging", 0.02)])
def test_tiles_are_near_the_whole_image(name, bound):
    """Bounds of the mean error, in shares of the range; random weights are harder than trained ones."""
    restorer = SMALL[name]()
    for colors in (np.tile(photograph(40, 40), (9, 8, 1)), photograph(360, 300)):
        image = PaddedImage(colors, restorer.multiple, CPU)
        result, whole = RestoredImage(colors, restorer.scale), RestoredImage(colors, restorer.scale)
        with torch.inference_mode():
            z = restorer.encode(image.whole())[0] if restorer.latent else None
            run_in_tiles(restorer, image, z, Tiling(200, receptive_radius(restorer), colors.size // 12), result.fill)
            whole.fill(0, restorer(image.whole()))
        error = np.abs(result.pixels.astype(int) - whole.pixels) / 255
        assert error.mean() <= bound
        assert np.quantile(error, 0.99) <= 6 * bound
        assert whole.pixels.std() / 255 > 3 * bound


def test_seams_vanish_where_statistics_are_known(monkeypatch):
    """With statistics of the whole image and all the overlap that the network sees, tiles are the whole image."""
    restorer = SMALL["disentangled"]()
    image = PaddedImage(photograph(400, 300), 4, CPU)
    result = torch.zeros(1, 3, 400, 300)
    with torch.inference_mode():
        z = restorer.encode(image.whole())[0]
        whole = restorer.restore(image.whole(), z)
        monkeypatch.setattr(tiles, "sample_patches", lambda *_: image.whole())

        def error(overlap):
            run_in_tiles(restorer, image, z, Tiling(220, overlap, 1), lambda first, rows: _put(result, first, rows))
            return (result - whole).abs()

        assert error(receptive_radius(restorer)).max() <= 0.05
        assert error(2 * receptive_radius(restorer)).max() <= 1e-4
        assert error(8).max() > 0.1


def _put(result, first, rows):
    result[:, :, first : first + rows.shape[2]] = rows


def test_patches_have_the_shares_of_the_image(monkeypatch):
    """Of a page that is dark in a quarter, and detailed in half of the dark and an eighth of the bright part."""
    colors = np.full((640, 640, 3), 220, np.uint8)
    colors[:320, :320] = 40
    rows, columns = np.mgrid[:640, :640]
    detailed = (rows < 320) & (columns < 320) & (rows < 160) | (rows >= 320) & (columns >= 320) & (rows < 440)
    colors[detailed & (columns % 2 == 0)] += 20
    image = PaddedImage(colors, 4, CPU)
    monkeypatch.setattr(tiles, "LEAST_PATCH_PX", 32)
    patches = sample_patches(image, 100 * 32**2, 4).mean(1)
    assert patches.shape == (100, 32, 32)
    dark, busy = patches.mean((1, 2)) < -0.4, patches.std((1, 2)) > 0.01
    assert dark.sum() == 25
    assert abs(int((dark & busy).sum()) - 12) <= 2
    assert abs(int((~dark & busy).sum()) - 9) <= 2
    assert len(sample_patches(image, 1, 4)) == 1
    monkeypatch.setattr(tiles, "MOST_PATCH_PX", 64)
    every = sample_patches(image, 10**9, 4)
    assert every.shape == (100, 3, 64, 64)
    assert torch.allclose(every.mean((0, 2, 3)), image.whole().mean((0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, 50, 90])
def test_strata_are_drawn_from_evenly(count):
    rng = np.random.default_rng(0)
    first, second = rng.random(90), rng.random(90)
    chosen = draw_by_strata(first, second, count)
    assert len(chosen) == count == len(set(chosen.tolist()))
    if count == 50:
        assert abs(first[chosen].mean() - first.mean()) < 0.03
        assert abs(second[chosen].mean() - second.mean()) < 0.03


def test_tiles_are_planned_for_the_memory():
    restorer, image = SMALL["cyclegan"](), PaddedImage(photograph(64, 64), 4, CPU)
    small, large = (plan_tiles(restorer, image, memory) for memory in (1, 1000 * GIB))
    assert small.side == 2 * receptive_radius(restorer) == 2 * small.overlap
    assert (large.side, large.overlap) == (1024, 2 * receptive_radius(restorer))
    image = PaddedImage(np.zeros((4000, 6000, 3), np.uint8), 4, CPU)
    assert plan_tiles(restorer, image, 1000 * GIB).sampled == 6_000_000


class Stack(Restorer):
    """Layers whose feature maps can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 10, 1), nn.Conv2d(10, 3, 1)

    def restore(self, blurred, z=None):
        kept = self.first(blurred)
        return self.second(torch.relu(kept) + kept)


def test_live_bytes_are_counted():
    pixels = 4 * 40 * 60
    # The image, both terms and their sum; then the sum goes through a convolution, which copies 10 + 3 channels.
    at_sum, at_second = 3 + 10 + 10 + 10, 3 + 10 + 10 + 3 + 10 + 3
    assert activation_bytes(Stack(), 40, 60) == pixels * max(at_sum, at_second)


def test_meta_twin_copies_no_weights():
    restorer = SMALL["disentangled"]()
    twin = meta_twin(restorer)
    assert all(parameter.is_meta for parameter in twin.parameters())
    assert not any(parameter.is_meta for parameter in restorer.parameters())
    assert weight_bytes(twin) == weight_bytes(restorer) > 0


def test_usable_memory_is_below_what_there_is():
    assert 0 < usable_bytes(CPU) <= 6 * GIB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["disentangled", "cyclegan"])
def test_whole_image_takes_no_more_than_was_told(name):
    code = """if True:
        import sys, resource, torch
        sys.path.insert(0, sys.argv[2])
        from restorers import restorer_of
        from trainers.memory import whole_image_bytes
        torch.set_num_threads(1)
        restorer = restorer_of(sys.argv[1], 32)
        told = whole_image_bytes(restorer, 512, 768)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        with torch.inference_mode():
            restorer(torch.rand(1, 3, 512, 768))
        print(told, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before)
    """
    command = [sys.executable, "-c", code, name, str(Path(__file__).parent)]
    told, taken = map(int, subprocess.run(command, check=True, capture_output=True).stdout.split())
    assert taken <= told
