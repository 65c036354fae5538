"""How SinGAN restores an image, and its commands: run, deblur, eval with its protocols, list."""

import json

import cv2
import numpy as np
import pytest
import torch
from test_trainers_singan import SIZE, picture, system, tensor, trained
from trainer_data import _quick_convolutions  # noqa: F401
from trainers_command import ok, run

from blurgen.options import Chosen
from trainers.infer import Means, choose_mode, deblur_image
from trainers.memory import activation_bytes
from trainers.models import MODELS, method_class
from trainers.noise import Noise
from trainers.padding import PaddedImage
from trainers.pyramid import resized
from trainers.weights import load_weights, save_weights

CPU = torch.device("cpu")
PHOTO = (70, 93)


@pytest.fixture(scope="module")
def restorer():
    return trained(6)[0].averaged


@pytest.fixture
def chosen(restorer):
    def choose(name, **settings):
        restorer.choose(Chosen(name, settings))
        return restorer

    yield choose
    restorer.choose(None)


def photo(seed=3):
    return tensor(picture(*PHOTO, seed))


def test_iterating_makes_the_image_smaller_and_passes_the_finest_generator(restorer):
    """The ratio of this pyramid is sqrt(12 / 16): two steps below 70 x 93 px are 53 x 70, one is 61 x 81."""
    with torch.no_grad():
        image = resized(photo(), (46, 61))
        for size in ((53, 70), (61, 81), PHOTO):
            below = resized(image, size)
            image = restorer.generators[2](torch.zeros(()), below)
        torch.testing.assert_close(restorer(photo()), image.clamp(-1, 1))


def test_injecting_goes_through_the_scales_from_there(chosen):
    restorer = chosen("inject", from_scale=1)
    with torch.no_grad():
        image = resized(photo(), (53, 70))
        for scale, size in ((1, (61, 81)), (2, PHOTO)):
            below = resized(image, size)
            image = restorer.generators[scale](torch.zeros(()), below)
        torch.testing.assert_close(restorer(photo()), image.clamp(-1, 1))
    assert chosen("inject").passes() == [(1, 1), (2, 0)]


def test_restoring_at_the_finest_scale_is_restoring_a_smaller_image(chosen):
    restorer = chosen("iterate", size="finest")
    assert restorer.measured_size(*PHOTO) == (16, 20)
    small = chosen("iterate")(resized(photo(), (16, 20)))
    assert restorer.measured_size is None
    torch.testing.assert_close(chosen("iterate", size="finest")(photo()), resized(small, PHOTO).clamp(-1, 1))


def test_noise_is_that_of_the_scale_times_tau_and_depends_on_the_seed(chosen):
    plain, full = (chosen("iterate", k=1, tau=tau)(photo()) for tau in (0.0, 1.0))
    assert torch.equal(chosen("iterate", k=1, tau=1.0)(photo()), full)
    assert not torch.equal(chosen("iterate", k=1, tau=1.0, seed=1)(photo()), full)
    restorer = chosen("iterate", k=1, tau=0.5)
    below = resized(resized(photo(), (61, 81)), PHOTO)
    noise = 0.5 * restorer.noise.amplitudes[2] * Noise(0, 0, (0,), CPU).normal("pass 0", 3, *PHOTO)
    with torch.no_grad():
        expected = restorer.generators[2](noise, below).clamp(-1, 1)
    torch.testing.assert_close(restorer(photo()), expected)
    assert not torch.equal(plain, full)


def test_images_of_any_size_in_strips_and_in_batches_are_the_same(restorer, monkeypatch):
    whole = restorer(photo())
    monkeypatch.setattr("trainers.models.singan.STRIP_PX", 5 * PHOTO[1])
    torch.testing.assert_close(restorer(photo()), whole)
    both = restorer(torch.cat([photo(4), photo()]))
    torch.testing.assert_close(both[1:], whole)
    for size in ((1, 1), (3, 200)):
        image = np.zeros((*size, 3), np.uint16)
        assert deblur_image(restorer, image, device="cpu").shape == image.shape


