"""Disks that are full, read-only, forbidden or gone: one sentence with the bytes needed; the same command goes on."""

import os
import resource
import shutil
import subprocess

import pytest
from click.testing import CliRunner
from photos import write_photos
from runs import finished, leftovers, planned

from blurgen.cli import main
from blurgen.make_options import RunOptions
from blurgen.pipeline import make
from blurgen.run import shard_folder

COUNT = 400
WORDS = (
    "--crop",
    "16",
    "--set",
    "kernel.length_px=6.0",
    "--set",
    "kernel.side_px=3",
    "--count",
    COUNT,
    "--shard-mib",
    "1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("disk") / "photos", 6, 48, 64)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return finished(planned(folder, count=COUNT), tmp_path_factory.mktemp("whole") / "a.h5")


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of its own, and what changes its size or rights; skip where mounting is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "blurgen-test", place]
        return subprocess.run(command, capture_output=True).returncode == 0

    if not mount("size=64m"):
        pytest.skip("mounting is not allowed here")
    try:
        yield place, lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def command(folder, out, *words):
    arguments = [
        "make",
        "--src",
        folder,
        "--out",
        out,
        *WORDS,
        "--backend",
        "threading",
        "--workers",
        1,
        "--quiet",
        *words,
    ]
    return CliRunner().invoke(main, list(map(str, arguments)))


def sentence_of(result):
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1, result.output
    return result.output


def test_disk_that_is_too_small_is_noticed_before_the_work(folder, whole, small_disk):
    place, remount = small_disk
    remount("size=1m")
    assert "bytes while it is made, and its disk has" in sentence_of(command(folder, place / "a.h5"))
    assert os.listdir(place) == []
    remount("size=64m")
    assert command(folder, place / "a.h5").exit_code == 0
    assert (place / "a.h5").read_bytes() == whole


@pytest.mark.parametrize(("room", "failing"), [(0.5, "a.h5.d/0000"), (1.3, "a.h5 ")], ids=["shards", "packing"])
def test_disk_that_fills_up_stops_the_run_until_there_is_room(folder, whole, small_disk, monkeypatch, room, failing):
    place, remount = small_disk
    remount(f"size={int(room * len(whole))}")
    with monkeypatch.context() as patch:
        patch.setattr("blurgen.pipeline.bytes_free", lambda path: 1 << 40)  # others fill it up while the run goes on
        sentence = sentence_of(command(folder, place / "a.h5"))
    assert f"cannot write {place}/{failing}" in sentence
    assert "MiB): No space left on device; make room and run the same command again" in sentence
    assert not (place / "a.h5").exists()
    assert not list(place.rglob("*.tmp"))
    remount("size=64m")
    assert command(folder, place / "a.h5").exit_code == 0
    assert (place / "a.h5").read_bytes() == whole
    assert leftovers(place) == []


def forked(work):
    """Call `work` in a fork of this process, and return whether it asserted nothing wrong."""
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(("room", "failing"), [(0.1, "a.h5.d/0000"), (0.9, "a.h5 ")], ids=["shards", "packing"])
def test_limit_on_the_size_of_files_is_one_sentence(folder, whole, tmp_path, room, failing):
    def limited():
        limit = int(room * len(whole))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sentence = sentence_of(command(folder, tmp_path / "a.h5"))
        assert f"cannot write {tmp_path}/{failing}" in sentence
        assert "MiB): File too large; make room" in sentence

    assert forked(limited)
    assert not list(tmp_path.rglob("*.tmp"))
    assert command(folder, tmp_path / "a.h5").exit_code == 0
    assert (tmp_path / "a.h5").read_bytes() == whole


def test_read_only_disk_is_one_sentence(folder, small_disk):
    place, remount = small_disk
    remount("ro")
    sentence = sentence_of(command(folder, place / "new" / "a.h5"))
    assert "MiB): Read-only file system; choose a folder that exists and may be written to" in sentence


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become nobody")
def test_missing_permission_is_one_sentence(folder, tmp_path):
    tmp_path.chmod(0o755)

    def as_nobody():
        os.chdir(tmp_path)
        os.setgid(65534)
        os.setuid(65534)
        sentence = sentence_of(CliRunner().invoke(main, ["make", "--src", "leaves", "--count", "1", "--quiet"]))
        assert "cannot write shards.h5 (" in sentence
        assert "MiB): Permission denied; choose a folder that exists and may be written to" in sentence

    assert forked(as_nobody)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("level", [0, 1], ids=["the shards", "the folder of the output"])
def test_folder_that_vanishes_is_one_sentence_and_no_obstacle(folder, whole, tmp_path, level):
    plan, out = planned(folder, count=COUNT), tmp_path / "there" / "a.h5"
    gone = [shard_folder(out), out.parent][level]

    def report(progress):
        if progress.done and gone.exists():
            shutil.rmtree(gone)

    with pytest.raises(OSError, match=r"cannot write .*a.h5.d/00.*MiB\): No such file or directory; choose a folder"):
        make(plan, out, RunOptions(workers=1, backend="threading"), report)
    assert finished(plan, out) == whole


def test_name_that_no_draft_fits_beside_is_refused_before_the_work(folder, tmp_path):
    plan, longest = planned(folder, count=20), tmp_path / ("a" * 238 + ".h5")
    with pytest.raises(ValueError, match="--out must have a name of at most 241 bytes, got 242"):
        make(plan, tmp_path / ("a" * 239 + ".h5"), RunOptions(workers=1, backend="threading"))
    assert list(tmp_path.iterdir()) == []
    finished(plan, longest)
    assert list(tmp_path.iterdir()) == [longest]
