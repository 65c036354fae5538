"""Shards: packing forgets how samples were divided, and files are whole or absent whatever fails."""

import errno
import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from blurgen import open_shards
from blurgen.shards import BadShard, Layout, pack, remove_drafts, shard_paths, write_master
from blurgen.shards.checking import problems
from tests.shard_data import ATTRS, MAPPED, content

CODECS = [None, "gzip"]


@pytest.mark.parametrize("codec", CODECS)
def test_packed_bytes_do_not_depend_on_the_division(tmp_path, codec):
    made, packed = content(23), set()
    for per_shard in (1, 4, 7, 23):
        paths = made.divided(tmp_path / str(per_shard), per_shard, codec)
        assert pack(paths, tmp_path / "out.h5", ATTRS) == 23
        packed.add((tmp_path / "out.h5").read_bytes())
    assert len(packed) == 1
    assert not list(problems(tmp_path / "out.h5"))


@pytest.mark.parametrize("codec", CODECS)
def test_packing_may_go_by_steps(tmp_path, codec):
    made, out = content(23), tmp_path / "out.h5"
    paths = made.divided(tmp_path / "set", 5, codec)
    pack(paths, tmp_path / "at once.h5", ATTRS)
    pack(paths[:2], out, ATTRS)
    pack([out, *paths[2:]], out, ATTRS)
    assert out.read_bytes() == (tmp_path / "at once.h5").read_bytes()


@pytest.mark.parametrize("codec", CODECS)
def test_file_that_is_packed_already_keeps_its_bytes(tmp_path, codec):
    pack(content(9).divided(tmp_path / "set", 4, codec), tmp_path / "a.h5")
    pack(tmp_path / "a.h5", tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_folder_and_master_pack_like_their_shards(tmp_path):
    paths = content(9).divided(tmp_path / "set", 4)
    write_master(paths, tmp_path / "master.h5")
    assert shard_paths(tmp_path / "master.h5") == shard_paths(tmp_path / "set") == paths
    packed = set()
    for number, source in enumerate((paths, tmp_path / "set", str(tmp_path / "master.h5"))):
        pack(source, tmp_path / f"{number}.h5")
        packed.add((tmp_path / f"{number}.h5").read_bytes())
    assert len(packed) == 1


def test_sources_appear_once_in_the_order_of_first_use(tmp_path):
    made = content(12)
    made.meta["source"] = [2, 2, 0, 3, 0, 2, 3, 3, 0, 2, 2, 0]
    pack(made.divided(tmp_path / "set", 5), tmp_path / "a.h5")
    shards = open_shards(tmp_path / "a.h5")
    assert np.array_equal(shards.sources["key"], made.sources["key"][[2, 0, 3]])
    assert shards.meta["source"].tolist() == [0, 0, 1, 2, 1, 0, 2, 2, 1, 0, 0, 1]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_shards_without_samples_leave_no_trace(tmp_path, codec, empty):
    made = content(10)
    paths = made.divided(tmp_path / "set", 5, codec)
    pack(paths, tmp_path / "a.h5")
    paths.insert(empty, content(0, sources=0).write(tmp_path / "empty.h5", codec))
    pack(paths, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    write_master(paths, tmp_path / "m.h5")
    assert not list(problems(tmp_path / "m.h5"))
    assert [sample.id for sample in open_shards(tmp_path / "m.h5")] == made.meta["id"].tolist()


def test_attributes_are_those_given_or_those_agreed_on(tmp_path):
    for number in range(2):
        content(2, attrs={"plan": 1, "bad": [number]}).part(number, number + 1).write(tmp_path / f"{number}.h5")
    pack(tmp_path, tmp_path / "a.h5")
    assert {"plan": 1}.items() <= open_shards(tmp_path / "a.h5").attrs.items()
    assert "bad" not in open_shards(tmp_path / "a.h5").attrs
    pack(shard_paths(tmp_path / "a.h5"), tmp_path / "b.h5", {"plan": 2, "bad": [0, 1]})
    assert open_shards(tmp_path / "b.h5").attrs["bad"] == [0, 1]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", ["meta", "source", "sharp", "kernel", "label", "prior", "transcript"])
def test_damaged_shard_is_not_packed(tmp_path, codec, name):
    paths = content(layout=MAPPED).divided(tmp_path / "set", 5, codec)
    with h5py.File(paths[1], "r+", libver=("v110", "v110")) as file:
        item = file[name][0]
        if name in ("meta", "source"):
            item[next(iter(item.dtype.names))] = item.dtype[0].type(4)
        else:
            item.flat[0] += 1
        file[name][0] = item
    with pytest.raises(BadShard, match=f"00001.h5.*/{name} does not agree with its checksum"):
        pack(paths, tmp_path / "a.h5")
    assert not list(tmp_path.glob("*a.h5*"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda paths: [paths[1], paths[0]], "00000.h5 has ids that do not ascend after 21"),
        (lambda paths: [paths[0], paths[0]], "ids that do not ascend after 11"),
        (lambda paths: [paths[0], content(2, Layout(4), seed=1).write(paths[1])], "holds other arrays"),
        (lambda paths: [paths[0], content().part(6, 9).write(paths[1], "gzip")], "in another codec"),
    ],
)
def test_shards_that_do_not_belong_together_are_refused(tmp_path, wrong, message):
    paths = wrong(content().divided(tmp_path / "set", 5))
    for merge in (pack, write_master):
        with pytest.raises(BadShard, match=message):
            merge(paths, tmp_path / "a.h5")
    assert not list(tmp_path.glob("*a.h5*"))


def test_master_holds_shards_below_its_folder_only(tmp_path):
    (tmp_path / "there").mkdir()
    path = content().write(tmp_path / "a.h5")
    with pytest.raises(BadShard, match="must lie below"):
        write_master([path], tmp_path / "there" / "m.h5")


def test_set_moves_with_its_master(tmp_path):
    made = content()
    (tmp_path / "here").mkdir()
    write_master(made.divided(tmp_path / "here" / "m.h5.d", 5), tmp_path / "here" / "m.h5")
    (tmp_path / "here").rename(tmp_path / "there")
    assert not list(problems(tmp_path / "there" / "m.h5"))


def fail(code):
    def failing(*arguments, **settings):
        raise OSError(code, os.strerror(code))

    return failing


def fail_to_create(code):
    real = os.open
    return lambda name, flags, *mode: fail(code)() if flags & os.O_CREAT else real(name, flags, *mode)


@pytest.mark.parametrize("step", ["open", "posix_fallocate", "pwrite", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("way", ["write", "pack", "pack gzip", "master"])
def test_failing_step_leaves_what_was_there(tmp_path, monkeypatch, step, code, way):
    paths = content().divided(tmp_path / "set", 5, "gzip" if way == "pack gzip" else None)
    out = tmp_path / "a.h5"
    out.write_bytes(b"before")
    work = {"write": lambda: content().write(out), "master": lambda: write_master(paths, out)}
    with monkeypatch.context() as patch:
        patch.setattr(os, step, (fail_to_create if step == "open" else fail)(code))
        with pytest.raises(OSError, match="cannot write") as caught:
            work.get(way, lambda: pack(paths, out))()
    assert caught.value.errno == code
    assert str(out) in caught.value.strerror
    assert ("make room" in caught.value.strerror) == (code == errno.ENOSPC)
    assert out.read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "set"]
    work.get(way, lambda: pack(paths, out))()
    assert not list(problems(out))


def test_folder_that_cannot_be_synced_leaves_a_whole_file(tmp_path, monkeypatch):
    calls = iter([None, OSError(errno.EIO, "broken")])
    real = os.fsync

    def second_fails(descriptor):
        if error := next(calls):
            raise error
        real(descriptor)

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(OSError, match="broken"):
        content().write(tmp_path / "a.h5")
    assert os.listdir(tmp_path) == ["a.h5"]
    assert not list(problems(tmp_path / "a.h5"))


def test_interrupt_leaves_no_draft(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupt)
    with pytest.raises(KeyboardInterrupt):
        content().write(tmp_path / "a.h5")
    assert not os.listdir(tmp_path)


def test_partial_writes_are_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:1000], offset))
    made = content()
    assert made.write(tmp_path / "a.h5").read_bytes() == made.bytes()
    pack(made.divided(tmp_path / "set", 5, "gzip"), tmp_path / "b.h5")
    assert not list(problems(tmp_path / "b.h5"))


