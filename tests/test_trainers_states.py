"""The states of a run: kept, damaged, refused, gone on from."""

import io
import shutil
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_system import lines, read_state, states, train_here, write_shards

from trainers.checkpoints import States, is_whole


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards.h5")


@pytest.fixture
def run(shards):
    return partial(train_here, data=shards, out=Path("run"), steps=10, workers=0)


def test_so_many_states_are_kept(run):
    run(save_every=2, keep=3)
    assert states() == ["00000006.pt", "00000008.pt", "00000010.pt"]
    run(save_every=2, keep=1, steps=12)
    assert states() == ["00000012.pt"]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text"])
def test_damaged_state_is_told_and_the_one_before_it_taken(run, capsys, damage):
    run(save_every=5, ballast=1000)
    path = Path("run/states/00000010.pt")
    data = bytearray(path.read_bytes())
    place = data.find(read_state("00000010.pt")["method"]["networks"]["critic.weight"].numpy().tobytes())
    data[place] ^= 4
    contents = {"cut": data[:place], "empty": b"", "flipped": data, "text": b"no archive"}
    path.write_bytes(contents[damage])
    run(save_every=5, ballast=1000, steps=11)
    told = capsys.readouterr().err
    assert "00000010.pt is damaged: the state before it is taken" in told
    assert [line["step"] for line in lines() if "lr" in line] == [5, 10, 11]


def test_every_flipped_bit_is_seen(run):
    run(save_every=5)
    good = Path("run/states/00000010.pt").read_bytes()
    assert is_whole(good)
    for place in np.random.default_rng(0).integers(0, 8 * len(good), 300).tolist():
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        assert not is_whole(bytes(data))


def test_all_states_damaged_is_an_error_and_no_new_start(run):
    run(save_every=5)
    for path in Path("run/states").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="all states in run/states are damaged: name another --out"):
        run()


def test_weights_without_a_state_are_not_overwritten(run):
    run()
    shutil.rmtree("run/states")
    with pytest.raises(ValueError, match="run holds the weights of a run, but no state to continue it from"):
        run()


def test_state_of_another_version_is_refused(run):
    run()
    state = read_state("00000010.pt")
    States(Path("run")).save(11, {**state, "format": 99})
    with pytest.raises(ValueError, match="run was begun by another version of trainers"):
        run(steps=12)


def test_newest_state_is_that_of_most_steps(tmp_path):
    store = States(tmp_path, keep=3)
    for step in (99_999_999, 100_000_000, 5):
        store.save(step, {})
    (tmp_path / "states" / "notes.pt").write_text("mine")
    assert [int(path.stem) for path in store.paths()] == [100_000_000, 99_999_999, 5]


def test_state_with_code_in_it_is_refused(run):
    run(save_every=5)
    stream = io.BytesIO()
    torch.save({"step": Path("x")}, stream)
    data = stream.getvalue()
    Path("run/states/00000010.pt").write_bytes(data + zlib.crc32(data).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="holds what no run has written"):
        run(steps=12)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lr": 0.5}, "lr: 0.0002 -> 0.5"),
        ({"seed": 4}, "seed: 0 -> 4"),
        ({"ballast": 2, "held": 4}, "held: 5 -> 4; ballast: 1 -> 2"),
        ({"flips": False}, "flips: True -> False"),
    ],
)
def test_changed_settings_are_refused_with_the_difference(run, changed, words):
    run()
    before = Path("run/config.toml").read_text()
    with pytest.raises(ValueError, match=f"begun with other settings .{words}.: repeat the first command"):
        run(**changed)
    assert Path("run/config.toml").read_text() == before


def test_other_data_is_refused_and_the_same_data_elsewhere_is_not(run, shards):
    run()
    shutil.copy(shards, "moved.h5")
    assert run(data=Path("moved.h5"), steps=11)["steps"] == 11
    with pytest.raises(ValueError, match=r"data: \w+ -> \w+"):
        run(data=write_shards(Path("other.h5"), seed=1), steps=12)


def test_what_changes_no_result_may_change(run):
    run()
    more = {"workers": 2, "resident": "on", "log_every": 3, "save_every": 4, "validate_every": 5, "keep": 4}
    assert run(**more, steps=13, precision="bf16")["steps"] == 13
    shutil.move("run", "elsewhere")
    assert run(out=Path("elsewhere"), steps=14)["steps"] == 14


def test_complete_run_is_left_as_it_is(run):
    run()
    before = Path("run/states/00000010.pt").stat().st_mtime_ns
    assert run()["steps"] == 10
    assert Path("run/states/00000010.pt").stat().st_mtime_ns == before
