"""Dropout at test: drawn for the seed and the image, of whole images alone, refused where there is none."""

import cv2
import numpy as np
import pytest
import torch
from restorers import photograph
from toy_system import write_shards
from trainer_data import _quick_convolutions, rescaled, tiny  # noqa: F401

from blurgen.options import build
from trainers.deblur_options import DeblurOptions
from trainers.eval_options import EvalOptions
from trainers.evaluate import evaluate
from trainers.infer import Means, TooLarge, choose_mode, deblur_image, dropout_noise
from trainers.memory import activation_bytes, whole_image_bytes
from trainers.noise import Noise
from trainers.padding import PaddedImage
from trainers.photographs import deblur_photographs
from trainers.weights import save_weights

CPU = torch.device("cpu")


def method(name="deblurgan", **changes):
    """Return a system whose networks hand on what goes in."""
    made = rescaled(tiny(name, **changes))
    made.averaged.load_state_dict(made.restorer.state_dict())
    return made


def dropping(**changes):
    return method(**changes).averaged


def refused(name, **changes):
    return lambda: method(name, **changes).averaged


def test_dropout_is_drawn_for_the_seed_and_the_image_and_for_these_alone():
    restorer, image = dropping(), photograph(40, 52)
    plain, first, again = (deblur_image(restorer, image, device="cpu", dropout_seed=seed) for seed in (None, 3, 3))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, plain)
    assert not np.array_equal(first, deblur_image(restorer, image, device="cpu", dropout_seed=4))
    assert np.array_equal(plain, deblur_image(restorer, image, device="cpu"))
    draws = {tuple(dropout_noise(one, Means(CPU, dropout_seed=3)).samples) for one in (image, image[::-1], image[:-1])}
    assert len(draws) == 3


def test_share_of_the_values_that_dropout_drops_is_that_of_training(monkeypatch):
    restorer, seen = dropping(dropout=0.3), []
    kept = Noise.kept
    monkeypatch.setattr(Noise, "kept", lambda *given: seen.append(kept(*given)) or seen[-1])
    deblur_image(restorer, photograph(64, 64), device="cpu", dropout_seed=0)
    drawn = seen[-1]
    assert drawn.shape == (1, 2, 4 * 4, 16, 16)
    assert drawn.float().mean().item() == pytest.approx(0.7, abs=0.02)


def test_memory_of_a_dropout_is_told_beforehand():
    restorer, image = dropping(), PaddedImage(photograph(64, 96), 4, CPU)
    draws = 2 * 16 * 16 * 24
    plain, told = (activation_bytes(restorer, 64, 96, drops) for drops in (False, True))
    assert plain + draws <= told <= plain + 16 * draws
    needed = whole_image_bytes(restorer, 64, 96, dropping=True)
    assert choose_mode(restorer, image, Means(CPU, memory_bytes=needed, dropout_seed=0)) == "whole"
    with pytest.raises(TooLarge, match=r"with --mc-dropout, more than the .*: raise --memory-gib, or leave"):
        choose_mode(restorer, image, Means(CPU, memory_bytes=needed - 1, dropout_seed=0))


@pytest.mark.parametrize(
    ("restorer", "mode", "sentence"),
    [
        (refused("cyclegan"), "auto", "this run was trained without: leave it out"),
        (refused("deblurgan", dropout=0.0), "auto", "this run was trained without: leave it out"),
        (dropping, "exact", "values of whole images alone: leave out --tiles exact"),
        (dropping, "fast", "values of whole images alone: leave out --tiles fast"),
    ],
)
def test_dropout_is_refused_where_there_is_none_and_in_parts(restorer, mode, sentence):
    with pytest.raises(ValueError, match=sentence):
        deblur_image(restorer(), photograph(64, 64), device="cpu", tiles=mode, dropout_seed=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return files of weights by system."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("as-cyclegan", "cyclegan"):
        save_weights(folder / f"{name}.safetensors", method(name), {"step": 1})
    return {name: folder / f"{name}.safetensors" for name in ("as-cyclegan", "cyclegan")}


def test_photographs_are_deblurred_alike_for_one_seed_whatever_stands_beside_them(tmp_path, weights):
    (tmp_path / "in").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), photograph(40, 48 + number))

    def deblur(out, inputs, **options):
        made = deblur_photographs(
            DeblurOptions(tmp_path / out, device="cpu", **options), weights["as-cyclegan"], inputs
        )
        return {path.name: path.read_bytes() for path in made.written}

    both = deblur("both", [tmp_path / "in"], mc_dropout=True)
    alone = deblur("alone", [tmp_path / "in/1.png"], mc_dropout=True)
    assert alone.items() < both.items()
    assert deblur("seed", [tmp_path / "in/1.png"], mc_dropout=True, seed=1) != alone
    assert deblur("plain", [tmp_path / "in/1.png"], seed=1) != alone
    options = DeblurOptions(tmp_path / "none", device="cpu", mc_dropout=True)
    with pytest.raises(ValueError, match="--mc-dropout keeps the dropout of training"):
        deblur_photographs(options, weights["cyclegan"], [tmp_path / "in"])


def test_eval_measures_what_deblur_writes(tmp_path, weights):
    shards = write_shards(tmp_path / "shards.h5", count=4, crop=32)

    def measured(**options):
        chosen = build(EvalOptions, {"data": str(shards), "split": "all", "device": "cpu", "limit": 1, **options})
        return evaluate(chosen, weights["as-cyclegan"])

    dropped, plain = measured(mc_dropout=True, seed=2), measured()
    (pair,) = dropped.pairs
    sharp = np.asarray(pair.sharp, float)
    restored = deblur_image(weights["as-cyclegan"], pair.blurred, device="cpu", dropout_seed=2)
    expected = 10 * np.log10(255**2 / ((restored - sharp) ** 2).mean())
    assert dropped.images[0].rows["output"]["psnr"] == pytest.approx(expected)
    assert plain.images[0].rows["output"]["psnr"] != pytest.approx(expected)
    assert (dropped.facts["dropout_seed"], "dropout_seed" in plain.facts) == (2, False)


def test_eval_without_a_run_has_nothing_to_drop(tmp_path):
    shards = write_shards(tmp_path / "shards.h5", count=4, crop=32)
    with pytest.raises(ValueError, match="drops values inside of a network: give a run to measure, or leave it out"):
        evaluate(build(EvalOptions, {"data": str(shards), "mc_dropout": True, "device": "cpu"}))