def test_a_frame_of_gopro_is_computed_as_a_whole_in_little_memory():
    restorer = method_class("singan").Restorer(method_class("singan").Config()).eval()
    restorer.noise.reached = 8
    image = PaddedImage(np.zeros((720, 1280, 3), np.uint8), 1, CPU)
    assert choose_mode(restorer, image, Means(CPU, memory_bytes=1, tiles="exact")) == "whole"
    assert activation_bytes(restorer, 720, 1280) < 400 << 20
    assert activation_bytes(restorer, 1440, 2560) < 900 << 20


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("iterat", {}, "there is no --infer 'iterat': did you mean 'iterate'"),
        ("iterate", {"k": 0}, "infer.k must be 1 to 100, got 0"),
        ("iterate", {"kk": 1}, "there is no option 'infer.kk': did you mean 'infer.k'"),
        ("iterate", {"tau": 2.0}, r"infer.tau must be in \[0, 1\], got 2"),
        ("iterate", {"seed": -1}, "infer.seed must be at least 0"),
        ("iterate", {"size": "own"}, "infer.size must be one of native, finest, got 'own'"),
        ("inject", {"from_scale": 0}, "infer.from_scale must be at least 1, got 0"),
        ("inject", {"from_scale": 3}, "infer.from_scale must be 1 to 2, the finest scale, got 3"),
    ],
)
def test_ways_that_there_are_not_are_refused(restorer, name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        restorer.choose(Chosen(name, settings))


def test_before_the_end_of_training_the_finest_scale_that_has_begun_restores(tmp_path):
    method, _ = trained(3)
    assert method.averaged.passes() == [(1, 2), (1, 1), (1, 0)]
    scales = method.restorer.pyramid.scales
    assert method.averaged.caveat.startswith(f"training stopped at scale 2 of {scales}: ")
    method.averaged.choose(Chosen("inject", {"from_scale": 2}))
    with pytest.raises(ValueError, match=r"infer\.from_scale must be at most 1, the finest scale that was trained yet"):
        method.averaged(photo())
    new = system().averaged
    assert new(photo()).shape == (1, 3, *PHOTO)
    new.choose(Chosen("inject"))
    with pytest.raises(ValueError, match=r"only the coarsest scale was trained yet.*give --infer iterate"):
        new(photo())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "singan"])
def test_other_systems_restore_in_one_way(name):
    with pytest.raises(
        ValueError, match=r"--infer chooses between the ways .* this one has a single way, got 'iterate'"
    ):
        method_class(name).Restorer.choose(None, Chosen("iterate"))