def test_file_system_that_cannot_reserve_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", fail(errno.EOPNOTSUPP))
    made = content()
    assert made.write(tmp_path / "a.h5").read_bytes() == made.bytes()


def test_vanished_folder_is_one_sentence(tmp_path):
    with pytest.raises(
        OSError, match=r"cannot write .*/gone/a.h5 \(0.0 MiB\): No such file or directory; choose a folder"
    ):
        content().write(tmp_path / "gone" / "a.h5")


FULL = """
import resource, sys
from pathlib import Path
from blurgen.shards import pack, shard_paths
sys.path.insert(0, {root!r})
from tests.shard_data import content
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    content().write(Path("a.h5"), {codec!r}) if {way!r} == "write" else pack(shard_paths("set"), "a.h5")
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("way", ["write", "pack"])
@pytest.mark.parametrize("codec", CODECS)
def test_full_disk_does_not_crash_the_interpreter(tmp_path, way, codec):
    content().divided(tmp_path / "set", 1, codec)
    code = FULL.format(root=os.path.dirname(os.path.dirname(__file__)), codec=codec, way=way)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cannot write a.h5")
    assert "File too large; make room and run the same command again" in done.stdout
    assert os.listdir(tmp_path) == ["set"]


def test_drafts_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    for name in (".a.h5.01ab.tmp", ".b.h5.01ab.tmp", "a.h5", "note.tmp", ".keep"):
        (tmp_path / name).touch()
    assert remove_drafts(tmp_path / "a.h5") == 1
    assert remove_drafts(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".keep", "a.h5", "note.tmp"]


def test_packing_takes_little_memory_and_closes_its_files(tmp_path):
    content(1200, Layout(64)).divided(tmp_path / "set", 10)
    before, files = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/fd"))
    pack(tmp_path / "set", tmp_path / "a.h5")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000
    assert len(os.listdir("/proc/self/fd")) <= files
    assert (tmp_path / "a.h5").stat().st_size > 28_000_000
