"""Resuming: N steps are k + (N - k) steps, bit for bit; and kill -9 at any moment costs no state that was saved."""

import json
import random
import time

import pytest
import torch
from toy_system import finish, start, train_here, write_shards

BALLAST = 1 << 21
TOY = {"save_every": 100, "validate_every": 100, "log_every": 2}
CYCLEGAN = {"width": 2, "blocks": 1, "crop": 32, "batch": 2, "pool": 6, "constant_epochs": 1, "decay_epochs": 2}
DISENTANGLED = {
    "width": 2, "scales": 1, "crop": 32, "batch": 2, "domain": "text", "constant_epochs": 1, "decay_epochs": 2,
}  # fmt: skip
AS_CYCLEGAN = CYCLEGAN | {"cycle": 0.0, "cycle_pixel": 10.0, "prior": "label", "classes": 3}
DEBLURGAN = {
    "width": 2, "blocks": 1, "crop": 32, "batch": 2, "content": 0.0, "constant_epochs": 1, "decay_epochs": 2,
}  # fmt: skip
# Twenty images train, ten a side: five steps are an epoch, and from the sixth on the learning rate falls.
CASES = {
    "toy between two updates": ("toy", TOY, 4, 11),
    "toy in the decay": ("toy", TOY, 13, 17),
    "cyclegan with its pools partly full": ("cyclegan", CYCLEGAN, 2, 8),
    "cyclegan in the decay, its pools full": ("cyclegan", CYCLEGAN, 7, 9),
    "as-cyclegan, guided by labels": ("as-cyclegan", AS_CYCLEGAN, 2, 8),
    "as-cyclegan with a penalty, between two updates": ("as-cyclegan", AS_CYCLEGAN | {"gan": "wgan-gp"}, 3, 7),
    "deblurgan": ("deblurgan", DEBLURGAN, 2, 7),
    "vegan with its variants": ("vegan", DEBLURGAN | {"smooth": True}, 3, 7),
    "disentangled between two updates, in mid-epoch": ("disentangled", DISENTANGLED, 3, 8),
    "disentangled between two updates, in the decay": ("disentangled", DISENTANGLED, 7, 9),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards.h5", crop=32, classes=3)


def newest(run):
    return max((run / "states").glob("*.pt"))


def leaves(value, name=""):
    """Yield every tensor and plain value below `value` with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from leaves(item, f"{name}/{number}")
    else:
        yield name, value


def assert_same_training(one, other):
    """Compare two states by every bit of what training goes on from."""
    states = [torch.load(newest(run), weights_only=True) for run in (one, other)]
    first, second = (dict(leaves({"method": state["method"], "step": state["step"]})) for state in states)
    assert [name for name in {**first, **second} if not same(first.get(name), second.get(name))] == []


def same(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) and other is not None else one == other


QUICK = ("toy in the decay", "disentangled between two updates, in mid-epoch")


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_n_steps_are_k_and_n_minus_k_steps_bit_for_bit(tmp_path, shards, case):
    name, values, k, n = CASES[case]
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    values = {"data": shards, "device": "cpu", **values}
    whole = start(train_here, name, out=straight, steps=n, **values)
    finish(start(train_here, name, out=parted, steps=k, workers=0, **values))
    assert newest(parted).name == f"{k:08d}.pt"
    finish(whole, start(train_here, name, out=parted, steps=n, workers=3, **values))
    assert_same_training(straight, parted)


def test_training_moves_every_network_and_more_steps_are_another_state(tmp_path, shards):
    values = {"data": shards, "device": "cpu", **CYCLEGAN}
    for steps in (2, 3):
        train_here("cyclegan", out=tmp_path / str(steps), steps=steps, **values)
    with pytest.raises(AssertionError, match="generator_sharp"):
        assert_same_training(tmp_path / "2", tmp_path / "3")


def steps_logged(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "lr" in line]


def killed_run(folder, shards, kills, seed):
    """Train in `folder`, killed so many times, every other time at the sight of a file that is being written.

    Return the number of steps at last, and of the kills that cut a state short.
    """
    rng, cut, saved = random.Random(seed), 0, 0
    values = {"data": shards, "out": folder, "steps": 100_000, "save_every": 1, "validate_every": 100_000}
    values |= {"log_every": 1, "ballast": BALLAST, "device": "cpu", "workers": 0}
    for number in range(kills):
        process = start(train_here, **values)
        wait_until(lambda: steps_saved(folder) > saved)  # noqa: B023
        time.sleep(rng.uniform(0, 0.1))
        if number % 2:
            wait_until(lambda: drafts(folder))
        process.kill()
        process.join()
        saved, cut = steps_saved(folder), cut + bool(drafts(folder))
        torch.load(newest(folder), weights_only=True)
    finish(start(train_here, **values | {"steps": saved + 3}))
    return saved + 3, cut


def drafts(folder):
    return list(folder.glob("states/.*.tmp"))


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def steps_saved(folder):
    return max((int(path.stem) for path in folder.glob("states/*.pt")), default=0)


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_loses_no_saved_state(tmp_path, shards, kills):
    steps, cut = killed_run(tmp_path / "killed", shards, kills, seed=kills)
    assert cut > kills // 10, "the kills did not hit a file that was being written"
    values = {"data": shards, "steps": steps, "save_every": steps, "validate_every": 100_000, "log_every": 1}
    # In a process of one thread, too: the order of sums depends on how many there are.
    finish(start(train_here, out=tmp_path / "straight", ballast=BALLAST, device="cpu", **values))
    assert_same_training(tmp_path / "killed", tmp_path / "straight")
    assert steps_logged(tmp_path / "killed") == list(range(1, steps + 1))
    assert not list((tmp_path / "killed").rglob(".*.tmp"))


def test_lines_of_steps_that_are_done_again_are_cut_off(tmp_path, shards):
    values = {"data": shards, "out": tmp_path / "run", "save_every": 4, "log_every": 1, "device": "cpu"}
    train_here(steps=8, **values)
    newest(tmp_path / "run").unlink()
    (tmp_path / "run" / "metrics.jsonl").open("a").write('{"step": 9, "lr"')
    train_here(steps=9, **values)
    assert steps_logged(tmp_path / "run") == list(range(1, 10))
