"""Every call that changes the disk fails once, or is the last before the process dies: what is there stays sound."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from unittest import mock

import pytest
from photos import write_photos
from runs import ALONE, planned

from blurgen.pipeline import index, make, pack_shards
from blurgen.shards.checking import problems

CHANGES = (
    "open",
    "posix_fallocate",
    "ftruncate",
    "pwrite",
    "fsync",
    "replace",
    "rename",
    "link",
    "unlink",
    "rmdir",
    "mkdir",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("faults") / "photos", 4, 32, 40)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 2)


def packed(folder, out):
    make(planned(folder), out, ALONE)


def sharded(folder, out):
    make(planned(folder), out, replace(ALONE, sharded=True))


def grown(folder, out):
    if not out.exists():
        make(planned(folder, count=2), out, ALONE)
    make(planned(folder), out, ALONE)


def grown_apart(folder, out):
    if not (out.exists() or out.with_name("a.h5.d").exists()):
        make(planned(folder, count=1), out, ALONE)
    make(planned(folder), out, replace(ALONE, sharded=True))


def sliced(folder, out):
    for shard in ("2/2", "1/2"):
        make(planned(folder), out, replace(ALONE, shard=shard))
    index(out, packed=True)


def sliced_apart(folder, out):
    for shard in ("2/2", "1/2"):
        make(planned(folder), out, replace(ALONE, shard=shard))
    index(out)


WAYS = {way.__name__: way for way in (packed, sharded, grown, grown_apart, sliced, sliced_apart)}


class Steps:
    """Counts the calls that change the disk, and lets something happen at one of them."""

    def __init__(self, at: int = -1, happen: Callable = lambda call, *arguments, **settings: None):
        self.count, self._at, self._happen = 0, at, happen

    def __enter__(self) -> "Steps":
        self._patches = [mock.patch.object(os, name, self._counting(getattr(os, name))) for name in CHANGES]
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in self._patches:
            patch.stop()

    def _counting(self, call: Callable) -> Callable:
        def counting(*arguments, **settings):
            if call.__name__ == "open" and not arguments[1] & os.O_CREAT:
                return call(*arguments, **settings)
            self.count += 1
            if self.count - 1 == self._at:
                self._happen(call, *arguments, **settings)
            return call(*arguments, **settings)

        return counting


def fail(code):
    def happen(call, *arguments, **settings):
        raise OSError(code, os.strerror(code))

    return happen


def die_before(call, *arguments, **settings):
    os._exit(9)


def die_after(call, *arguments, **settings):
    if call.__name__ == "pwrite":  # in the middle of it
        arguments = (arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:])
    call(*arguments, **settings)
    os._exit(9)


HAPPENINGS = {"full": fail(errno.ENOSPC), "broken": fail(errno.EIO), "dies before": die_before, "dies after": die_after}


def steps_of(way, folder, place):
    """Return how many calls change the disk, and the bytes of the output (of a sharded one, once it is packed)."""
    place.mkdir()
    with Steps() as steps:
        WAYS[way](folder, place / "a.h5")
    return steps.count, content(place / "a.h5")


def content(out):
    assert list(problems(out)) == []
    if out.with_name("a.h5.d").exists():
        pack_shards(out, out.with_name("packed.h5"))
        out = out.with_name("packed.h5")
    return out.read_bytes()


def befall(way, folder, out, step, happening):
    """Do the work while something happens at a step: what fails is an OSError, what dies does so in a fork."""
    with Steps(step, HAPPENINGS[happening]):
        if happening.startswith("dies"):
            pid = os.fork()
            if not pid:
                try:
                    WAYS[way](folder, out)
                finally:
                    os._exit(9)
            os.waitpid(pid, 0)
        else:
            with suppress(OSError):
                WAYS[way](folder, out)


def check_every(stride, way, happening, folder, tmp_path):
    count, whole = steps_of(way, folder, tmp_path / "whole")
    assert count > 40
    for step in range(hash_of(way, happening) % stride, count, stride):
        out = tmp_path / "now" / "a.h5"
        out.parent.mkdir()
        befall(way, folder, out, step, happening)
        for path in [*out.parent.rglob("*.h5")]:
            sound = list(problems(path))
            # A master says of a shard that is being replaced that it is not the one that was listed, and is replaced.
            assert sound == [] or (path == out and "was listed" in sound[0]), (step, path)
        WAYS[way](folder, out)
        assert content(out) == whole, step
        assert list(out.parent.rglob("*.tmp")) == [], step
        shutil.rmtree(out.parent)


def hash_of(*words):
    return sum(map(ord, "".join(words)))


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_any_fault_while_packed_leaves_what_a_rerun_completes(folder, tmp_path, happening):
    check_every(9, "packed", happening, folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_faults_leave_what_a_rerun_completes(folder, tmp_path, way, happening):
    check_every(3, way, happening, folder, tmp_path)  # 1 is every call there is: three minutes
