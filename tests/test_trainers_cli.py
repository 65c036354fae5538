"""The command `trainers`, run as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import toy_system
from toy_system import start, write_shards
from trainers_command import ok, run

from trainers.cli import main
from trainers.models import method_class
from trainers.weights import load_weights

ROOT = Path(__file__).parents[1]
SYSTEMS = sorted(toy_system.MODELS)
QUICK = ("--data", "shards.h5", "--device", "cpu", "--steps", "6", "--workers", "0")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards.h5")


@pytest.fixture(autouse=True)
def in_a_folder_with_shards(tmp_path, monkeypatch, shards):
    monkeypatch.chdir(tmp_path)
    os.link(shards, "shards.h5")


@pytest.mark.parametrize(("policy", "count"), [(None, "3000"), ("ACTIVE", None)])
def test_threads_of_the_command_spin_briefly_unless_told_how_to_wait(monkeypatch, policy, count):
    # Set, too, so that what the command sets is undone.
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert run("--help").exit_code == 0
    assert os.environ.get("GOMP_SPINCOUNT") == count


@pytest.mark.parametrize("command", [(), *((name,) for name in main.commands)], ids=lambda words: words or "trainers")
def test_every_command_has_help(command):
    assert "Usage:" in ok(*command, "-h").output


@pytest.mark.parametrize("name", SYSTEMS)
def test_help_of_a_system_lists_every_option_of_it_with_words(name):
    context = click.Context(main.commands["run"])
    command = main.commands["run"].get_command(context, name)
    shown = ok("run", name, "--help").output
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.opts[0] in shown
    source = "--image" if method_class(name).pairing == "single" else "--data"
    for field in ("--width", "--batch", "--crop", "--lr", "--seed", source, "--precision"):
        assert field in shown


def test_help_of_run_names_the_systems():
    shown = ok("run", "--help").output
    for name in SYSTEMS:
        assert name in shown


def test_run_trains_into_its_default_folder_and_says_how_far_it_came():
    summary = json.loads(ok("run", "toy", *QUICK, "--json", "--quiet").stdout)
    assert summary["out"] == "runs/toy"
    assert summary["steps"] == 6
    assert load_weights("runs/toy").facts["step"] == 6


def test_same_command_continues_and_a_changed_one_is_refused():
    ok("run", "toy", *QUICK, "--quiet")
    assert "steps: 8" in ok("run", "toy", *QUICK, "--quiet", "--steps", "8").stdout
    result = run("run", "toy", *QUICK, "--lr", "0.5", "--seed", "2")
    assert result.exit_code == 1
    assert "(lr: 0.0002 -> 0.5; seed: 0 -> 2)" in result.stderr


def test_flag_beats_assignment_beats_file_beats_preset(tmp_path):
    Path("c.toml").write_text('held = 7\ncrop = 12\npreset = "gentle"\nkeep = 9\n')
    ok("run", "toy", *QUICK, "--config", "c.toml", "--set", "crop=10", "--batch", "3", "--quiet")
    config = load_weights("runs/toy").config
    assert (config.lr, config.held, config.crop, config.batch) == (1e-5, 7, 10, 3)
    assert "keep = 9" in Path("runs/toy/run.toml").read_text()
    ok("run", "toy", *QUICK, "--config", "runs/toy/config.toml", "--out", "again", "--quiet")
    assert load_weights("again").config == config


@pytest.mark.parametrize(
    ("words", "sentence", "exit_code"),
    [
        (("run",), "trainers run needs the name of a system: ", 2),
        (("run", "disentangeld"), "no system 'disentangeld': did you mean 'disentangled'?", 2),
        (("run", "toy", "--preset", "papr"), "toy has no preset 'papr'", 2),
        (("run", "toy", "--set", "generator_evry=2"), "did you mean 'generator_every'", 2),
        (("run", "toy", "--set", "lr=fast"), "lr must be a number, got 'fast'", 2),
        (("run", "toy", "--lr", "-1"), "lr must be above 0", 2),
        (("run", "toy", "--steps", "0"), "steps must be at least 1, got 0", 2),
        (("run", "toy", "--steps", "3", "--epochs", "3"), "give one of them", 2),
        (("run", "toy", "--sharp", "a.h5"), "--sharp and --blurred must be given together", 2),
        (("run", "toy", "--data", "none.h5"), "make it with `blurgen make --src text --out none.h5`", 1),
        (("run", "toy", "--crop", "17"), "have a side of 16 px, and --crop asks for 17", 1),
        (("run", "toy", "--precision", "tf32", "--device", "cpu"), "tf32 is arithmetic of a GPU", 1),
        (("run", "toy", "--compile", "graphs", "--device", "cpu"), "graphs replays CUDA graphs", 1),
        (("run", "toy", "--config", "none.toml"), "none.toml", 1),
    ],
)
def test_mistakes_get_one_sentence(words, sentence, exit_code):
    result = run(*words)
    assert result.exit_code == exit_code, result.output
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not Path("runs").exists()


def test_list_counts_what_is_trained_and_what_restores():
    rows = {row["name"]: row for row in json.loads(ok("list", "--json").stdout)}
    assert set(rows) == set(SYSTEMS)
    assert rows["disentangled"]["parameters"] == 53_011_586
    assert rows["disentangled"]["parameters_of_inference"] == 11_815_651
    assert rows["cyclegan"]["parameters"] == 2 * (11_378_179 + 2_764_737)
    assert (rows["disentangled"]["vgg"], rows["cyclegan"]["vgg"]) == (True, False)
    table = ok("list").stdout.splitlines()
    assert len(table) == 1 + len(SYSTEMS)
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("name", "options", "cycle"),
    [("toy", (), 3), ("disentangled", ("--width", "2", "--scales", "1", "--crop", "16", "--domain", "text"), 2)],
)
def test_dry_run_takes_a_cycle_of_updates_and_writes_nothing(tmp_path, name, options, cycle):
    before = sorted(tmp_path.rglob("*"))
    shown = json.loads(ok("run", name, *QUICK, *options, "--dry-run", "--json").stdout)
    assert sorted(tmp_path.rglob("*")) == before
    assert shown["steps_of_an_update_cycle"] == cycle
    assert shown["seconds_a_step"] > 0
    assert shown["peak_memory_mib"] > 50
    assert shown["steps"] == 6
    if name == "toy":
        assert shown["parameters"] == {"generator": 84, "critic": 28}
        assert shown["parameters_in_all"] == 112
        assert shown["parameters_of_inference"] == 84


def test_progress_has_a_line_with_rate_and_time_to_go():
    told = ok("run", "toy", *QUICK, "--log-every", "2").stderr.splitlines()
    assert told[0].startswith("1/6 steps")
    assert told[-1].startswith("6/6 steps, ")
    assert "images a second" in told[-1]
    assert " to go" in told[-1]


def trainers(*words):
    """Run the command in this process, which it ends, its stderr in a file."""
    with open("told.txt", "wb") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["trainers", *map(str, words)]
    main()


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_stopped_run_saves_and_says_how_to_go_on(tmp_path, number, exit_code):
    words = ("run", "toy", "--device", "cpu", "--steps", "1000000", "--save-every", "1000000", "--log-every", "10")
    process = start(trainers, *words)
    metrics = tmp_path / "runs" / "toy" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == exit_code
    told = Path("told.txt").read_text()
    assert "finishing the step, and saving" in told
    assert "stopped; the same command continues" in told
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert [path.name for path in Path("runs/toy/states").iterdir()] == [f"{last:08d}.pt"]
    assert load_weights("runs/toy").facts["step"] == last
    assert f"steps: {last + 2}" in ok(*words[:4], "--steps", last + 2, "--quiet").stdout


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from trainers.cli import main; main()"


@pytest.mark.parametrize("words", [("run", "cyclegan", "--help"), ("run", "disentangled"), ("list",)])
def test_missing_torch_is_told_with_the_command_that_installs_it(words):
    shown = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 1
    assert shown.stderr == (
        'Error: trainers needs PyTorch, which is not installed: run `pip install "blurgen[train]"`\n'
    )


def test_module_is_the_command():
    shown = subprocess.run(
        [sys.executable, "-m", "trainers", "-h"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert shown.stdout.startswith("Usage: trainers ")


def test_help_needs_no_torch():
    shown = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, "run", "-h"], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0
    assert "cyclegan" in shown.stdout
