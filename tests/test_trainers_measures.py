"""What networks that segment and programs that read say of restored images, in evaluations."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from shard_data import content
from sklearn.metrics import jaccard_score

from blurgen.cli import main as blurgen
from blurgen.shards import Layout
from blurgen.words import bytes_of
from trainers import report
from trainers.cli import main as trainers
from trainers.eval_options import EvalOptions
from trainers.evaluate import evaluate, evaluate_each

TEXTS = ("one page of words", "another\npage", "", "equal page")


class Brightness:
    """A network of three classes: dark, middling and bright."""

    classes = 3

    def __init__(self, name, device):
        assert name == "brightness"

    def __call__(self, image):
        return image[..., 1].astype(np.int64) // 86


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Write four pairs, of which the last is of equal images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = content(4, Layout(16, transcript=32), sources=4)
    made.meta["source"] = range(4)
    made.arrays["transcript"][:] = [bytes_of(text, 32) for text in TEXTS]
    made.arrays["blurred"][3] = made.arrays["sharp"][3]
    return made, made.write(tmp_path / "shards.h5")


def test_iou_is_over_all_pixels_of_the_blurred_images_of_a_set(shards, monkeypatch):
    made, path = shards
    monkeypatch.setattr("trainers.evaluate.Segmenter", Brightness)
    # All images of another set are equal, and count.
    other = content(2, Layout(16), sources=2, seed=5)
    other.arrays["blurred"][:] = other.arrays["sharp"]
    other_path = other.write(path.with_name("other.h5"))
    both = evaluate_each(EvalOptions(data=(path, path, other_path), segmenter="brightness"))
    sharp, blurred = (made.arrays[side][..., 1] // 86 for side in ("sharp", "blurred"))
    expected = jaccard_score(sharp[:3].ravel(), blurred[:3].ravel(), average="macro")
    assert both.pop().means["input"]["iou"][0] == 1
    for evaluation in both:
        assert evaluation.facts["weights_of_iou"] == "brightness"
        value, spread = evaluation.means["input"]["iou"]
        assert value == pytest.approx(expected)
        assert math.isnan(spread)
        for number, image in enumerate(evaluation.images):
            alone = jaccard_score(sharp[number].ravel(), blurred[number].ravel(), average="macro")
            assert image.rows["input"]["iou_of_image"] == pytest.approx(alone)
    assert f"{expected:.4f}\n" in report.table(both[0]) + "\n"
    assert report.summary(both[0])["rows"]["input"]["iou"] == {"mean": pytest.approx(expected), "std": None}


def test_error_rates_are_those_of_each_row_and_of_pages_with_words(shards, monkeypatch, tmp_path):
    made, path = shards
    read = {made.arrays["sharp"][number].tobytes(): text for number, text in enumerate(TEXTS)}
    read |= {made.arrays["blurred"][number].tobytes(): text[2:] for number, text in enumerate(TEXTS[:3])}
    monkeypatch.setattr("trainers.evaluate.open_tesseract", lambda languages: (lambda x: read[x.tobytes()], languages))
    evaluation = evaluate(EvalOptions(data=(path,), ocr=True, ocr_lang="eng+ell"))
    assert evaluation.facts["weights_of_cer"] == "eng+ell"
    rates = [2 / 17, 2 / 12]
    assert evaluation.means["input"]["cer"] == (pytest.approx(np.mean(rates)), pytest.approx(np.std(rates)))
    assert evaluation.means["sharp"] == {"cer": (0, 0)}
    assert list(evaluation.median_psnr_db) == ["input"]
    assert math.isnan(evaluation.images[2].rows["input"]["cer"])
    report.write(evaluation, tmp_path / "out")
    lines = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert [float(line["cer"]) for line in lines if line["row"] == "input"][:2] == pytest.approx(rates)
    assert [line["psnr"] for line in lines if line["row"] == "sharp"] == [""] * 4
    kept = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert kept["rows"]["sharp"]["cer"]["mean"] == 0
    assert report.table(evaluation).splitlines()[-1].split() == ["sharp", "0.0000", "±", "0.0000"]


def test_reading_needs_transcripts(tmp_path):
    path = content(2, Layout(16)).write(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"--ocr compares .* give shards of `blurgen make --src text --transcripts`"):
        evaluate(EvalOptions(data=(path,), ocr=True))
    with pytest.raises(ValueError, match="ocr_lang ell says what Tesseract reads: give --ocr, too"):
        EvalOptions(ocr_lang="ell")


def test_help_lists_the_metrics():
    shown = " ".join(CliRunner().invoke(trainers, ["eval", "--help"]).stdout.split())
    for name in ("psnr", "ssim", "correlation", "fourier", "fourier_mag", "d_vgg", "lpips", "iou", "cer"):
        assert name in shown


@pytest.mark.slow
def test_pages_are_made_read_and_segmented_by_commands(tmp_path, monkeypatch):
    pytest.importorskip("pytesseract")
    if shutil.which("tesseract") is None:
        pytest.skip("the program Tesseract is not installed: `apt-get install tesseract-ocr`")
    from test_trainers_segment import _tiny

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _tiny("segformer", tmp_path / "segformer")
    page = ("source.plain=true", "source.layout=article", "source.letters=2", "source.width=512", "source.height=512")
    settings = [word for setting in page for word in ("--set", setting)]
    blur = ["--kernel", "walk", "--set", "kernel.length_px=40"]
    command = ["make", "--src", "text", *settings, "--crop", "512", "--count", "3", *blur, "--transcripts"]
    made = CliRunner().invoke(blurgen, [*command, "--backend", "threading", "--out", str(tmp_path / "pages.h5")])
    assert made.exit_code == 0, made.output
    arguments = ["eval", "--data", tmp_path / "pages.h5", "--ocr", "--segmenter", tmp_path / "segformer", "--json"]
    result = CliRunner().invoke(trainers, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert rows["sharp"]["cer"]["mean"] < 0.1 < rows["input"]["cer"]["mean"]
    assert 0 < rows["input"]["iou"]["mean"] < 1
