"""VGG-19: the layers of the public model, and weights that are had, kept, damaged or out of reach."""

import hashlib
import os
import pickle

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from trainers import pretrained, vgg
from trainers.vgg import VGG19, open_features

# The rows of the public model's `features` that hold weights, as its state dict names them.
OFFICIAL_SHAPES = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
    16: (256, 256), 19: (512, 256), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512), 30: (512, 512),
    32: (512, 512), 34: (512, 512),
}  # fmt: skip


def official_layout(last=14):
    rng = torch.Generator().manual_seed(1)
    tensors = {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    for index, (out, into) in OFFICIAL_SHAPES.items():
        if index <= last:
            tensors[f"features.{index}.weight"] = torch.randn(out, into, 3, 3, generator=rng) / (3 * into**0.5)
            tensors[f"features.{index}.bias"] = torch.randn(out, generator=rng) / 9
    return tensors


@pytest.fixture(scope="module")
def official_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    # The published file is of the format before zip archives.
    torch.save(official_layout(), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Make an empty cache, and an address that nothing answers at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(vgg, "OFFICIAL", pretrained.Published("http://127.0.0.1:9/vgg19-dcbb9e9d.pth", "0" * 64, 9))
    return tmp_path / "cache" / "blurgen"


@pytest.fixture
def published(official_file, monkeypatch):
    """Publish the synthetic file under an address that can be reached."""
    content = official_file.read_bytes()
    found = pretrained.Published(official_file.as_uri(), hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(vgg, "OFFICIAL", found)
    return found


def test_parameters_are_those_up_to_conv3_3():
    assert sum(p.numel() for p in VGG19().parameters()) == 1_735_488
    assert sum(p.numel() for p in VGG19(vgg.POOL5).parameters()) == 20_024_384


def test_layers_are_those_of_the_public_model():
    layers = VGG19(36).features
    assert {i: tuple(layer.weight.shape[:2]) for i, layer in enumerate(layers) if hasattr(layer, "weight")} == (
        OFFICIAL_SHAPES
    )
    assert [i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.MaxPool2d)] == [4, 9, 18, 27, 36]


def layer_by_layer(tensors, image, last):
    """Write the network down in SciPy: correlation with zeros around, ReLU, 2x2 maximum."""
    values = np.asarray(image, np.float64)
    for index in range(last + 1):
        if index in OFFICIAL_SHAPES:
            weight, bias = (tensors[f"features.{index}.{part}"].double().numpy() for part in ("weight", "bias"))
            planes = [
                sum(correlate(values[c], kernel[c], "same") for c in range(len(values))) + b
                for kernel, b in zip(weight, bias, strict=True)
            ]
            values = np.stack(planes)
        elif index in (4, 9, 18, 27, 36):
            c, h, w = values.shape
            values = values.reshape(c, h // 2, 2, w // 2, 2).max((2, 4))
        else:
            values = np.maximum(values, 0)
    return values


@pytest.mark.parametrize("normalised", [pytest.param(False, marks=pytest.mark.slow), True])
def test_values_equal_the_network_in_scipy(official_file, normalised):
    model, _ = open_features(official_file, 7, normalised)
    image = np.random.default_rng(0).uniform(-1, 1, (3, 8, 12))
    given = image
    if normalised:
        given = ((image + 1) / 2 - np.array([[[0.485]], [[0.456]], [[0.406]]])) / np.array(
            [[[0.229]], [[0.224]], [[0.225]]]
        )
    tensors = official_layout()
    values, earlier = (layer_by_layer(tensors, given, last) for last in (7, 2))
    tensor = torch.tensor(image, dtype=torch.float32)[None]
    np.testing.assert_allclose(model(tensor)[0], values, atol=1e-4)
    at_2, at_7 = model.at(tensor, (2, 7))
    np.testing.assert_allclose(at_7[0], values, atol=1e-4)
    np.testing.assert_allclose(at_2[0], earlier, atol=1e-4)
    assert (at_2 < 0).any()


def test_features_are_frozen_and_pass_gradients_on():
    model, _ = open_features("random")
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    model.train()
    model(image).square().sum().backward()
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(module.training for module in model.modules())
    assert image.grad.abs().sum() > 0


def test_random_weights_depend_on_the_seed_alone_and_say_so():
    before = torch.get_rng_state()
    (one, said), (same, _), (other, _) = (open_features("random", 5, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.features[5].weight, same.features[5].weight)
    assert not torch.equal(one.features[5].weight, other.features[5].weight)
    assert said == "random (seed 3), layers 0 to 5, raw input"
    assert torch.equal(torch.get_rng_state(), before)


def test_download_is_kept_small_and_not_repeated(published, cache, monkeypatch):
    model, said = open_features()
    assert said == f"{published.name}, layers 0 to 14, raw input"
    assert torch.equal(model.features[14].weight, official_layout()["features.14.weight"])
    (kept,) = [path for path in cache.iterdir() if path.name != ".lock"]
    assert 4 * 1_735_488 < kept.stat().st_size < 4 * 1_735_488 + 10_000
    monkeypatch.setattr(vgg, "downloaded", None)
    again, _ = open_features(None, 14, normalised=True)
    fewer, _ = open_features(kept, 2)
    assert torch.equal(again.features[0].weight, fewer.features[0].weight)


def test_fewer_layers_come_from_a_cache_of_more(published, monkeypatch):
    assert not vgg.cached(5)
    open_features(None, 7)
    monkeypatch.setattr(vgg, "downloaded", None)
    assert vgg.cached(5)
    assert not vgg.cached(10)
    open_features(None, 5)


def test_official_file_given_once_is_kept(published, official_file, monkeypatch):
    open_features(official_file)
    monkeypatch.setattr(vgg, "downloaded", None)
    assert open_features()[1].startswith(published.name)


def test_damaged_cache_is_fetched_again(published, cache):
    open_features(None, 2)
    (kept,) = cache.glob("*.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(ValueError, match=r"damaged: the tensors do not have the SHA-256"):
        open_features(kept, 2)
    model, _ = open_features(None, 2)
    assert torch.equal(model.features[2].weight, official_layout()["features.2.weight"])
    open_features(kept, 2)


def test_other_file_from_the_address_is_refused_and_nothing_kept(published, cache, monkeypatch):
    wrong = pretrained.Published(published.url, "a" * 64, published.size)
    monkeypatch.setattr(vgg, "OFFICIAL", wrong)
    with pytest.raises(OSError, match=r"not the published file: its SHA-256 is another.*--vgg-weights FILE"):
        open_features()
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_out_of_reach_says_both_ways_out():
    with pytest.raises(OSError, match=r"refused.*download http://\S+pth elsewhere.*--vgg-weights FILE, try again"):
        open_features()


def test_own_weights_are_recorded_with_their_hash(official_file):
    digest = hashlib.sha256(official_file.read_bytes()).hexdigest()
    assert open_features(official_file)[1] == f"vgg19.pth (sha256 {digest}), layers 0 to 14, raw input"


def changed(name, value):
    tensors = official_layout(2)
    del tensors[name]
    if value is not None:
        tensors[name] = value
    return tensors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("features.2.bias", None), r"holds no features.2.bias: these are not the weights of VGG-19"),
        (changed("features.2.bias", torch.zeros(9)), r"must have the shape \(64,\) in VGG-19, got \(9,\)"),
        (changed("features.2.bias", torch.full((64,), torch.nan)), "features.2.bias holds values that are not finite"),
        ({"features.0.weight": 1}, "must hold a state dict"),
        ([1, 2], "must hold a state dict"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "some.pth")
    with pytest.raises(ValueError, match=message):
        open_features(tmp_path / "some.pth", 2)


def test_damaged_and_misnamed_files_are_refused(tmp_path, official_file):
    whole = official_file.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "empty.pth").touch()
    for name in ("cut.pth", "text.pth", "text.safetensors", "empty.pth"):
        with pytest.raises(ValueError, match=f"{name} is no file of weights, or is damaged: "):
            open_features(tmp_path / name)
    (tmp_path / "vgg19-dcbb9e9d.pth").write_bytes(whole)
    with pytest.raises(ValueError, match="damaged or misnamed: its SHA-256 starts with"):
        open_features(tmp_path / "vgg19-dcbb9e9d.pth")
    with pytest.raises(FileNotFoundError):
        open_features(tmp_path / "none.pth")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path):
    torch.save({"features.0.weight": Malicious(str(tmp_path / "made"))}, tmp_path / "bad.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Malicious(str(tmp_path / "made")), 2))
    for name in ("bad.pth", "bare.pth"):
        with pytest.raises(ValueError, match="is no file of weights"):
            open_features(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_layers_beyond_the_last_are_refused():
    with pytest.raises(ValueError, match="last must be a layer of VGG-19, 0 to 36, got 37"):
        open_features("random", 37)
