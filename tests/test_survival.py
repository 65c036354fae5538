"""Runs that are killed, and images that kill: nothing is lost, nothing is doubled, and the bytes stay the same."""

import os
import random
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from photos import write_photos
from runs import Trapped, ended, finished, leftovers, lives, planned, running, until, workers_of

from blurgen.make_options import RunOptions
from blurgen.pipeline import make
from blurgen.run import shard_folder
from blurgen.shards import open_shards, verify

PER_SHARD = 40
ONE, TWO = RunOptions(workers=1), RunOptions(workers=2)
NAMES = [f"photo{number:02d}.jpg" for number in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("survival") / "photos", len(NAMES), 48, 64)


@pytest.fixture(scope="module")
def plan(folder):
    return planned(folder, count=1000)


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """Return the bytes of a run that nothing has happened to."""
    return finished(plan, tmp_path_factory.mktemp("whole") / "a.h5")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: PER_SHARD)


def killed_and_finished(plan, out, moment, whole, options=ONE):
    """Kill a run after so many seconds, or once `moment` holds; return whether it was still running."""
    with running(plan, out, options) as pid:
        if callable(moment):
            until(lambda: moment() or not lives(pid))
        else:
            until(lambda: not lives(pid), moment)
        workers, was_alive = workers_of(pid), lives(pid)
        os.killpg(pid, signal.SIGKILL)
        assert until(lambda: not any(map(lives, workers)), 10), "a worker has outlived its parent"
    assert finished(plan, out) == whole
    assert leftovers(out.parent) == []
    return was_alive


def is_packing(out):
    return lambda: any(out.parent.glob(".*.tmp"))


def test_killed_run_is_finished_to_the_same_bytes(plan, whole, tmp_path):
    out = tmp_path / "a.h5"
    assert killed_and_finished(plan, out, lambda: len(list(shard_folder(out).glob("*.h5"))) > 3, whole)


def test_worker_in_the_middle_of_an_image_ends_with_its_parent(folder, tmp_path):
    plan, out, sign = planned(folder), tmp_path / "a.h5", tmp_path / "sign"
    with running(replace(plan, source=Trapped(plan.source, {NAMES[3]: "hang"}, str(sign))), out, ONE) as pid:
        assert until(sign.exists)
        (worker,) = workers_of(pid)
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: not lives(worker), 10)
    sign.unlink()
    finished(plan, out)
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_run_killed_while_it_packs_is_finished_to_the_same_bytes(plan, whole, tmp_path):
    killed_and_finished(plan, tmp_path / "a.h5", is_packing(tmp_path / "a.h5"), whole)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_leave_the_same_bytes(plan, whole, tmp_path):
    started = time.monotonic()
    with running(plan, tmp_path / "timed.h5", TWO) as pid:
        assert ended(pid) == 0
    duration, rng, in_time = time.monotonic() - started, random.Random(5), 0
    for number in range(50):
        out = tmp_path / str(number) / "a.h5"
        out.parent.mkdir()
        moment = is_packing(out) if number % 10 == 9 else rng.uniform(0.05, 1.1 * duration)
        in_time += killed_and_finished(plan, out, moment, whole, TWO)
        ids = open_shards(out).meta["id"]
        assert len(np.unique(ids)) == len(ids) == plan.count
    assert in_time > 25


def kill_one_worker(plan, out, whole, moment):
    with running(plan, out, TWO) as pid:
        assert until(moment)
        os.kill(workers_of(pid)[0], signal.SIGKILL)
        assert ended(pid) == 0
    assert out.read_bytes() == whole
    assert leftovers(out.parent) == []


def test_run_ends_well_when_a_worker_is_killed(plan, whole, tmp_path):
    out = tmp_path / "a.h5"
    kill_one_worker(plan, out, whole, lambda: len(list(shard_folder(out).glob("*.h5"))) > 2)


@pytest.mark.slow
def test_runs_end_well_when_a_worker_is_killed_ten_times(plan, whole, tmp_path):
    for number in range(10):
        out = tmp_path / str(number) / "a.h5"
        out.parent.mkdir()
        kill_one_worker(plan, out, whole, lambda: len(list(shard_folder(out).glob("*.h5"))) > 2 * number)  # noqa: B023


