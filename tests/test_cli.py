"""The commands, run as a user runs them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import surroundings
from click.testing import CliRunner
from photos import write_photos
from runs import lives, until, workers_of

from blurgen.cli import main
from blurgen.shards import open_shards

ROOT = Path(__file__).parents[1]
SMALL = (*surroundings.SMALL, "--workers", "1", "--quiet")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLURGEN_DATA", raising=False)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def ok(*words):
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.output


def sentence_of(*words, exit_code=1):
    result = run(*words)
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def shards(tmp_path):
    write_photos(tmp_path / "photos", 5)
    ok("make", "--src", "photos", *SMALL)
    return tmp_path / "shards.h5"


@pytest.mark.parametrize("command", [(), *((name,) for name in main.commands)], ids=lambda words: words or "blurgen")
def test_every_command_has_help(command):
    assert "Usage:" in ok(*command, "-h")


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for name in main.commands:
        assert f"blurgen {name}" in readme, name


def test_make_writes_a_file_a_summary_and_its_options(shards):
    summary = json.loads(ok("make", "--src", "photos", *SMALL, "--json"))
    assert summary["samples"] == 5
    assert summary["holds"] == "sharp, blurred, kernel"
    assert summary["bytes"] == shards.stat().st_size
    assert summary["left_out"] == []
    assert len(open_shards(shards)) == 5
    again = ok("make", "--config", "shards.h5.toml", "--out", "again.h5", "--workers", "1", "--quiet")
    assert "samples: 5" in again
    assert Path("again.h5").read_bytes() == shards.read_bytes()


def test_set_that_lacks_its_master_or_a_shard_says_how_to_go_on(tmp_path):
    write_photos(tmp_path / "photos", 5)
    summary = json.loads(ok("make", "--src", "photos", *SMALL, "--sharded", "--json"))
    (shard,) = Path("shards.h5.d").glob("*.h5")
    assert summary["bytes"] == Path("shards.h5").stat().st_size + shard.stat().st_size
    shard.rename("aside")
    assert "No such file or directory; the `blurgen make` that made the others" in sentence_of("info", "shards.h5")
    assert "Errno" not in sentence_of("verify", "shards.h5")
    Path("shards.h5").unlink()
    assert "`blurgen make` goes on, or `blurgen index` finishes slices" in sentence_of("info", "shards.h5")


def test_dry_run_writes_nothing(tmp_path):
    write_photos(tmp_path / "photos", 3)
    shown = json.loads(ok("make", "--src", "photos", *SMALL, "--dry-run", "--json"))
    assert shown["samples"] == 3
    assert shown["bytes_needed"] > 3 * 2 * 32 * 32 * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_too_many_bad_images_exit_with_3(tmp_path):
    (write_photos(tmp_path / "photos", 3) / "broken.jpg").write_bytes(b"\xff\xd8 no")
    output = sentence_of("make", "--src", "photos", *SMALL, "--max-bad", "0", exit_code=3)
    assert "1 images were left out" in output
    assert "broken.jpg" in output
    assert len(open_shards("shards.h5")) == 3


@pytest.mark.parametrize(
    ("words", "sentence", "exit_code"),
    [
        (("make",), "--src is missing", 2),
        (("make", "--src", "photos", "--kernel", "wlk"), "walk", 2),
        (("make", "--src", "photos", "--set", "kernel.lenth_px=3"), "length_px", 2),
        (("make", "--src", "photos", "--set", "croop=3"), "did you mean 'crop'", 2),
        (("make", "--src", "photos", "--noise", "loud"), "no noise model 'loud'", 2),
        (("make", "--src", "photos", "--crop", "9999", "--quiet"), "no image could be used", 1),
        (("make", "--src", "mapilary"), "mapillary", 2),
        (("make", "--src", "mapillary"), "mapillary", 1),
        (("make", "--src", "photos", "--out", "nowhere/a/b.h5", "--crop", "32", "--quiet"), None, 0),
        (("kernels", "--model", "walk", "--out", "k.txt"), ".h5, .npz or .png", 1),
        (("kernels", "--set", "anxiety=2"), "anxiety", 2),
        (("info", "missing.h5"), "missing.h5", 1),
        (("verify", "photos/photo00.jpg"), "photo00.jpg", 1),
        (("preview", "missing.h5"), "missing.h5", 1),
        (("verify", "missing.h5"), "missing.h5", 1),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, words, sentence, exit_code):
    write_photos(tmp_path / "photos", 2)
    output = sentence_of(*words, exit_code=exit_code)
    if sentence:
        assert sentence in output
        assert len(output.strip().splitlines()) <= 1, output


def test_kernels_are_written_as_numbers_and_as_a_sheet():
    ok("kernels", "--model", "walk", "--set", "length_px=9", "-n", "7", "--out", "k.npz")
    ok("kernels", "--model", "walk", "--set", "length_px=9", "-n", "7", "--out", "k.h5")
    ok("kernels", "--model", "walk", "--set", "length_px=9", "-n", "7", "--out", "k.png")
    table = np.load("k.npz")
    with h5py.File("k.h5") as file:
        assert np.array_equal(file["kernels"], table["kernels"])
        assert list(file.attrs["param_names"]) == table["param_names"].tolist()
    assert table["kernels"].shape[0] == 7
    assert np.allclose(table["kernels"].sum(axis=(1, 2)), 1)
    assert cv2.imread("k.png", cv2.IMREAD_GRAYSCALE).min() == 0


def test_info_verify_preview_and_pack_agree_on_a_file(shards):
    facts = json.loads(ok("info", "shards.h5", "--json"))
    assert (facts["samples"], facts["images"], facts["kernel"]) == (5, 5, "deblurgan")
    output = ok("verify", "shards.h5", "--deep", "2", "--src", "photos")
    assert "5 samples, no problem found" in output
    assert "2 samples rendered again, all the same" in output
    assert "--src says where" in sentence_of("verify", "shards.h5", "--deep", "2")
    ok("preview", "shards.h5", "--out", "sheet.png", "-n", "3")
    assert cv2.imread("sheet.png").std() > 20
    ok("make", "--src", "photos", *SMALL, "--sharded", "--out", "master.h5")
    assert "5 samples" in ok("pack", "master.h5", "--out", "packed.h5")
    assert Path("packed.h5").read_bytes() == shards.read_bytes()
    assert "exists" in sentence_of("pack", "master.h5", "--out", "packed.h5")


def test_verify_fails_on_a_flipped_bit(shards):
    data = bytearray(shards.read_bytes())
    data[len(data) // 2] ^= 4
    shards.write_bytes(data)
    assert "checksum" in sentence_of("verify", "shards.h5")


def test_sources_are_listed_with_licences():
    rows = {row["name"]: row for row in json.loads(ok("sources", "--json"))}
    assert {"mapillary", "gopro", "text", "leaves"} <= set(rows)
    assert all(row["licence"] for row in rows.values())
    assert "mapillary" in ok("sources")


def test_one_source_is_shown_with_its_citation_and_layout():
    shown = json.loads(ok("sources", "mapillary", "--json"))
    assert "ICCV" in shown["citation"]
    assert "training/images" in str(shown["layouts"])
    assert "did you mean 'mapillary'" in sentence_of("sources", "mapilary")


def test_doctor_finds_this_installation_sound():
    assert "FAIL" not in ok("doctor")


@pytest.mark.parametrize(
    ("sent", "kill", "exit_code"),
    [(signal.SIGINT, os.killpg, 130), pytest.param(signal.SIGTERM, os.kill, 143, marks=pytest.mark.slow)],
    ids=["^C", "TERM"],
)
def test_stopped_command_says_how_to_go_on_and_leaves_nothing_running(tmp_path, sent, kill, exit_code):
    write_photos(tmp_path / "photos", 8, 300, 400)
    words = ["make", "--src", "photos", "--count", "20000", "--shard-mib", "8", "--set", "kernel.length_px=9 "]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "blurgen", *words, "--overwrite"],
        stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    assert until(lambda: list(tmp_path.glob("shards.h5.d/*.h5")))
    workers = workers_of(process.pid)
    started = time.monotonic()
    kill(process.pid, sent)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - started < 8, "a fraction of a second where nothing else runs"
    assert process.returncode == exit_code
    assert f"the same command continues: blurgen {shlex.join(words)}\n" in errors
    assert "Traceback" not in errors
    assert workers
    assert until(lambda: not any(map(lives, workers)))
    assert list(tmp_path.glob("shards.h5.d/*.h5"))
    assert not list(tmp_path.rglob("*.tmp"))
