"""Evaluations: what is measured on what, and what is left behind."""

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import toy_system
from click.testing import CliRunner
from photos import photo, write_pairs, write_png
from skimage.metrics import peak_signal_noise_ratio

from blurgen.options import Chosen
from trainers.bench import COST, Meter, aligned
from trainers.cli import main
from trainers.eval_options import EvalOptions
from trainers.evaluate import Evaluation, evaluate
from trainers.lpips import Lpips
from trainers.report import default_folder, example_sheet, summary, table, write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train the toy for two steps."""
    folder = tmp_path_factory.mktemp("run")
    shards = toy_system.write_shards(folder / "shards.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        toy_system.train_here(data=shards, out=folder / "out", steps=2, workers=0)
    return folder / "out"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folders(tmp_path):
    return write_pairs(tmp_path / "real")


def test_shift_is_found_and_undone():
    sharp = photo(0, 60, 70)
    image = np.roll(cv2.GaussianBlur(sharp, (0, 0), 1), (3, -4), (0, 1))
    part, middle, offsets = aligned(image, sharp, 5)
    assert offsets == (3, -4)
    np.testing.assert_array_equal(middle, sharp[5:-5, 5:-5])
    np.testing.assert_array_equal(part, image[8:58, 1:61])
    assert aligned(sharp, sharp, 5)[2] == (0, 0)
    with pytest.raises(ValueError, match=r"--align 30 needs images above 60 px a side, got 70x60"):
        aligned(image, sharp, 30)


def test_rows_hold_the_input_the_output_and_blank_pages(run):
    evaluation = evaluate(EvalOptions(blank=True), run)
    assert list(evaluation.means) == ["input", "output", "white", "mean"]
    assert evaluation.facts["data"] == str(run.parent / "shards.h5")
    assert evaluation.facts["step"] == 2
    tested = [line.split("\t")[2] for line in (run / "split.tsv").read_text().splitlines() if line.startswith("test")]
    assert sorted(image.key for image in evaluation.images) == sorted(tested)
    for pair, image in zip(evaluation.pairs, evaluation.images, strict=True):
        rows, sharp = image.rows, pair.sharp
        white, mean = np.full_like(sharp, 255), np.full_like(sharp, np.rint(sharp.mean((0, 1))))
        for row, shown in (("input", pair.blurred), ("white", white), ("mean", mean)):
            assert rows[row]["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, shown))
        assert rows["output"]["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, toy_output(run, pair.blurred)))
        assert image.merit_db == rows["output"]["psnr"] - rows["input"]["psnr"]
        assert rows["output"]["seconds"] > 0
        assert 50 < rows["output"]["peak_mib"] < 10_000
        assert "seconds" not in rows["input"]


def test_pairs_of_equal_images_are_left_out_of_the_means(run, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    for side in ("blur", "sharp"):
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "equal.png"), pixels)
        cv2.imwrite(str(tmp_path / side / "other.png"), pixels if side == "sharp" else pixels[::-1])
    evaluation = evaluate(EvalOptions(), run, (tmp_path / "blur", tmp_path / "sharp"))
    other = next(image for image in evaluation.images if image.key == "other.png")
    assert len(evaluation.images) == 2
    assert evaluation.means["input"]["psnr"] == (pytest.approx(other.rows["input"]["psnr"]), 0.0)
    assert evaluation.gain_db == pytest.approx(other.merit_db)
    assert evaluation.median_psnr_db["output"] == other.rows["output"]["psnr"]
    assert any("1 of 2 pairs are equal images" in note for note in evaluation.notes)
    assert example_sheet(evaluation).shape[2] == 3


def toy_output(run, blurred):
    """Compute the toy's output in float64 from what the weights file holds."""
    from safetensors.numpy import load_file

    name = "best.safetensors" if (run / "best.safetensors").exists() else "last.safetensors"
    tensors = {key.rpartition(".")[2]: value.astype(float) for key, value in load_file(run / name).items()}
    padded = np.pad(blurred / 127.5 - 1, ((1, 1), (1, 1), (0, 0)), "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    values = np.tanh(np.einsum("hwcij,ocij->hwo", windows, tensors["weight"]) + tensors["bias"])
    return np.rint(np.clip((values + 1) * 127.5, 0, 255)).astype(np.uint8)


def test_means_and_spreads_are_those_of_the_images(run):
    evaluation = evaluate(EvalOptions(), run)
    values = [image.rows["input"]["ssim"] for image in evaluation.images]
    assert len(values) > 1
    assert evaluation.means["input"]["ssim"] == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))
    gains = [image.rows["output"]["psnr"] - image.rows["input"]["psnr"] for image in evaluation.images]
    assert evaluation.gain_db == pytest.approx(np.mean(gains))
    assert evaluation.improved == sum(gain > 0 for gain in gains)


