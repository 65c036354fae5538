"""Evaluations of systems that enlarge, beside bicubic and other systems, on shards and folders; of several sets."""

import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import toy_system
from click.testing import CliRunner
from photos import photo, write_png
from shard_data import grouped
from skimage.metrics import peak_signal_noise_ratio

from blurgen.shards import Layout
from trainers.cli import main
from trainers.eval_options import EvalOptions
from trainers.evaluate import evaluate, evaluate_each, find_pairs, load_systems
from trainers.held_out import folder_pairs, read_roles
from trainers.infer import deblur_image
from trainers.report import default_folder, example_sheet, folders_of, table, write
from trainers.resizing import enlarged, reduced
from trainers.weights import load_weights

SMALL = {"width": 2, "scales": 1, "crop": 32, "batch": 2, "steps": 1, "workers": 0, "device": "cpu"}
BEFORE, AFTER = "bicubic, then toy", "toy, then bicubic"


def pages(folder, prefix):
    groups = [f"{prefix}{number}" for number in range(20)]
    return grouped(groups, Layout(32, 3, (2,)), prefix=prefix).write(folder / f"{prefix}.h5")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return runs of an enlarging system, of another on the same shards, and of one on all images of other shards."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        shards, other = pages(folder, "a"), pages(folder, "b")
        toy_system.train_here("disentangled-sr", data=shards, out=folder / "run", **SMALL)
        for name, data in (("toy", shards), ("elsewhere", other)):
            toy_system.train_here(data=data, out=folder / name, steps=1, workers=0, device="cpu")
    return SimpleNamespace(folder=folder, shards=shards, other=other, run=folder / "run", toy=folder / "toy")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def keys_bicubic(values, factor):
    """Return an enlargement along the first axis: Keys' kernel with a = -1/2, cut off at the border."""
    rows = np.zeros((len(values) * factor, *values.shape[1:]))
    for row in range(len(rows)):
        centre, total = (row + 0.5) / factor - 0.5, 0
        for source in range(max(0, int(np.floor(centre)) - 1), min(len(values), int(np.floor(centre)) + 3)):
            x = abs(source - centre)
            weight = 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            rows[row] += weight * values[source]
            total += weight
        rows[row] /= total
    return rows


@pytest.mark.parametrize("factor", [2, 4])
def test_enlargement_is_bicubic(factor):
    image = photo(0, 9, 12)
    across = keys_bicubic(image.astype(float).transpose(1, 0, 2), factor).transpose(1, 0, 2).clip(0, 255)
    expected = keys_bicubic(across, factor).clip(0, 255)
    assert enlarged(image, factor).shape == (9 * factor, 12 * factor, 3)
    # Both passes are rounded.
    assert np.abs(enlarged(image, factor) - expected).max() <= 1.6
    assert np.array_equal(enlarged(image, 1), image)


def test_rows_hold_bicubic_the_output_and_the_system_beside(made):
    evaluation = evaluate(EvalOptions(beside=made.toy), made.run)
    assert list(evaluation.means) == ["input", "output", BEFORE, AFTER]
    assert (evaluation.facts["scale"], evaluation.facts["beside"]) == (2, str(load_weights(made.toy).path))
    assert len(evaluation.images) == 2
    for pair, image in zip(evaluation.pairs, evaluation.images, strict=True):
        assert (pair.blurred.shape, pair.sharp.shape) == ((16, 16, 3), (32, 32, 3))
        assert (image.height, image.width) == (32, 32)
        larger = enlarged(pair.blurred, 2)
        shown = {
            "input": larger,
            "output": deblur_image(made.run, pair.blurred, device="cpu"),
            BEFORE: deblur_image(made.toy, larger, device="cpu"),
            AFTER: enlarged(deblur_image(made.toy, pair.blurred, device="cpu"), 2),
        }
        for row, picture in shown.items():
            assert image.rows[row]["psnr"] == pytest.approx(peak_signal_noise_ratio(pair.sharp, picture)), row
            assert ("seconds" in image.rows[row]) == (row != "input")
    lines = table(evaluation).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["input, bicubic", "output", BEFORE, AFTER]
    # Five pictures of 64 px and what parts them, under a caption that may be wider.
    assert example_sheet(evaluation).shape[1] >= 5 * (64 + 4)


def test_images_that_either_system_was_trained_on_are_left_out(made):
    tested = {line.split("\t")[1] for line in (made.run / "split.tsv").read_text().splitlines() if line[:4] == "test"}

    def count(shards, beside):
        options = EvalOptions(beside=beside)
        return len(find_pairs(options, load_systems(options, made.run, "cpu"), shards, None).pairs)

    kept = [digest for digest, roles in read_roles(made.folder / "elsewhere").items() if roles == {"test"}]
    assert count(made.other, None) == 20
    assert count(made.other, made.folder / "elsewhere") == len(kept) == 2
    assert count(made.shards, made.folder / "elsewhere") == len(tested) == 2


