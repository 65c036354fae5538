"""Exported networks: the same results in ONNX Runtime as in PyTorch, at any size, used as their metadata say."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_data import SYSTEMS, _quick_convolutions, rescaled, tiny  # noqa: F401
from trainers_command import run

from trainers import export as exporting
from trainers.infer import deblur_image
from trainers.models import MODELS
from trainers.weights import load_weights, save_weights

ROOT = Path(__file__).parents[1]
# What is trained on one image has as many scales as fit in it.
SINGLE = {"width": 4, "crop": 64}
WHOLE = {name: (name, {} if name in SYSTEMS else SINGLE) for name in MODELS if name != "toy"} | {
    "disentangled-sr x4 gray": ("disentangled-sr", {"scale": 4, "crop": 64, "gray": True}),
    "as-cyclegan v1": ("as-cyclegan", {"block": "v1", "sft": False}),
    "as-cyclegan v2": ("as-cyclegan", {"sft": False}),
    "as-cyclegan label": ("as-cyclegan", {"prior": "label", "classes": 3}),
    "as-cyclegan prior": ("as-cyclegan", {"prior": "prior", "classes": 3}),
}
# Importing ONNX and its runtime takes seconds, an export seconds more.
exported_systems = pytest.mark.parametrize("case", WHOLE)


def run_folder(folder, name, **changes):
    """Return a run's folder with weights in which no layer does nothing."""
    method = rescaled(tiny(name, **changes))
    if name not in SYSTEMS:
        for _ in range(method.restorer.pyramid.scales):
            method.restorer.noise.begin(torch.tensor(0.1))
    rng = torch.Generator().manual_seed(1)
    method.averaged.load_state_dict(method.restorer.state_dict())
    for p in method.averaged.parameters():
        p += 0.05 * torch.randn(p.shape, generator=rng)
    folder.mkdir(parents=True)
    save_weights(folder / "best.safetensors", method, {"step": 7})
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a function that exports a case once and gives its folder and what the command said."""
    pytest.importorskip("onnxruntime")
    done = {}

    def of(case, *words):
        if (case, words) not in done:
            name, changes = WHOLE[case]
            folder = run_folder(tmp_path_factory.mktemp("runs") / "run", name, **changes)
            result = run("export", folder, "--to", "onnx", "--json", *words)
            assert result.exit_code == 0, result.output
            done[case, words] = folder, json.loads(result.stdout)
        return done[case, words]

    return of


def opened(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def images(batch, height, width):
    return np.random.default_rng(height).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)


def with_guide(blurred, restorer):
    """Return images with the map behind their colours that the network wants: numbers of classes, or probabilities."""
    shape = (len(blurred), restorer.guide_channels, *blurred.shape[2:])
    drawn = np.random.default_rng(2).uniform(0, 1, shape)
    guide = np.floor(3 * drawn) if restorer.guide == "label" else drawn / drawn.sum(1, keepdims=True).clip(1e-9)
    return np.concatenate((blurred, guide), 1, dtype=np.float32)


@pytest.mark.slow
@exported_systems
def test_results_are_those_of_pytorch_at_any_size(case, exported):
    folder, _ = exported(case)
    session, restorer = opened(folder / "best.onnx"), load_weights(folder).restorer
    multiple = restorer.multiple
    for batch, rows, columns in ((1, 16, 17), (2, 27, 16), (5, 19, 33)):
        blurred = with_guide(images(batch, rows * multiple + 64, columns * multiple + 64), restorer)
        (sharp,) = session.run(None, {"blurred": blurred})
        expected = restorer(torch.from_numpy(blurred)).numpy()
        assert sharp.dtype == np.float32
        assert sharp.shape == (batch, 3, *(restorer.scale * side for side in blurred.shape[2:]))
        np.testing.assert_allclose(sharp, expected, rtol=0, atol=1e-4)
        assert sharp.std() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in WHOLE if case != "as-cyclegan prior"])
def test_metadata_suffice_to_deblur_a_photograph(case, exported):
    folder, facts = exported(case)
    session = opened(folder / "best.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    about = {key.removeprefix("trainers."): value for key, value in metadata.items()}
    assert about["system"] == facts["system"] == WHOLE[case][0]
    assert about["step"] == "7"
    assert "[-1, 1]" in about["input"]
    assert json.loads(about["config"])["width"] == 4
    assert about.get("way", "").partition("(")[0] == ("Iterate" if facts["system"] == "singan" else "")
    photo = np.random.default_rng(0).integers(0, 256, (71, 50, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (71, 50), dtype=np.uint8)
    multiple, least, scale = (int(about[name]) for name in ("multiple", "least_side_px", "scale"))
    missing = [(0, -(-max(side, least) // multiple) * multiple - side) for side in photo.shape[:2]]
    padded = np.pad(photo, (*missing, (0, 0)), mode="reflect")
    blurred, guide = (padded.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1), {}
    if "label" in about.get("guide", ""):
        assert about["guide"] == "channels 3 to 3 of the input: the label map, the number of the class of each pixel"
        blurred = np.concatenate((blurred, np.pad(labels, missing, mode="reflect")[None]), dtype=np.float32)
        guide = {"guide": labels}
    (value,) = session.run(None, {"blurred": blurred[None]})
    levels = np.round(np.clip((value[0] + 1) * 127.5, 0, 255)).transpose(1, 2, 0).astype(np.uint8)
    found = levels[: scale * photo.shape[0], : scale * photo.shape[1]]
    assert np.abs(found.astype(int) - deblur_image(folder, photo, **guide)).max() <= 1


@pytest.mark.slow
@exported_systems
def test_file_says_what_it_takes_and_nothing_of_the_machine(case, exported):
    import onnx

    folder, facts = exported(case)
    data = (folder / "best.onnx").read_bytes()
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == exporting.OPSET == 18
    assert [value.name for value in model.graph.input] == ["blurred"]
    sides = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides[1] == load_weights(folder).restorer.channels
    assert all(isinstance(side, str) and side for side in (sides[0], *sides[2:]))
    assert str(ROOT).encode() not in data
    assert facts["bytes"] == len(data)
    assert facts["largest difference from pytorch"] < 1e-4


@pytest.mark.slow
def test_code_of_the_blur_can_be_drawn(exported):
    folder, facts = exported("disentangled", "--with-code")
    session, restorer = opened(folder / "best.onnx"), load_weights(folder).restorer
    assert "mean + epsilon * deviation" in facts["code"]
    blurred = images(2, 68, 92)
    epsilon = np.random.default_rng(1).standard_normal((2, restorer.latent)).astype(np.float32)
    for drawn in (epsilon, 0 * epsilon):
        (sharp,) = session.run(None, {"blurred": blurred, "epsilon": drawn})
        expected = restorer(torch.from_numpy(blurred), torch.from_numpy(drawn)).numpy()
        np.testing.assert_allclose(sharp, expected, rtol=0, atol=1e-4)
    assert np.abs(expected - restorer(torch.from_numpy(blurred), torch.from_numpy(epsilon)).numpy()).max() > 1e-3
    np.testing.assert_allclose(sharp, restorer(torch.from_numpy(blurred)).numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_results_that_differ_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    folder, to_onnx = run_folder(tmp_path / "run", "deblurgan"), exporting.to_onnx

    def wrong(restorer, *arguments):
        restorer.generator.decoder[-2].bias.data += 0.3
        encoded = to_onnx(restorer, *arguments)
        restorer.generator.decoder[-2].bias.data -= 0.3
        return encoded

    monkeypatch.setitem(exporting.FORMATS, "onnx", wrong)
    result = run("export", folder)
    assert result.exit_code == 1
    assert re.search(r"differ from PyTorch's by 0\.\d+, more than 0.0001, so nothing was written", result.stderr)
    assert not list(folder.glob("*.onnx"))


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name != "onnx" else object())
    result = run("export", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: trainers export needs onnxscript, onnxruntime, not installed here: "
        'run `pip install "blurgen[export]"`\n'
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--with-code",), "deblurgan has no code of the blur: leave out --with-code"),
        (("--out", "net.pt"), "the name of the file must end in .onnx, got net.pt"),
        (("--to", "onx"), "'onx' is not 'onnx'"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "require_packages", lambda: None)
    result = run("export", run_folder(tmp_path / "run", "deblurgan"), *words)
    assert result.exit_code != 0
    assert sentence in result.stderr


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="to must be one of onnx, got 'tflite'"):
        exporting.export(tmp_path, to="tflite")


@pytest.mark.slow
def test_importing_the_module_loads_no_onnx():
    shown = subprocess.run(
        [sys.executable, "-c", "import sys, trainers.export; print(*sys.modules)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert shown.returncode == 0, shown.stderr
    assert not {"onnx", "onnxruntime", "onnxscript"} & set(shown.stdout.split())