def test_evaluation_repeats_itself(run):
    def values():
        rows = [image.rows["output"] for image in evaluate(EvalOptions(), run).images]
        return [{name: value for name, value in row.items() if name not in COST} for row in rows]

    assert values() == values()


def test_weights_alone_are_measured_with_a_warning(run, tmp_path, folders):
    weights = tmp_path / "elsewhere/last.safetensors"
    weights.parent.mkdir()
    weights.write_bytes((run / "last.safetensors").read_bytes())
    evaluation = evaluate(EvalOptions(), weights, folders)
    assert len(evaluation.images) == 3
    assert evaluation.notes[-1].startswith(f"there is no split.tsv beside {weights}: it may have been trained on some")
    with pytest.raises(ValueError, match="what to measure on is missing: give --data SHARDS or --pairs BLURRED SHARP"):
        evaluate(EvalOptions(), weights)
    with pytest.raises(ValueError, match="--data and --pairs both say what to measure on"):
        evaluate(EvalOptions(data=(tmp_path,)), weights, folders)
    with pytest.raises(FileNotFoundError, match=r"none.h5 does not exist: name shards with --data"):
        evaluate(EvalOptions(data=(tmp_path / "none.h5",)), weights)


def test_input_alone_needs_no_weights(folders):
    evaluation = evaluate(EvalOptions(align=2, limit=2), None, folders)
    assert list(evaluation.means) == ["input"]
    assert math.isnan(evaluation.gain_db)
    assert {image.rows["input"]["shift_y"] for image in evaluation.images} == {0}
    assert evaluation.facts["aligned_by_up_to_px"] == 2
    assert default_folder(evaluation, EvalOptions()) is None
    assert "gain_db" not in summary(evaluation)


def test_learned_metrics_join_when_their_weights_are_there(folders, tmp_path):
    assert "d_vgg" not in evaluate(EvalOptions(limit=1), None, folders).means["input"]
    tensors = {name: torch.rand(tensor.shape) / 99 for name, tensor in Lpips().state_dict().items()}
    for file, prefix in (("alexnet.pth", "features"), ("heads.pth", "lin")):
        torch.save({name: t for name, t in tensors.items() if name.startswith(prefix)}, tmp_path / file)
    options = EvalOptions(
        limit=1, vgg_weights="random", alexnet_weights=tmp_path / "alexnet.pth", lpips_weights=tmp_path / "heads.pth"
    )
    evaluation = evaluate(options, None, folders)
    assert evaluation.means["input"]["d_vgg"][0] > 0
    assert evaluation.means["input"]["lpips"][0] > 0
    assert evaluation.facts["weights_of_d_vgg"] == "random (seed 0), layers 0 to 36, normalised input"
    assert "sha256" in evaluation.facts["weights_of_lpips"]


def test_files_hold_every_image(run, tmp_path):
    evaluation = evaluate(EvalOptions(align=1), run)
    assert default_folder(evaluation, EvalOptions(align=1)) == run / "eval/shards-test-aligned1"
    paths = write(evaluation, tmp_path / "new/folder")
    rows = list(csv.DictReader(paths[0].open()))
    said = json.loads(paths[1].read_text())
    assert len(rows) == 2 * len(evaluation.images)
    for number, (image, stored) in enumerate(zip(evaluation.images, said["per_image"], strict=True)):
        before, after = rows[2 * number : 2 * number + 2]
        assert (before["row"], after["row"]) == ("input", "output")
        assert float(after["psnr"]) == stored["output"]["psnr"] == image.rows["output"]["psnr"]
        assert (before["seconds"], float(after["shift_x"])) == ("", stored["output"]["shift_x"])
        assert stored["image"] == before["image"] == image.key
    assert said["rows"]["input"]["ssim"]["mean"] == evaluation.means["input"]["ssim"][0]
    assert cv2.imread(str(paths[2])) is not None


def test_ways_to_restore_have_folders_of_their_own():
    facts = {"weights": "run/last.safetensors", "data": "a.h5", "split": "test"}
    plain, oracle = Evaluation(facts, (), (), ()), Evaluation(facts | {"protocol": "oracle"}, (), (), ())
    inject = EvalOptions(infer=Chosen("inject", {"from_scale": 2}), limit=3)
    assert default_folder(oracle, inject) == Path("run/eval/a-test-oracle-inject-from_scale2-limit3")
    assert default_folder(plain, EvalOptions(mc_dropout=True, seed=4)) == Path("run/eval/a-test-dropout4")


