"""Runs on many machines: slices side by side that `index` finishes, and dask with a real scheduler and workers."""

import signal
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
from dask_cluster import Cluster
from photos import write_photos
from runs import ALONE, Trapped, ended, finished, leftovers, planned, running

from blurgen import cluster, run
from blurgen.lock import FolderLock
from blurgen.make_options import RunOptions
from blurgen.options import build
from blurgen.pipeline import index, make
from blurgen.run import shard_folder
from blurgen.shards import open_shards, pack, verify
from blurgen.slices import Slice, parse_slice

PER_SHARD = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("cluster") / "photos", 6, 48, 64)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return finished(planned(folder, count=130), tmp_path_factory.mktemp("whole") / "a.h5")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: PER_SHARD)


def make_slices(plan, out, *slices, **fields):
    for shard in slices:
        make(plan, out, replace(ALONE, shard=shard, **fields))


@pytest.mark.parametrize("slices", [("1/1",), ("3/3", "1/3", "2/3"), [f"{i}/9" for i in range(1, 10)]], ids=len)
def test_slices_make_the_bytes_of_one_run(folder, whole, tmp_path, slices):
    plan, out = planned(folder, count=130), tmp_path / "a.h5"
    make_slices(plan, out, *slices)
    assert not out.exists()
    assert index(out, packed=True).done == 130
    assert out.read_bytes() == whole
    assert leftovers(tmp_path) == []
    assert index(out, packed=True).done == 130


def test_index_keeps_the_shards_beside_a_master(folder, whole, tmp_path):
    plan, out = planned(folder, count=130), tmp_path / "a.h5"
    make_slices(plan, out, "2/2", "1/2")
    index(out)
    assert verify(out) == []
    pack(out, tmp_path / "b.h5", open_shards(out).attrs)
    assert sorted(path.name for path in shard_folder(out).iterdir()) == [
        ".lock",
        *(f"{i:05}.h5" for i in range(13)),
        "plan.json",
    ]
    make(plan, out, replace(ALONE, sharded=True))
    make(plan, out, ALONE)
    assert out.read_bytes() == whole


def test_slices_may_run_side_by_side_on_machines_of_any_size(folder, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 1 << 20)
    monkeypatch.setattr("blurgen.run.LEAST_SHARD", 4)
    plan, out = planned(folder, count=130), tmp_path / "a.h5"
    with ExitStack() as stack:
        fields = {"backend": "threading"}
        machines = [RunOptions(shard=f"{number}/3", workers=number, **fields) for number in (1, 2, 3)]
        runs = [stack.enter_context(running(plan, out, options)) for options in machines]
        assert [ended(pid) for pid in runs] == [0, 0, 0]
    index(out, packed=True)
    assert out.read_bytes() == whole


def test_slices_that_begin_at_the_same_moment_agree_on_one_division(folder, whole, tmp_path, monkeypatch):
    plan, out = planned(folder, count=130), tmp_path / "a.h5"
    make_slices(plan, out, "1/2", workers=1)
    real, too_early = run.read_state, [None]
    monkeypatch.setattr(run, "shard_capacity", lambda plan, mib: 7)
    monkeypatch.setattr(run, "read_state", lambda out: too_early.pop() if too_early else real(out))
    make_slices(plan, out, "2/2")
    index(out, packed=True)
    assert out.read_bytes() == whole


def test_index_names_the_shards_and_slices_that_are_missing(folder, tmp_path):
    plan, out = planned(folder, count=130), tmp_path / "a.h5"
    with pytest.raises(ValueError, match="there are no shards"):
        index(out)
    make_slices(plan, out, "1/3", "3/3")
    with pytest.raises(
        ValueError, match=r"4 of 13 shards are missing, 00001.h5, 00004.h5, 00007.h5, 00010.h5: run again --shard 2/3"
    ):
        index(out)
    make_slices(plan, out, "1/4")
    (shard_folder(out) / "00000.h5").write_bytes(b"damaged")
    with pytest.raises(
        ValueError, match=r"4 of 13 shards are missing, 00000.h5, 00001.h5.*: make them by `blurgen make`"
    ):
        index(out)
    make(plan, out, ALONE)
    assert len(open_shards(out)) == 130


