"""The packed bytes of a plan: the same for any workers, back-end and shards, killed in between or not."""

import os
import random
import signal

import pytest
from dask_cluster import Cluster
from photos import write_photos
from runs import ended, finished, lives, planned, running, until

from blurgen.make_options import RunOptions
from blurgen.run import shard_folder

SIZES = (17, 64, 600)
FIELDS = {"count": 600, "exposure": (0.3, 1.0), "lowres": (2,), "scale_mean": 24.0, "scale_std": 4.0}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return planned(write_photos(tmp_path_factory.mktemp("determinism") / "photos", 7, 48, 64), **FIELDS)


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    return finished(plan, tmp_path_factory.mktemp("whole") / "a.h5")


def check(plan, whole, tmp_path, monkeypatch, options, per_shard, killed):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: per_shard)
    monkeypatch.setattr("blurgen.run.LEAST_SHARD", per_shard)
    out = tmp_path / f"{per_shard}-{killed}.h5"
    if killed:
        shards = random.Random(per_shard).randrange(1, 1 + len(range(0, plan.count, per_shard)))
        with running(plan, out, options) as pid:
            until(lambda: len(list(shard_folder(out).glob("0*.h5"))) >= shards or not lives(pid))
            os.killpg(pid, signal.SIGKILL)
    with running(plan, out, options) as pid:
        assert ended(pid) == 0
    assert out.read_bytes() == whole


def run_options(workers, backend="processes"):
    return RunOptions(workers=workers, backend=backend)


@pytest.mark.parametrize(("workers", "per_shard"), [pytest.param(1, 64, marks=pytest.mark.slow), (4, 17)])
def test_killed_threads_make_the_same_bytes(plan, whole, tmp_path, monkeypatch, workers, per_shard):
    check(plan, whole, tmp_path, monkeypatch, run_options(workers, "threading"), per_shard, killed=True)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("backend", ["threading", "processes"])
def test_any_workers_make_the_same_bytes(plan, whole, tmp_path, monkeypatch, backend, workers, killed):
    for per_shard in SIZES if backend == "threading" else SIZES[1 - killed :: 2 - killed]:
        check(plan, whole, tmp_path, monkeypatch, run_options(workers, backend), per_shard, killed)


@pytest.mark.slow
def test_clusters_make_the_same_bytes(plan, whole, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    with Cluster(tmp_path, workers=1) as cluster:
        for workers, per_shard in ((1, 600), (2, 64), (4, 17)):
            cluster.grow_to(workers)
            for killed in (False, True):
                check(plan, whole, tmp_path, monkeypatch, cluster.options, per_shard, killed)
