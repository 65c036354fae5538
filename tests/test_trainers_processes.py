"""Several processes: they end where one with the joint batch ends, hold the same weights, and stop together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_system import finish, job, start, start_together, train_here, write_shards

from trainers.loop import Training
from trainers.processes import Processes, joined

COMMON = {"batch": 4, "device": "cpu", "save_every": 100, "validate_every": 100, "log_every": 1}
SMALL = {"width": 2, "blocks": 1, "crop": 32}
GUIDED = SMALL | {"steps": 3, "pool": 6, "cycle": 0.0, "cycle_pixel": 10.0}
CASES = {
    "toy": ("toy", {"steps": 7}),
    "cyclegan": ("cyclegan", SMALL | {"steps": 4, "pool": 6}),
    # Adam divides by the size of a gradient: where that is round-off, one update is enough to part the weights.
    "disentangled": ("disentangled", {"steps": 2, "width": 2, "scales": 1, "crop": 32, "domain": "text"}),
    "as-cyclegan": ("as-cyclegan", GUIDED),
    "as-cyclegan, guided by labels": ("as-cyclegan", GUIDED | {"prior": "label", "classes": 3}),
    "as-cyclegan, guided by priors": ("as-cyclegan", GUIDED | {"prior": "prior"}),
    "deblurgan": ("deblurgan", SMALL | {"steps": 2, "content": 0.0}),
    "vegan": ("vegan", SMALL | {"steps": 2, "content": 0.0, "smooth": True}),
}
QUICK = ("toy",)
# Means over a process of what is no mean over images, and times.
NOT_JOINT = {"color_correlation", "images_per_second"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards.h5", crop=32, classes=3)


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def last_state(run):
    return torch.load(max((run / "states").glob("*.pt")), weights_only=True)["method"]


def lines(run):
    text = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in line.items() if k not in NOT_JOINT} for line in map(json.loads, text) if "lr" in line]


def distance(one, other):
    return ((one - other).norm() / one.norm()).item()


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_two_processes_end_close_to_one_with_the_joint_batch(tmp_path, shards, case):
    name, settings = CASES[case]
    values = {"data": shards, **COMMON, **settings}
    alone = start(train_here, name, out=tmp_path / "one", **values)
    finish(alone, *start_together(2, free_port(), name, out=tmp_path / "two", **values))
    assert lines(tmp_path / "two") == [pytest.approx(line, rel=1e-4) for line in lines(tmp_path / "one")]
    one, two = last_state(tmp_path / "one"), last_state(tmp_path / "two")
    for kind in ("networks", "averaged"):
        for key, tensor in one[kind].items():
            # A bias before a norm has no gradient but round-off, by which Adam divides.
            if key.endswith("weight"):
                assert distance(tensor, two[kind][key]) < 1e-4, key
    for side, optimizer in one["optimizers"].items():
        moments = [
            torch.cat([state["exp_avg"].flatten() for state in each["state"].values()])
            for each in (optimizer, two["optimizers"][side])
        ]
        assert distance(*moments) < 1e-4, side


def train_and_keep(rank, port, shards, folder):
    """Train a little as one of two processes; write what this one holds."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with joined("cpu") as processes:
        # Whatever the others begin with, the weights of the first process are taken.
        training = Training(job("cyclegan", data=shards, out=folder, **COMMON, **CASES["cyclegan"][1]), processes)
        if rank:
            for tensor in training.method.networks.state_dict().values():
                tensor.add_(1)
        (folder / str(rank)).mkdir(parents=True)
        training.resume()
        with training.feed() as feed:
            batches = feed.steps(0)
            for _ in range(3):
                training.advance(next(batches))
        training.close()
        torch.save(training.method.state(), folder / f"{rank}.pt")


def test_processes_hold_the_same_weights_and_pools(tmp_path, shards):
    port = free_port()
    finish(*(start(train_and_keep, rank, port, shards, tmp_path) for rank in range(2)))
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for kind in ("networks", "averaged"):
        assert all(torch.equal(tensor, two[kind][key]) for key, tensor in one[kind].items())
    assert len(one["extra"]["sharp"]) == 6
    assert all(torch.equal(*pair) for pair in zip(one["extra"]["sharp"], two["extra"]["sharp"], strict=True))


@pytest.mark.slow
def test_run_goes_on_in_another_number_of_processes(tmp_path, shards):
    values = {"data": shards, "out": tmp_path / "run", "held": 1, **COMMON}
    finish(*start_together(2, free_port(), "toy", steps=4, **values))
    finish(start(train_here, "toy", steps=6, **values))
    finish(*start_together(2, free_port(), "toy", steps=9, **values))
    finish(start(train_here, "toy", steps=9, **values | {"out": tmp_path / "straight"}))
    assert lines(tmp_path / "run") == [pytest.approx(line, rel=1e-4) for line in lines(tmp_path / "straight")]


def test_batch_that_cannot_be_shared_is_refused():
    assert Processes(torch.device("cpu"), 1, 2).share(6) == 3
    with pytest.raises(ValueError, match="batch must be a multiple of the 4 processes, got 6"):
        Processes(torch.device("cpu"), 0, 4).share(6)


def test_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (
        pytest.raises(ValueError, match="--device cuda needs a GPU for each process, and torch finds 0 here: use"),
        joined("cuda"),
    ):
        pass
    with joined("auto") as processes:
        assert (processes.device.type, processes.world, processes.is_first) == ("cpu", 1, True)


SCRIPT = "import toy_system; from trainers.cli import main; main()"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_torchrun_is_stopped_with_everything_saved(tmp_path, shards, number):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    options = [
        "--data",
        shards,
        "--steps",
        "1000000",
        "--save-every",
        "1000000",
        "--out",
        tmp_path / "run",
        "--batch",
        "4",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [str(word) for word in [*command, script, "run", "toy", *options, "--device", "cpu", "--log-every", "1"]],
        env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 1000) and time.monotonic() < deadline:
        time.sleep(0.1)
    # A terminal sends Ctrl-C to all of them.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    told = process.communicate(timeout=120)[1]
    assert "stopped; the same command continues" in told
    assert len(list((tmp_path / "run" / "states").glob("*.pt"))) == 1
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, len(lines(tmp_path / "run")) + 1))