def test_image_left_out_of_one_slice_alone_is_left_out_of_all_by_one_more_run(folder, tmp_path):
    plan, out = planned(folder, count=130), tmp_path / "a.h5"
    trapped = replace(plan, source=Trapped(plan.source, {"photo03.jpg": "raise"}))
    make_slices(trapped, out, "1/2")
    make_slices(plan, out, "2/2")
    with pytest.raises(ValueError, match=r"photo03.jpg was left out of 000\d\d.h5, but not of .* without --shard"):
        index(out)
    assert [bad.key for bad in make(plan, out, ALONE).bad] == ["photo03.jpg"]
    assert out.read_bytes() == finished(trapped, tmp_path / "b.h5")


def test_slice_is_held_by_one_process_and_the_folder_by_none_beside_it(folder, tmp_path):
    plan, out = planned(folder, count=130), tmp_path / "a.h5"
    make_slices(plan, out, "1/2")
    with FolderLock(shard_folder(out), Slice(2, 2).file_name):
        make_slices(plan, out, "1/2")
        for work in (lambda: make_slices(plan, out, "2/2"), lambda: make(plan, out, ALONE), lambda: index(out)):
            with pytest.raises(RuntimeError, match=r"is being written by process \d+ on .* \(slice-"):
                work()
    with FolderLock(shard_folder(out)), pytest.raises(RuntimeError, match=r"is being written by process"):
        make_slices(plan, out, "2/2")


def test_slice_of_another_plan_is_refused(folder, tmp_path):
    make_slices(planned(folder, count=130), tmp_path / "a.h5", "1/2")
    with pytest.raises(ValueError, match=r"another plan \(seed: 0 -> 1\)"):
        make_slices(planned(folder, count=130, seed=1), tmp_path / "a.h5", "2/2")


@pytest.mark.parametrize("packed", [True, False])
def test_slices_may_grow_what_is_there(folder, whole, tmp_path, packed):
    out = tmp_path / "a.h5"
    make(planned(folder, count=50), out, replace(ALONE, sharded=not packed))
    make_slices(planned(folder, count=130), out, "1/2", "2/2")
    index(out, packed=True)
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ARRAY_TASK_ID": 5, "ARRAY_TASK_MIN": 0, "ARRAY_TASK_MAX": 7, "ARRAY_TASK_COUNT": 8}, (6, 8)),
        ({"ARRAY_TASK_ID": 8, "ARRAY_TASK_MIN": 1, "ARRAY_TASK_MAX": 8, "ARRAY_TASK_COUNT": 8}, (8, 8)),
        ({"ARRAY_TASK_ID": 14, "ARRAY_TASK_MIN": 10, "ARRAY_TASK_MAX": 18, "ARRAY_TASK_COUNT": 5}, (3, 5)),
        ({"PROCID": 0, "NTASKS": 4}, (1, 4)),
        ({"PROCID": 3, "NTASKS": 4}, (4, 4)),
        (
            {"ARRAY_TASK_ID": 2, "ARRAY_TASK_MIN": 1, "ARRAY_TASK_MAX": 3, "ARRAY_TASK_COUNT": 3}
            | {"PROCID": 1, "NTASKS": 2},
            (4, 6),
        ),
    ],
)
def test_auto_asks_slurm(environment, expected):
    assert parse_slice("auto", {f"SLURM_{name}": str(value) for name, value in environment.items()}) == expected