def trapped(folder, traps, **fields):
    plan = planned(folder, **fields)
    return replace(plan, source=Trapped(plan.source, traps))


def check_left_out(plan, out, progress, reasons):
    assert {bad.key: bad.reason for bad in progress.bad} == reasons
    shards = open_shards(out)
    assert [tuple(bad[:2]) for bad in shards.attrs["bad"]] == sorted(reasons.items())
    crops = [plan.crop(number) for number in range(plan.count)]
    expected = [crop.first_sample for crop in crops if crop.entry.key not in reasons]
    assert shards.meta["id"].tolist() == expected
    assert verify(out) == []


@pytest.mark.slow
def test_images_that_kill_hang_or_raise_are_left_out_and_all_else_is_there(folder, tmp_path):
    traps = {NAMES[2]: "raise", NAMES[5]: "exit", NAMES[7]: "hang inside of a library"}
    plan, out = trapped(folder, traps, per_image=2), tmp_path / "a.h5"
    progress = make(plan, out, RunOptions(workers=1, image_timeout=1.0))
    reasons = {NAMES[2]: "raised-an-error", NAMES[5]: "ended-its-worker", NAMES[7]: "took-too-long"}
    check_left_out(plan, out, progress, reasons)
    messages = {bad.key: bad.message for bad in progress.bad}
    assert messages[NAMES[2]] == "LookupError: this image has a curse on it"
    assert messages[NAMES[5]] == "its worker process ended with code 3, 2 times"
    assert "--image-timeout" in messages[NAMES[7]]


@pytest.mark.slow
def test_deadly_images_leave_the_same_bytes_for_any_shards(folder, tmp_path, monkeypatch):
    traps = {NAMES[4]: "segfault", NAMES[6]: "hang"}
    plan, made = trapped(folder, traps, count=40, per_image=2), set()
    for per_shard in (10, 40):
        monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib, n=per_shard: n)
        out = tmp_path / f"{per_shard}.h5"
        progress = make(plan, out, RunOptions(workers=2, image_timeout=1.0))
        check_left_out(plan, out, progress, {NAMES[4]: "ended-its-worker", NAMES[6]: "took-too-long"})
        made.add(out.read_bytes())
    assert len(made) == 1


def test_image_that_raises_later_is_left_out_of_shards_made_before(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 5)
    plan, out = planned(folder, count=3 * len(NAMES)), tmp_path / "a.h5"
    real, seen = type(plan.source).read, []

    def raises_on_its_second_lap(source, key):
        if key == NAMES[3]:
            seen.append(key)
            if len(seen) > 1:
                raise ZeroDivisionError("not again")
        return real(source, key)

    monkeypatch.setattr(type(plan.source), "read", raises_on_its_second_lap)
    progress = make(plan, out, RunOptions(workers=1, backend="threading"))
    check_left_out(plan, out, progress, {NAMES[3]: "raised-an-error"})


def test_image_that_raises_once_is_tried_again(folder, tmp_path, monkeypatch):
    plan, out = planned(folder), tmp_path / "a.h5"
    real, failures = type(plan.source).read, [MemoryError()]

    def raises_once(source, key):
        if failures and key == NAMES[3]:
            raise failures.pop()
        return real(source, key)

    monkeypatch.setattr(type(plan.source), "read", raises_once)
    assert make(plan, out, RunOptions(workers=1, backend="threading")).bad == []
    assert len(open_shards(out)) == len(NAMES)


def test_stopped_threads_end_at_the_next_image(folder, tmp_path, monkeypatch):
    plan, out = planned(folder, count=100_000), tmp_path / "a.h5"
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 50_000)

    def interrupt(progress):
        signal.setitimer(signal.ITIMER_REAL, 0.3)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            make(plan, out, RunOptions(workers=2, backend="threading"), interrupt)
        assert time.monotonic() - started < 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert leftovers(tmp_path) == []
