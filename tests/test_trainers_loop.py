"""The loop: what it logs, saves, keeps, measures and refuses."""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import toy_system
from safetensors.torch import load_file
from shard_data import grouped
from toy_system import job, lines, read_state, states, train_here, write_shards

from blurgen.lock import FolderLock
from blurgen.options import resolve
from blurgen.shards import Layout
from trainers import loop
from trainers.arithmetic import compile_networks, set_precision
from trainers.checkpoints import States, differences
from trainers.logs import Averages, Log
from trainers.loop import train
from trainers.method import learning_rate_factor
from trainers.nets.scale_nets import ScaleGenerator
from trainers.weights import load_weights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards.h5")


@pytest.fixture
def run(shards):
    return partial(train_here, data=shards, out=Path("run"), steps=10, workers=0)


def test_run_leaves_the_files_that_it_promises(run):
    summary = run(save_every=4)
    assert summary["steps"] == 10
    assert summary["epochs"] == 2.0
    found = {path.relative_to("run").as_posix() for path in Path("run").rglob("*") if path.is_file()}
    expected = {"best.safetensors", "config.toml", "last.safetensors", "metrics.jsonl", "run.toml", "split.tsv"}
    expected |= {"sheets/00000010.png", "states/00000008.pt", "states/00000010.pt", ".lock"}
    assert {name for name in found if not name.startswith("tensorboard")} == expected


def test_options_are_written_so_that_they_can_be_read_again(run, shards):
    run(lr=1e-3, seed=3)
    made = job(data=shards, lr=1e-3, seed=3, out=Path("run"), steps=10, workers=0)
    assert resolve(toy_system.ToyConfig, {}, Path("run/config.toml")) == made.config
    both = Path("run/run.toml").read_text()
    assert "seed = 3\n" in both
    assert f'data = "{shards}"' in both


def test_split_says_what_each_source_was_used_for(run):
    run()
    head, *rows = Path("run/split.tsv").read_text().splitlines()
    assert head == "role\tsha256\tkey"
    assert len(rows) == len({row.split("\t")[1] for row in rows}) == 24
    assert {row.split("\t")[0] for row in rows} == {"sharp", "blurred", "validation", "test"}


def test_lines_average_the_steps_since_the_line_before(run):
    """Every step of its own is the oracle of lines that average three."""
    run(log_every=1, save_every=100, validate_every=100, steps=9)
    each = {line["step"]: line for line in lines() if "lr" in line}
    run(log_every=3, save_every=100, validate_every=100, steps=9, out=Path("coarse"))
    coarse = [line for line in lines("coarse") if "lr" in line]
    assert [line["step"] for line in coarse] == [3, 6, 9]
    for line in coarse:
        steps = [each[line["step"] - back] for back in range(3)]
        for name in ("critic", "grad_norm_critics"):
            assert line[name] == pytest.approx(np.mean([step[name] for step in steps]), rel=1e-6)
        # The generator is due in the last of the three alone.
        assert line["distance"] == pytest.approx(steps[0]["distance"], rel=1e-6)
        assert line["grad_norm_generators"] == pytest.approx(steps[0]["grad_norm_generators"], rel=1e-6)
        assert "distance" not in steps[1]
        assert "grad_norm_generators" not in steps[1]


def test_averages_are_exact_over_more_values_than_are_held():
    averages, values = Averages(), torch.arange(1000.0)
    for value in values:
        averages.add({"a": value})
    averages.add({"b": torch.tensor(2.0)})
    assert averages.take() == {"a": 499.5, "b": 2.0}
    assert averages.take() == {}


def test_what_is_not_finite_is_left_out_of_the_lines(tmp_path):
    log = Log(tmp_path)
    log.write(3, {"a": float("inf"), "b": 1.5, "c": "words"})
    log.close()
    assert lines(tmp_path) == [{"step": 3, "b": 1.5, "c": "words"}]


def test_learning_rate_follows_the_schedule_by_epochs(run):
    run(log_every=1, steps=20, schedule="exponential", constant_epochs=1, decay_epochs=2, decay_rate=0.5, lr=0.01)
    rates = [line["lr"] for line in lines() if "lr" in line]
    assert rates == pytest.approx([0.01] * 5 + [0.01] * 5 + [0.005] * 10)
    config = job(schedule="linear", constant_epochs=2, decay_epochs=3).config
    assert [learning_rate_factor(config, e) for e in range(6)] == pytest.approx([1, 1, 1, 0.75, 0.5, 0.5])


def test_length_in_epochs_or_that_of_the_schedule(run):
    assert run(steps=None, epochs=2)["steps"] == 10
    assert run(steps=None, out=Path("whole"), constant_epochs=1, decay_epochs=2)["steps"] == 15
    with pytest.raises(ValueError, match="give one of them"):
        run(epochs=2)