@pytest.mark.parametrize(
    ("text", "environment", "sentence"),
    [
        ("0/4", {}, "i from 1 to n"),
        ("5/4", {}, "i from 1 to n"),
        ("1 of 4", {}, "must be i/n"),
        ("auto", {}, "neither is set"),
        ("auto", {"SLURM_PROCID": "4", "SLURM_NTASKS": "4"}, "below SLURM_NTASKS"),
        (
            "auto",
            {
                f"SLURM_ARRAY_TASK_{name}": value
                for name, value in zip(("ID", "MIN", "MAX", "COUNT"), "2163", strict=True)
            },
            "in even steps",
        ),
    ],
)
def test_slices_that_are_none_are_refused(text, environment, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_slice(text, environment)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"backend": "dask"}, "needs --scheduler"),
        ({"scheduler": "tcp://here:1"}, "needs --backend dask"),
        ({"shard": "1/2", "overwrite": True}, "would remove what other slices made"),
        ({"image_timeout": 3.0, "backend": "threading"}, "a thread that hangs cannot be ended"),
        ({"image_timeout": 0.0}, "must be a positive number of seconds"),
    ],
)
def test_options_that_do_not_go_together_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(RunOptions, fields)


def test_missing_dask_is_one_sentence(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeError, match=r'pip install "blurgen\[dask\]"'):
        make(planned(folder), tmp_path / "a.h5", RunOptions(backend="dask", scheduler="tcp://127.0.0.1:1"))
    assert leftovers(tmp_path) == []


def test_scheduler_that_is_not_there_is_one_sentence(folder, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.3)
    for address in ("tcp://127.0.0.1:9", "no address at all"):
        with pytest.raises(RuntimeError, match=f"no scheduler of dask answers at {address}"):
            make(planned(folder), tmp_path / "a.h5", RunOptions(backend="dask", scheduler=address))


@pytest.fixture
def dask_cluster(tmp_path):
    pytest.importorskip("distributed")
    with Cluster(tmp_path) as found:
        yield found


@pytest.fixture
def long_plan(folder):
    return planned(folder, count=1500)


def shards_made(out):
    return len(list(shard_folder(out).glob("*.h5")))


def _after(out, shards, happen):
    """Return what `make` reports to: once so many shards are there, it lets something happen, once."""
    pending = [happen]

    def report(progress):
        if pending and shards_made(out) >= shards:
            pending.pop()()

    return report


@pytest.mark.slow
def test_dask_makes_the_bytes_of_a_local_run_and_survives_its_workers(folder, long_plan, tmp_path, dask_cluster):
    long = finished(long_plan, tmp_path / "local.h5")
    out = tmp_path / "a.h5"
    make(long_plan, out, dask_cluster.options)
    assert out.read_bytes() == long
    killed = tmp_path / "killed.h5"
    make(long_plan, killed, dask_cluster.options, _after(killed, 5, dask_cluster.workers[0].kill))
    assert killed.read_bytes() == long
    plan = planned(folder)
    plan = replace(plan, source=Trapped(plan.source, {"photo03.jpg": "exit"}))
    progress = make(plan, tmp_path / "trapped.h5", dask_cluster.options)
    assert [(bad.key, bad.reason) for bad in progress.bad] == [("photo03.jpg", "ended-its-worker")]
    assert dask_cluster.workers[1].poll() is None
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_lost_scheduler_is_one_sentence_and_the_run_goes_on_elsewhere(long_plan, tmp_path, dask_cluster):
    out = tmp_path / "a.h5"
    with pytest.raises(
        RuntimeError, match=f"the scheduler of dask at {dask_cluster.address} is gone; the same command"
    ):
        make(long_plan, out, dask_cluster.options, _after(out, 5, dask_cluster.scheduler.kill))
    assert 5 <= shards_made(out) < 150
    assert finished(long_plan, out) == finished(long_plan, tmp_path / "local.h5")


@pytest.mark.slow
def test_cluster_without_workers_is_one_sentence(long_plan, tmp_path, dask_cluster, monkeypatch):
    monkeypatch.setattr(cluster, "_NO_WORKER_S", 2)
    monkeypatch.setattr(cluster, "_LOOK_S", 0.5)
    out = tmp_path / "a.h5"

    def kill_all():
        for worker in dask_cluster.workers:
            worker.send_signal(signal.SIGKILL)

    with pytest.raises(
        RuntimeError, match=r"has no worker: `dask worker tcp://.*` starts some; the same command continues"
    ):
        make(long_plan, out, dask_cluster.options, _after(out, 5, kill_all))
    assert 5 <= shards_made(out) < 150
