"""Metrics against scikit-image, plain NumPy and their own laws."""

import math

import cv2
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from photos import photo
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from trainers import lpips, metrics
from trainers.lpips import Lpips, open_lpips
from trainers.metrics import METRICS, d_vgg, learned
from trainers.vgg import open_features

CPU = torch.device("cpu")


def page(seed, height=70, width=90):
    """Return black strokes on white, where the variance of most windows is 0."""
    strokes = np.random.default_rng(seed).random((height // 10, width // 2)) < 0.3
    ink = np.kron(strokes, np.ones((10, 2))).astype(bool)
    return np.where(np.pad(ink, ((0, height % 10), (0, width % 2)))[..., None], 0, 255).repeat(3, 2).astype(np.uint8)


def blurred(image, sigma=2.0):
    return cv2.GaussianBlur(image, (0, 0), sigma)


PAIRS = {
    "photo": (blurred(photo(0)), photo(0)),
    "odd sides": (blurred(photo(1, 41, 67)), photo(1, 41, 67)),
    "even sides": (blurred(photo(2, 40, 66)), photo(2, 40, 66)),
    "page": (blurred(page(0)), page(0)),
    "one window": (photo(3, 11, 11), photo(4, 11, 11)),
    "white page": (np.full_like(page(0), 255), page(0)),
    "white and off-white": (np.full((30, 40, 3), 254, np.uint8), np.full((30, 40, 3), 255, np.uint8)),
    "black and white": (np.zeros((30, 40, 3), np.uint8), np.full((30, 40, 3), 255, np.uint8)),
    "inverted": (255 - photo(5), photo(5)),
    "noise": tuple(np.random.default_rng(6).integers(0, 256, (2, 50, 60, 3), np.uint8)),
    "more than one strip": (blurred(photo(7, 300, 500)), photo(7, 300, 500)),
    "broad": (blurred(photo(8, 30, 4000)), photo(8, 30, 4000)),
}
pairs = pytest.mark.parametrize(("image", "sharp"), PAIRS.values(), ids=PAIRS)


@pairs
def test_psnr_and_ssim_equal_scikit_image(image, sharp):
    assert metrics.psnr(image, sharp) == pytest.approx(peak_signal_noise_ratio(sharp, image), abs=1e-9)
    theirs = structural_similarity(
        sharp, image, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert metrics.ssim(image, sharp) == pytest.approx(theirs, abs=5e-5)


@pairs
def test_fourier_errors_equal_the_whole_spectrum(image, sharp):
    ours, theirs = (
        np.abs(np.fft.fft2((0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]) / 255, norm="ortho"))
        for x in (image, sharp)
    )
    assert metrics.fourier_mag(image, sharp) == pytest.approx(np.mean((ours - theirs) ** 2), rel=1e-9)
    logarithms = np.log10(ours + 1e-6) - np.log10(theirs + 1e-6)
    # A flat image has a spectrum of round-off.
    assert metrics.fourier(image, sharp) == pytest.approx(np.mean(logarithms**2), rel=1e-6, abs=1e-15)


@pairs
def test_correlation_equals_numpy(image, sharp):
    with np.errstate(all="ignore"):
        theirs = np.corrcoef(image.ravel().astype(float), sharp.ravel().astype(float))[0, 1]
    assert metrics.correlation(image, sharp) == pytest.approx(theirs, abs=1e-9, nan_ok=True)


def test_equal_images_are_at_the_end_of_each_scale():
    values = {name: metric(photo(0), photo(0).copy()) for name, metric in METRICS.items()}
    assert values == {"psnr": math.inf, "ssim": 1, "correlation": pytest.approx(1), "fourier": 0, "fourier_mag": 0}


def test_metrics_tell_which_way_is_better():
    for name, metric in METRICS.items():
        near, far = (metric(blurred(photo(0), sigma), photo(0)) for sigma in (0.7, 3.0))
        assert (near > far) == (name in metrics.HIGHER_IS_BETTER), name


def test_images_below_the_window_have_no_ssim():
    assert math.isnan(metrics.ssim(photo(0, 10, 50), photo(1, 10, 50)))
    assert math.isfinite(metrics.psnr(photo(0, 10, 50), photo(1, 10, 50)))
    with pytest.raises(ValueError, match="win_size"):
        structural_similarity(photo(0, 10, 50), photo(1, 10, 50), channel_axis=2, gaussian_weights=True, sigma=1.5)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_unequal_images_are_refused(metric):
    with pytest.raises(ValueError, match=r"of equal size, got \(96, 128, 3\) uint8 and \(97, 128, 3\) uint8"):
        metric(photo(0), photo(0, 97))
    with pytest.raises(ValueError, match=r"must be .* uint8"):
        metric(photo(0) / 255, photo(0) / 255)


def test_d_vgg_is_the_mean_square_distance_of_pool5():
    features, _ = open_features("random", 36, normalised=True)
    image, sharp = photo(0, 40, 64), photo(1, 40, 64)
    value = learned(d_vgg(features), CPU, 32)(image, sharp)
    pooled = [
        features(torch.tensor(x / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]).numpy()
        for x in (image, sharp)
    ]
    assert pooled[0].shape == (1, 512, 1, 2)
    assert value == pytest.approx(np.mean((pooled[0] - pooled[1]) ** 2), rel=1e-4)
    assert math.isnan(learned(d_vgg(features), CPU, 32)(image[:31], sharp[:31]))


def convolved(values, weight, bias, stride, padding):
    side = weight.shape[-1]
    padded = np.pad(values, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, (side, side), (1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


def pooled(values):
    return sliding_window_view(values, (3, 3), (1, 2))[:, ::2, ::2].max((3, 4))


def lpips_in_numpy(image, sharp, alexnet, heads):
    """Write the distance down: five layers after their ReLU, unit vectors, weighted squares, mean over the pixels."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    stacks = []
    for pixels in (image, sharp):
        values = (((pixels / 127.5 - 1) - shift) / scale).transpose(2, 0, 1)
        stack = []
        for index, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            values = pooled(values) if index in (3, 6) else values
            weight, bias = (alexnet[f"features.{index}.{part}"].double().numpy() for part in ("weight", "bias"))
            values = np.maximum(convolved(values, weight, bias, stride, padding), 0)
            stack.append(values / (np.linalg.norm(values, axis=0) + 1e-10))
        stacks.append(stack)
    return sum(
        np.mean(np.einsum("chw,c->hw", (one - other) ** 2, heads[f"lin{i}.model.1.weight"].double().numpy().ravel()))
        for i, (one, other) in enumerate(zip(*stacks, strict=True))
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write files of the published layouts with random values."""
    folder, rng = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(0)
    shapes = {name: tensor.shape for name, tensor in Lpips().state_dict().items()}
    tensors = {name: torch.randn(shape, generator=rng) / shape[1:].numel() ** 0.5 for name, shape in shapes.items()}
    alexnet = {name: tensor for name, tensor in tensors.items() if name.startswith("features")}
    heads = {name: tensor.abs() for name, tensor in tensors.items() if name.startswith("lin")}
    torch.save(alexnet | {"classifier.1.weight": torch.zeros(2, 2)}, folder / "alexnet.pth")
    torch.save(heads, folder / "alex.pth")
    return folder, alexnet, heads


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_layers_of_lpips_are_the_published_ones(weights):
    _, alexnet, heads = weights
    shapes = {name: tuple(tensor.shape) for name, tensor in (alexnet | heads).items() if name.endswith("weight")}
    assert shapes == {
        "features.0.weight": (64, 3, 11, 11), "features.3.weight": (192, 64, 5, 5),
        "features.6.weight": (384, 192, 3, 3), "features.8.weight": (256, 384, 3, 3),
        "features.10.weight": (256, 256, 3, 3), "lin0.model.1.weight": (1, 64, 1, 1),
        "lin1.model.1.weight": (1, 192, 1, 1), "lin2.model.1.weight": (1, 384, 1, 1),
        "lin3.model.1.weight": (1, 256, 1, 1), "lin4.model.1.weight": (1, 256, 1, 1),
    }  # fmt: skip


@pytest.mark.parametrize(("height", "width"), [(31, 31), (50, 67)])
def test_lpips_equals_the_formula_in_numpy(weights, height, width):
    folder, alexnet, heads = weights
    model, _ = open_lpips(folder / "alexnet.pth", folder / "alex.pth")
    image, sharp = photo(0, height, width), photo(1, height, width)
    value = learned(lambda x, y: model(x, y)[0], CPU, lpips.LEAST_PX)(image, sharp)
    assert value == pytest.approx(lpips_in_numpy(image, sharp, alexnet, heads), rel=1e-4)
    assert value > 0
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 3, 30, 40), torch.zeros(1, 3, 30, 40))


def test_lpips_of_a_batch_is_that_of_each_pair(weights):
    model, _ = open_lpips(weights[0] / "alexnet.pth", weights[0] / "alex.pth")
    one, other = torch.rand(2, 3, 3, 33, 35, generator=torch.Generator().manual_seed(0))
    together = model(one, other)
    assert together.shape == (3,)
    torch.testing.assert_close(together[1:2], model(one[1:2], other[1:2]))
    assert not model(one, one).any()


def test_published_files_given_once_are_kept(weights, monkeypatch):
    folder = weights[0]
    assert "sha256" in open_lpips(folder / "alexnet.pth", folder / "alex.pth")[1]
    with pytest.raises(FileNotFoundError, match=r"needs two files.*--alexnet-weights and http\S+ for --lpips-weights"):
        open_lpips()
    for name, file in (("ALEXNET", "alexnet.pth"), ("HEADS", "alex.pth")):
        found = lpips.Published("", lpips.file_sha256(folder / file), 0)
        monkeypatch.setattr(lpips, name, found)
    given, said = open_lpips(folder / "alexnet.pth", folder / "alex.pth")
    kept, same = open_lpips()
    assert said == same == "LPIPS-Alex 0.1"
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in given.state_dict().items())


def test_other_weights_are_refused(weights):
    folder = weights[0]
    with pytest.raises(FileNotFoundError, match="needs both files of weights, not one"):
        open_lpips(folder / "alexnet.pth")
    with pytest.raises(ValueError, match=r"alex.pth holds no features.0.weight: these .* of AlexNet"):
        open_lpips(folder / "alex.pth", folder / "alex.pth")
    with pytest.raises(ValueError, match=r"alexnet.pth holds no lin0.model.1.weight: .* LPIPS"):
        open_lpips(folder / "alexnet.pth", folder / "alexnet.pth")