RUN = ("run", "singan", "--width", 2, "--crop", 20, "--coarsest", 12, "--iterations", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Return a folder with a run on one of two sharp images, and both pairs."""
    folder = tmp_path_factory.mktemp("scene")
    for number, name in enumerate(("own", "other")):
        sharp = picture(32, 40, seed=number)
        for side, image in (("sharp", sharp), ("blurred", cv2.blur(sharp, (5, 1)))):
            (folder / side).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / side / f"{name}.png"), image)
    pair = ("--test-blurred", folder / "blurred" / "other.png", "--test-sharp", folder / "sharp" / "other.png")
    result = ok(*RUN, "--image", folder / "sharp" / "own.png", *pair, "--out", folder / "run", "--json", "--quiet")
    return folder, json.loads(result.stdout)


def test_run_trains_all_scales_and_states_the_protocol_of_its_figure(scene):
    folder, facts = scene
    assert (facts["steps"], facts["epochs"], facts["protocol"]) == (6, 3.0, "neighbour")
    assert facts.keys() >= {"reconstruction_psnr_db", "validation_psnr_db", "validation_input_psnr_db"}
    assert sorted(path.name for path in (folder / "run").glob("*.safetensors")) == ["last.safetensors"]
    assert (folder / "run" / "sheets" / "00000006.png").is_file()
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["protocol"] == "neighbour"
    weights = load_weights(folder / "run")
    assert (weights.config.image_height, weights.config.image_width) == (32, 40)
    assert weights.restorer.noise.reached == weights.config.pyramid.scales == 3


def test_eval_says_for_each_figure_what_was_trained_on(scene):
    folder, _ = scene
    pairs = ("--pairs", folder / "blurred", folder / "sharp")
    for words, protocol in (((), "neighbour"), (("--protocol", "oracle"), "oracle")):
        result = ok("eval", folder / "run", *pairs, "--device", "cpu", "--out", folder / "eval", *words)
        assert f"\nprotocol: {protocol}\nimages: 1\n" in result.stdout
        assert f"\noutput, {protocol} " in result.stdout
        other = {"oracle": "neighbour", "neighbour": "oracle"}[protocol]
        assert f"1 pairs of the protocol {other} are left out: --protocol {other} measures them" in result.output
    way = ("--infer", "iterate", "--set", "infer.size=finest", "--set", "infer.k=1")
    shown = json.loads(ok("eval", folder / "run", *pairs, "--out", folder / "eval", "--json", *way).stdout)
    (image,) = json.loads((folder / "eval" / "eval.json").read_text())["per_image"]
    assert (image["height"], image["width"]) == (16, 20)
    assert shown["infer"] == "iterate, size finest, k 1"


def test_eval_of_the_very_image_alone_is_the_oracle(scene, tmp_path):
    folder, _ = scene
    for side in ("blurred", "sharp"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "own.png").write_bytes((folder / side / "own.png").read_bytes())
    pairs = ("--pairs", tmp_path / "blurred", tmp_path / "sharp", "--device", "cpu", "--out", tmp_path / "eval")
    assert "output, oracle " in ok("eval", folder / "run", *pairs).stdout
    assert "leave out --protocol neighbour" in run("eval", folder / "run", *pairs, "--protocol", "neighbour").output


def test_deblur_writes_an_image_of_the_size_of_the_input(scene, tmp_path):
    folder, _ = scene
    words = ("deblur", folder / "run", folder / "blurred", "--out", tmp_path, "--device", "cpu", "--quiet")
    ok(*words)
    plain = cv2.imread(str(tmp_path / "other.png"))
    assert plain.shape == (32, 40, 3)
    ok(*words, "--overwrite", "--infer", "inject", "--set", "infer.from_scale=1")
    assert not np.array_equal(cv2.imread(str(tmp_path / "other.png")), plain)


def test_commands_say_that_training_was_stopped_early(tmp_path):
    method, _ = trained(3)
    save_weights(tmp_path / "last.safetensors", method, {})
    for side in ("blurred", "sharp"):
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "a.png"), np.arange(32 * 40 * 3, dtype=np.uint8).reshape(32, 40, 3))
    words = (tmp_path / "last.safetensors", tmp_path / "blurred", "--out", tmp_path / "out", "--device", "cpu")
    assert method.averaged.caveat in ok("deblur", *words).stderr
    pairs = ("--pairs", tmp_path / "blurred", tmp_path / "sharp", "--device", "cpu", "--out", tmp_path / "eval")
    assert method.averaged.caveat in ok("eval", words[0], *pairs).output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (RUN, "--image is missing: this system is trained on one sharp image"),
        ((*RUN, "--image", "none.png"), "--image none.png: there is no such file"),
        ((*RUN, "--image", "a.png", "--test-sharp", "a.png"), "--test-blurred and --test-sharp must be given together"),
        (
            (*RUN, "--image", "a.png", "--test-blurred", "b.png", "--test-sharp", "a.png"),
            "--test-blurred and --test-sharp must be of one size, got 24x20 and 20x16 px",
        ),
        ((*RUN, "--image", "a.png", "--coarsest", 16), "an image must have a shorter side above 16 px"),
        (("eval", "--pairs", ".", ".", "--infer", "iterate"), "--infer says how a system restores: give a run"),
        (("eval", "--pairs", ".", ".", "--protocol", "oracle"), "--protocol is of a system that was trained on one"),
        (("run", "cyclegan", "--image", "a.png"), "No such option"),
        ((*RUN, "--data", "a.h5"), "No such option"),
        (("deblur", ".", "a.png", "--out", "o", "--set", "infer.k=2"), "infer.k is a setting of --infer, which is not"),
        (("eval", ".", "--set", "infer.k=2"), "which is not given: name one with --infer"),
    ],
)
def test_what_cannot_be_trained_or_measured_is_refused_in_one_sentence(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", picture(*SIZE))
    cv2.imwrite("b.png", picture(20, 24))
    result = run(*words)
    assert result.exit_code in (1, 2)
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()


def test_dry_run_times_a_step_of_every_scale(scene, monkeypatch):
    folder, _ = scene
    monkeypatch.setattr("trainers.sizes.time.perf_counter", iter((0.0, 1.0, 10.0, 12.0, 20.0, 26.0)).__next__)
    facts = json.loads(ok(*RUN, "--image", folder / "sharp" / "own.png", "--dry-run", "--json").stdout)
    assert facts["seconds_a_step"] == 3
    assert (facts["steps"], facts["data"]) == (6, {"train": 1, "validation": 0})
    assert facts["parameters"]["generator_2"] == 243
    assert list(facts["parameters"])[:3] == ["noise", "generator_0", "critic_0"]
    assert facts["parameters_of_inference"] == 3 * 243