@pytest.mark.parametrize(
    ("weights", "beside", "sentence"),
    [
        ("toy", "toy", "--beside compares systems that enlarge with others: give a run of such a system to measure"),
        (None, "toy", "--beside compares systems that enlarge with others"),
        (
            "run",
            "run",
            r"--beside must be a system that does not enlarge, and .*run/.* holds disentangled-sr: give a run",
        ),
    ],
)
def test_systems_that_cannot_stand_beside_each_other_are_refused(made, weights, beside, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(EvalOptions(data=(made.shards,), beside=made.folder / beside), weights and made.folder / weights)


def test_shards_without_low_resolution_images_are_refused(made, tmp_path):
    plain = grouped([*"abcd"], Layout(32)).write(tmp_path / "plain.h5")
    with pytest.raises(
        ValueError, match=r"plain.h5 holds no blurred_x2 images: make shards with `blurgen make --lowres 2`"
    ):
        evaluate(EvalOptions(data=(plain,)), made.run)


def area_mean(image, factor):
    values = image / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    height, width = (side // factor for side in image.shape[:2])
    means = light.reshape(height, factor, width, factor, 3).mean((1, 3))
    return np.where(means <= 0.0031308, 12.92 * means, 1.055 * means ** (1 / 2.4) - 0.055) * 255


def test_real_pairs_of_one_size_are_reduced_and_smaller_ones_taken_as_they_are(tmp_path):
    blurred, sharp = tmp_path / "blur", tmp_path / "sharp"
    images = {"even": photo(0, 40, 52), "odd": photo(1, 41, 53), "small": photo(2, 20, 26)}
    for name, image in images.items():
        write_png(blurred / f"{name}.png", image)
        write_png(sharp / f"{name}.png", photo(9, *((40, 52) if name == "small" else image.shape[:2])))
    pairs = {pair.key: pair for pair in folder_pairs(blurred, sharp, scale=2).pairs}
    for name, image in images.items():
        pair = pairs[f"{name}.png"]
        assert pair.sharp.shape == (40, 52, 3)
        np.testing.assert_array_equal(pair.sharp, photo(9, 41, 53)[:40, :52] if name == "odd" else photo(9, 40, 52))
        if name == "small":
            np.testing.assert_array_equal(pair.blurred, image)
        else:
            assert np.abs(pair.blurred - area_mean(image[:40, :52], 2)).max() <= 0.51
    np.testing.assert_array_equal(reduced(images["even"], 2), pairs["even.png"].blurred)
    write_png(blurred / "odd.png", photo(3, 21, 26))
    sentence = r"odd.png and odd.png must be of one size, or the sharp one 2 times larger, got 26x21 and 53x41 px"
    with pytest.raises(ValueError, match=sentence):
        folder_pairs(blurred, sharp, scale=2)


def invoke(*arguments):
    shown = CliRunner().invoke(main, ["eval", *map(str, arguments)])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_command_measures_the_same_weights_on_several_sets(made, tmp_path):
    sets = ("--data", made.shards, "--data", made.other)
    shown = invoke(made.toy, *sets, "--quiet", "--limit", 2)
    assert shown.count("median dB") == shown.count("output ") == 2
    assert f"data: {made.shards}\n" in shown
    assert f"data: {made.other}\n" in shown
    said = json.loads(invoke(made.toy, *sets, "--quiet", "--limit", 2, "--json", "--out", tmp_path / "out"))["sets"]
    assert [one["data"] for one in said] == [str(made.shards), str(made.other)]
    for name, one in zip(("a", "b"), said, strict=True):
        rows = list(csv.DictReader((tmp_path / f"out/{name}-test/images.csv").open()))
        assert len(rows) == 2 * one["images"] == 4
        stored = json.loads((tmp_path / f"out/{name}-test/eval.json").read_text())
        assert stored["rows"] == one["rows"]
        sheet = cv2.imread(str(tmp_path / f"out/{name}-test/examples.png"))
        assert sheet.shape[1] >= 3 * (64 + 4)


def test_sets_of_one_name_have_folders_of_their_own(made, tmp_path):
    options = EvalOptions(data=(made.shards, made.shards), limit=1)
    evaluations = evaluate_each(options, made.toy)
    folders = folders_of(evaluations, options)
    assert folders == [made.toy / "eval" / name for name in ("a-test-limit1", "a-test-limit1-2")]
    assert folders_of(evaluations[:1], EvalOptions(out=tmp_path)) == [tmp_path]
    assert default_folder(evaluations[0], options) == folders[0]
    assert write(evaluations[0], tmp_path / "one")[1].is_file()
    with pytest.raises(ValueError, match="data must name one set here, got 2: evaluate_each takes several"):
        evaluate(options, made.toy)