def test_what_is_not_finite_stays_valid_json(tmp_path):
    write_png(tmp_path / "a/0.png", photo(0, 10, 10))
    write_png(tmp_path / "a/1.png", np.full((20, 20, 3), 255, np.uint8))
    evaluation = evaluate(EvalOptions(blank=True), None, (tmp_path / "a", tmp_path / "a"))
    text = write(evaluation, tmp_path / "out")[1].read_text()
    said = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert said["rows"]["input"]["psnr"] == {"mean": None, "std": None, "median": None}
    assert said["per_image"][0]["input"]["ssim"] is None
    assert said["per_image"][1]["white"]["correlation"] is None
    assert said["rows"]["input"]["ssim"] == {"mean": 1, "std": 0}
    lines = table(evaluation).splitlines()
    assert lines[0].split() == ["median", "dB", "psnr", "dB", "ssim", "correlation", "fourier", "fourier_mag"]
    assert lines[1].split()[:6] == ["input", "inf", "inf", "1.0000", "±", "0.0000"]


def test_sheet_shows_the_best_the_median_and_the_worst(folders):
    evaluation = evaluate(EvalOptions(), None, folders)
    ranks = sorted(evaluation.images, key=lambda image: -image.rows["input"]["psnr"])
    sheet = example_sheet(evaluation)
    top = 0
    for image in ranks:
        pair = next(pair for pair in evaluation.pairs if pair.key == image.key)
        height, width = (2 * side for side in pair.sharp.shape[:2])
        shown = [picture.repeat(2, 0).repeat(2, 1) for picture in (pair.blurred, pair.sharp)]
        places = range(top, len(sheet) - height + 1)
        found = next(y for y in places if np.array_equal(sheet[y : y + height, :width], shown[0]))
        np.testing.assert_array_equal(sheet[found : found + height, width + 4 : 2 * width + 4], shown[1])
        top = found + height


def test_peak_memory_sees_what_was_freed():
    meter = Meter(torch.device("cpu"))
    image = photo(0)
    _, little = meter.run(lambda given: given, image)
    result, much = meter.run(lambda given: np.ones(200 * 2**17).astype(np.float64)[:0], image)
    assert len(result) == 0
    assert much["peak_mib"] - little["peak_mib"] > 150
    _, after = meter.run(lambda given: given, image)
    assert after["peak_mib"] < much["peak_mib"] - 150


def invoke(*arguments):
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def test_command_prints_the_table_and_writes_beside_the_run(run):
    shown = invoke(run, "--quiet", "--blank")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert f"weights: {run / 'best.safetensors'}" in lines
    assert [line.split("  ")[0] for line in lines if " ± " in line] == ["input", "output", "white page", "mean colour"]
    assert (run / "eval/shards-test/images.csv").exists()
    as_json = json.loads(invoke(run, "--quiet", "--json", "--limit", 1).stdout)
    assert as_json["images"] == 1
    assert as_json["files"][0] == str(run / "eval/shards-test-limit1/images.csv")


def test_command_measures_folders_without_a_run(folders, tmp_path):
    shown = invoke("--pairs", *folders, "--quiet", "--out", tmp_path / "there")
    assert shown.exit_code == 0, shown.output
    assert "2 images have no partner and are left out, such as 'alone.png'" in shown.stderr
    assert shown.stdout.splitlines()[-1] == str(tmp_path / "there/examples.png")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--limit", "0"], 2, "Error: limit must be at least 1, got 0"),
        (["--align", "-1"], 2, "Error: align must be at least 0, got -1"),
        ([], 1, "Error: what to measure on is missing: give --data SHARDS or --pairs BLURRED SHARP"),
        (["none.safetensors"], 1, "Error: none.safetensors does not exist: name the folder of a run"),
        (["--pairs", "none", "."], 1, "Error: none is no folder: --pairs needs one of blurred and one of sharp images"),
    ],
)
def test_command_ends_mistakes_in_one_sentence(arguments, code, message):
    shown = invoke(*arguments)
    assert (shown.exit_code, shown.stderr.count("\n")) == (code, 1)
    assert shown.stderr.startswith(message)


def test_command_ends_with_130_when_interrupted(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainers.evaluate.Bench.measure", interrupted)
    shown = invoke(run, "--quiet")
    assert shown.exit_code == 130
    assert "stopped; the same command starts anew" in shown.stderr


@pytest.mark.parametrize(
    ("blurred", "sharp", "options", "psnr_db", "ssim"),
    [
        ("gopro/pairs/blur", "gopro/pairs/sharp", {}, 22.55, 0.648),
        pytest.param("text_pan2014/blurred", "text_pan2014/sharp", {}, 15.81, 0.628, marks=pytest.mark.slow),
        ("text_pan2014/blurred", "text_pan2014/sharp", {"align": 8}, 16.64, 0.686),
    ],
)
def test_real_pairs_measure_as_known(data_root, blurred, sharp, options, psnr_db, ssim):
    found = evaluate(EvalOptions(match=r"_ker\d+_blur", **options), None, (data_root / blurred, data_root / sharp))
    assert found.means["input"]["psnr"][0] == pytest.approx(psnr_db, abs=0.006)
    assert found.means["input"]["ssim"][0] == pytest.approx(ssim, abs=0.0006)