@pytest.mark.parametrize(("factor", "words"), [(float("inf"), "critic is (inf|nan)"), (1e12, r"critic is .*e\+11")])
def test_diverged_run_stops_and_names_the_last_good_state(run, factor, words):
    with pytest.raises(RuntimeError, match=f"diverged: {words} at step 8; the last good state is run/states/00000006"):
        run(broken_step=7, factor=factor, save_every=3, log_every=4, keep=9)
    assert states() == ["00000003.pt", "00000006.pt"]
    assert torch.isfinite(read_state("00000006.pt")["method"]["networks"]["critic.weight"]).all()


def test_diverged_before_the_first_state_says_so(run):
    with pytest.raises(RuntimeError, match="no state was saved yet"):
        run(broken_step=1, factor=float("inf"), log_every=2)
    assert not Path("run/last.safetensors").exists()


def test_state_that_is_not_finite_is_never_saved(tmp_path):
    store = States(tmp_path)
    store.save(1, {"a": [torch.ones(2)], "n": torch.tensor([1])})
    with pytest.raises(ValueError, match=r"a\.0 is not finite at step 2; the last good state is .*00000001\.pt"):
        store.save(2, {"a": [torch.tensor([1.0, float("nan")])]})
    assert [path.name for path in store.paths()] == ["00000001.pt"]


def test_best_is_by_validation_and_last_by_time(run, monkeypatch):
    quality = iter([10.0, 30.0, 20.0])

    def measured(*arguments):
        value = next(quality)
        blank = np.zeros((4, 4, 3), np.uint8)
        return loop_measured(value, 5.0, [(blank, blank, blank)])

    from trainers.validation import Measured as loop_measured

    monkeypatch.setattr(loop, "measure", measured)
    summary = run(validate_every=4)
    best, last = load_weights("run"), load_weights("run/last.safetensors")
    assert best.path.name == "best.safetensors"
    assert best.facts["step"] == 8
    assert best.facts["validation"]["validation_psnr_db"] == 30.0
    assert last.facts["step"] == 10
    assert summary["best_validation_psnr_db"] == 30.0
    monkeypatch.setattr(loop, "measure", lambda *_: loop_measured(25.0, 5.0, [[np.zeros((4, 4, 3), np.uint8)] * 3]))
    run(steps=12)
    assert load_weights("run").facts["step"] == 8


def test_weights_are_the_averaged_ones_of_the_state(run):
    run()
    averaged = read_state("00000010.pt")["method"]["averaged"]
    stored = load_file("run/last.safetensors")
    assert stored.keys() == averaged.keys()
    for name, tensor in averaged.items():
        assert torch.equal(stored[name], tensor)
    assert not torch.equal(
        stored["generator.weight"], read_state("00000010.pt")["method"]["networks"]["generator.weight"]
    )


def test_validation_measures_the_averaged_weights_on_validation_pairs(run):
    """The oracle convolves with SciPy what the file of weights holds."""
    from scipy.ndimage import correlate

    run()
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in load_file("run/last.safetensors").items()}
    validation = [row.split("\t")[2] for row in Path("run/split.tsv").read_text().splitlines() if row[:3] == "val"]
    from blurgen.shards import open_shards

    samples = [sample for sample in open_shards(job_data()) if sample.key in validation]
    values = []
    for sample in samples:
        image = sample.blurred.astype(np.float64) / 127.5 - 1
        planes = [
            sum(correlate(image[..., i], weights["generator.weight"][o, i], mode="mirror") for i in range(3))
            + weights["generator.bias"][o]
            for o in range(3)
        ]
        restored = np.round((np.tanh(np.stack(planes, -1)) + 1) * 127.5)
        values.append(10 * np.log10(255**2 / np.mean((restored - sample.sharp) ** 2)))
    assert len(values) == 2
    logged = next(line for line in lines() if "validation_psnr_db" in line)
    assert logged["validation_psnr_db"] == pytest.approx(np.mean(values), abs=0.02)


def job_data():
    import tomllib

    return tomllib.loads(Path("run/run.toml").read_text())["data"]


def test_sheet_has_a_row_for_each_of_the_first_validation_pairs(run):
    run(validate_every=5)
    sheets = [cv2.imread(str(path)) for path in sorted(Path("run/sheets").iterdir())]
    assert len(sheets) == 2
    assert sheets[0].shape == sheets[1].shape
    # Input and target stay, the output in the middle moves.
    third = sheets[0].shape[1] // 3
    assert np.array_equal(sheets[0][:, :third], sheets[1][:, :third])
    assert np.array_equal(sheets[0][:, -third:], sheets[1][:, -third:])
    assert not np.array_equal(sheets[0], sheets[1])


def test_alarm_is_printed_once_and_written_when_the_networks_have_settled(run, capsys, monkeypatch):
    monkeypatch.setattr(loop, "SETTLING_STEPS", 2)
    run(alarming=True, log_every=2)
    assert capsys.readouterr().err.count("alarm at step 4: the critic is at") == 1
    assert [line["step"] for line in lines() if "alarm" in line] == [4]


def test_run_without_validation_pairs_says_so(shards, capsys):
    blurred = grouped([f"b{number}" for number in range(5)], Layout(16, sides="blurred"), prefix="b")
    sides = {"sharp": shards, "blurred": blurred.write(Path("blurred.h5"))}
    train(job(**sides, out=Path("run"), steps=2, workers=0), quiet=False)
    assert "there are no validation pairs: no sheets, and the last weights" in capsys.readouterr().err
    assert load_weights("run").path.name == "last.safetensors"


def test_tensorboard_is_written_where_it_is_installed(run, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.purge_step = purge_step

        def add_scalar(self, name, value, step):
            written.append((name, step, self.purge_step))

        def add_image(self, name, image, step, dataformats):
            written.append((name, step, image.shape[2]))

        def close(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("tensorboard"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Writer
    run(log_every=5)
    assert {("critic", 5, 1), ("critic", 10, 1), ("validation", 10, 3)} <= set(written)
    written.clear()
    run(log_every=5, steps=15)
    assert {step for _, step, _ in written} == {15}
    assert ("critic", 15, 11) in written


def test_run_without_tensorboard_is_silent(run, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run()
    assert capfd.readouterr() == ("", "")


def test_folder_that_is_trained_in_is_refused(run):
    Path("run").mkdir()
    with FolderLock(Path("run")), pytest.raises(RuntimeError, match="run is being written by process"):
        run()


def test_bf16_keeps_float32_weights(run):
    run(precision="bf16")
    tensors = read_state("00000010.pt")["method"]["networks"]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    run(out=Path("fp32"))
    assert not torch.equal(
        tensors["critic.weight"], read_state("00000010.pt", "fp32")["method"]["networks"]["critic.weight"]
    )


def test_first_weights_depend_on_the_seed_alone(shards):
    torch.manual_seed(1)
    first = loop.build_method(job(data=shards), CPU)[0].networks.state_dict()
    before = torch.random.get_rng_state()
    again = loop.build_method(job(data=shards), CPU)[0].networks.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    other = loop.build_method(job(data=shards, seed=1), CPU)[0].networks.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["critic.weight"], other["critic.weight"])


def test_features_are_opened_only_where_they_are_needed(shards, monkeypatch):
    asked = []

    def opened(weights, last, normalised):
        asked.append((weights, normalised))
        return torch.nn.Identity(), "words"

    monkeypatch.setattr(loop, "open_features", opened)
    small = {"data": shards, "width": 2, "scales": 1, "crop": 16}
    method, words = loop.build_method(job("disentangled", **small, vgg_weights="random"), CPU)
    assert (asked, words) == ([("random", False)], "words")
    assert isinstance(method.context.features, torch.nn.Identity)
    loop.build_method(job("disentangled", **small, vgg_weights="a/b.pth", feature_input="imagenet"), CPU)
    assert asked.pop() == (Path("a/b.pth"), True)
    assert loop.build_method(job("disentangled", **small, domain="text"), CPU)[1] == "none"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: set_precision("tf32", CPU), "tf32 is arithmetic of a GPU"),
        (lambda: compile_networks([], "graphs", CPU), "graphs replays CUDA graphs, and this runs on the CPU"),
    ],
)
def test_what_a_device_cannot_do_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        compile_networks([], "on", CPU)


@pytest.mark.slow
def test_every_scale_of_a_pyramid_may_be_compiled(monkeypatch):
    monkeypatch.setenv("CXX", "c++")
    scales = [ScaleGenerator(2) for _ in range(10)]
    # Of what monkeypatch restores, torch makes something that is not there.
    with torch._dynamo.config.patch(cache_size_limit=8):
        compile_networks(iter(scales), "on", CPU)
        assert torch._dynamo.config.cache_size_limit >= 4 * len(scales)
    assert all(network._compiled_call_impl for network in scales)


@pytest.mark.slow
def test_compiled_run_ends_close_to_one_that_is_not(tmp_path):
    values = {"width": 2, "blocks": 1, "crop": 32, "batch": 2, "steps": 3, "log_every": 1, "device": "cpu"}
    values["data"] = write_shards(tmp_path / "larger.h5", crop=32)
    for how in ("off", "on"):
        train_here("cyclegan", compile=how, out=tmp_path / how, **values)
    losses = [[line["cycle"] for line in lines(tmp_path / how) if "lr" in line] for how in ("off", "on")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_differences_name_what_was_and_what_is():
    assert differences({"a": 1, "b": 2, "d": 0}, {"a": 1, "b": 3, "c": 4}) == [
        "b: 2 -> 3",
        "d: 0 -> nothing",
        "c: nothing -> 4",
    ]


def test_options_of_systems_and_of_runs_have_different_names():
    shared = [{field.name for field in dataclasses.fields(kind)} for kind in (type(job().data), type(job().options))]
    for name in toy_system.MODELS:
        own = {field.name for field in dataclasses.fields(job(name).config)}
        assert not own & set().union(*shared)
