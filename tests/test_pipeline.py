"""Runs: determinism, resuming, growing, what is left out, and samples rendered again."""

import json
import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from photos import photo, write_photos

from blurgen import kernel_model
from blurgen.backends import build_all
from blurgen.export import write_kernels
from blurgen.lock import FolderLock
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen, build
from blurgen.pipeline import Progress, estimate, make, pack_shards
from blurgen.plan import make_plan, options_of, plan_difference
from blurgen.run import Run, open_run, shard_folder, shard_size
from blurgen.shards import open_shards, verify
from blurgen.worker import Bad
from blurgen.worker import build as build_shard

SERIAL = RunOptions(workers=1, backend="threading")
SMALL_SHARDS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("pipeline") / "photos", 10)


def options(folder, **fields):
    values = {"kernel": Chosen("deblurgan", {"length_px": 10.0, "side_px": 3}), "crop": 32, **fields}
    return MakeOptions(source=Chosen(str(folder)), **values)


def made(folder, out, run=SERIAL, **fields):
    make(make_plan(options(folder, **fields)), out, run)
    return out


def in_small_shards(monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: SMALL_SHARDS)


def test_every_sample_is_there_and_sound(folder, tmp_path):
    out = made(folder, tmp_path / "a.h5", per_image=3, lowres=(2,))
    shards = open_shards(out)
    assert len(shards) == 30
    assert verify(out) == []
    assert set(shards[0].arrays) == {"sharp", "blurred", "kernel", "sharp_x2", "blurred_x2"}
    assert [sample.id for sample in shards] == list(range(30))
    assert shards[4].key == "photo01.jpg"
    assert not shard_folder(out).exists()


@pytest.mark.parametrize(("workers", "backend"), [(1, "processes"), (2, "processes"), (2, "threading")])
def test_same_seed_same_bytes_for_any_workers_and_shards(folder, tmp_path, monkeypatch, workers, backend):
    whole = made(folder, tmp_path / "whole.h5", per_image=4).read_bytes()
    in_small_shards(monkeypatch)
    parts = made(folder, tmp_path / "parts.h5", RunOptions(workers=workers, backend=backend), per_image=4).read_bytes()
    assert parts == whole


def test_another_seed_makes_other_samples(folder, tmp_path):
    first, second = (open_shards(made(folder, tmp_path / f"{seed}.h5", seed=seed)) for seed in (0, 1))
    assert not any(np.array_equal(a.blurred, b.blurred) for a, b in zip(first, second, strict=True))


def test_stopped_run_continues_to_the_same_bytes(folder, tmp_path, monkeypatch):
    in_small_shards(monkeypatch)
    whole = made(folder, tmp_path / "whole.h5", per_image=4).read_bytes()
    out = tmp_path / "stopped.h5"
    plan = make_plan(options(folder, per_image=4))
    for job in open_run(plan, out, SERIAL).jobs()[1:3]:
        build_shard(job)
    built = []
    monkeypatch.setattr("blurgen.backends.build", lambda job, take_up: built.append(job.path.name) or build_shard(job))
    make(plan, out, SERIAL)
    assert sorted(built) == ["00000.h5", "00003.h5"]
    assert out.read_bytes() == whole


@pytest.mark.parametrize("before", ["packed", "sharded", "stopped", "killed after packing"])
@pytest.mark.parametrize(
    "sharded", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["to packed", "to sharded"]
)
def test_count_may_grow(folder, tmp_path, monkeypatch, before, sharded):
    in_small_shards(monkeypatch)
    whole = made(folder, tmp_path / "whole.h5", count=50).read_bytes()
    out = tmp_path / "grown.h5"
    plan = make_plan(options(folder, count=20))
    if before in ("stopped", "killed after packing"):
        list(build_all(open_run(plan, out, SERIAL).jobs(), SERIAL, 1))
    if before == "killed after packing":
        shutil.copy(made(folder, tmp_path / "twin.h5", count=20), out)
    elif before != "stopped":
        make(plan, out, replace(SERIAL, sharded=before == "sharded"))
    made(folder, out, replace(SERIAL, sharded=sharded), count=40)
    made(folder, out, replace(SERIAL, sharded=sharded), count=50)
    assert verify(out) == []
    if sharded:
        pack_shards(out, tmp_path / "repacked.h5")
        out = tmp_path / "repacked.h5"
    assert out.read_bytes() == whole


def test_stopped_growth_of_a_packed_file_keeps_what_it_has(folder, tmp_path, monkeypatch):
    in_small_shards(monkeypatch)
    whole = made(folder, tmp_path / "whole.h5", count=50).read_bytes()
    out = made(folder, tmp_path / "a.h5", count=20)
    larger = make_plan(options(folder, count=50))
    build_shard(open_run(larger, out, SERIAL).jobs()[0])
    built = []
    monkeypatch.setattr(
        "blurgen.backends.build", lambda job, take_up: built.append(job.first_sample) or build_shard(job)
    )
    make(larger, out, SERIAL)
    assert built == [32, 44]
    assert out.read_bytes() == whole


def test_growing_sharded_output_may_be_stopped(folder, tmp_path, monkeypatch):
    in_small_shards(monkeypatch)
    run = replace(SERIAL, sharded=True)
    out = made(folder, tmp_path / "a.h5", run, count=20)
    jobs = open_run(make_plan(options(folder, count=50)), out, run).jobs()
    build_shard(jobs[1])  # the last shard of 20 is replaced by a longer one
    made(folder, out, run, count=50)
    assert len(open_shards(out)) == 50
    assert verify(out) == []


def test_smaller_count_leaves_a_larger_stopped_run_alone(folder, tmp_path, monkeypatch):
    in_small_shards(monkeypatch)
    out = made(folder, tmp_path / "a.h5", count=20)
    (job, *_) = open_run(make_plan(options(folder, count=50)), out, SERIAL).jobs()
    build_shard(job)
    made(folder, out, count=20)
    assert job.path.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_removed_while_another_process_holds_the_folder(folder, tmp_path, overwrite):
    out = made(folder, tmp_path / "a.h5", count=20)
    (job, *_) = open_run(make_plan(options(folder, count=50)), out, SERIAL).jobs()
    build_shard(job)
    with FolderLock(job.path.parent), pytest.raises(RuntimeError, match="is being written by"):
        made(folder, out, replace(SERIAL, overwrite=overwrite), count=20)
    assert job.path.exists()
    assert out.exists()


def test_count_of_drawn_images_may_grow(tmp_path):
    whole = made("leaves", tmp_path / "whole.h5", count=3).read_bytes()
    made("leaves", tmp_path / "grown.h5", count=2)
    assert made("leaves", tmp_path / "grown.h5", count=3).read_bytes() == whole


def test_adding_an_image_changes_no_other_sample(folder, tmp_path):
    larger = tmp_path / "photos"
    shutil.copytree(folder, larger)
    cv2.imwrite(str(larger / "another.jpg"), photo(99))
    before = {sample.key: sample for sample in open_shards(made(folder, tmp_path / "a.h5"))}
    after = {sample.key: sample for sample in open_shards(made(larger, tmp_path / "b.h5"))}
    assert len(after) == len(before) + 1
    for key, sample in before.items():
        assert np.array_equal(sample.blurred, after[key].blurred)
        assert np.array_equal(sample.kernel, after[key].kernel)


def test_finished_output_is_left_alone(folder, tmp_path):
    out = made(folder, tmp_path / "a.h5")
    before = out.stat().st_mtime_ns
    assert make(make_plan(options(folder)), out, SERIAL).done == 10
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "not yet packed"])
def test_changed_plan_is_refused_with_the_difference(folder, tmp_path, packed):
    out = tmp_path / "a.h5"
    plan = make_plan(options(folder))
    if packed:
        make(plan, out, SERIAL)
    else:
        open_run(plan, out, SERIAL)
    with pytest.raises(ValueError, match=r"another plan \(crop: 32 -> 40; seed: 0 -> 1\).*--overwrite"):
        make(make_plan(options(folder, crop=40, seed=1)), out, SERIAL)
    make(make_plan(options(folder, crop=40)), out, replace(SERIAL, overwrite=True))
    assert open_shards(out).layout.crop == 40


def test_bad_images_leave_gaps_and_are_named(folder, tmp_path, monkeypatch):
    in_small_shards(monkeypatch)
    mixed = tmp_path / "photos"
    shutil.copytree(folder, mixed)
    (mixed / "photo03.jpg").write_bytes(b"<html>")
    cv2.imwrite(str(mixed / "photo05.jpg"), photo(0, 20, 20))
    progress = make(make_plan(options(mixed, per_image=2)), tmp_path / "a.h5", SERIAL)
    assert [(bad.key, bad.reason) for bad in progress.bad] == [
        ("photo03.jpg", "not-an-image"), ("photo05.jpg", "too-small"),
    ]  # fmt: skip
    shards = open_shards(tmp_path / "a.h5")
    assert [sample.id for sample in shards] == [i for i in range(20) if i not in (6, 7, 10, 11)]
    assert [bad[0] for bad in shards.attrs["bad"]] == ["photo03.jpg", "photo05.jpg"]
    assert verify(tmp_path / "a.h5") == []


def test_shard_without_a_single_good_image_is_no_obstacle(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 2)
    mixed = tmp_path / "photos"
    shutil.copytree(folder, mixed)
    for number in (2, 3):
        (mixed / f"photo{number:02d}.jpg").write_bytes(b"")
    make(make_plan(options(mixed)), tmp_path / "a.h5", SERIAL)
    assert len(open_shards(tmp_path / "a.h5")) == 8


def test_progress_counts_an_image_that_two_shards_leave_out_once():
    bad = Bad("a.jpg", "truncated", "it ends early")
    assert Progress(4, bad=[bad, bad, bad._replace(key="b.jpg")]).note == "2 images left out"


def test_failed_run_leaves_nothing_in_the_way_of_the_next(folder, tmp_path):
    with pytest.raises(ValueError, match="no image could be used"):
        make(make_plan(options(folder, crop=2000)), tmp_path / "a.h5", SERIAL)
    assert len(open_shards(made(folder, tmp_path / "a.h5"))) == 10


def test_lost_shard_of_a_sharded_output_is_made_again(folder, tmp_path, monkeypatch):
    in_small_shards(monkeypatch)
    run = replace(SERIAL, sharded=True)
    out = made(folder, tmp_path / "a.h5", run, per_image=3)
    lost = shard_folder(out) / "00001.h5"
    before = lost.read_bytes()
    lost.unlink()
    made(folder, out, run, per_image=3)
    assert lost.read_bytes() == before
    assert verify(out) == []


@pytest.mark.parametrize("name", [".", "a.txt", "kernels.h5"])
def test_output_that_is_something_else_is_refused(folder, tmp_path, name):
    (tmp_path / "a.txt").write_text("notes")
    write_kernels(tmp_path / "kernels.h5", kernel_model("linear"), 2)
    with pytest.raises(ValueError, match=r"--out"):
        made(folder, tmp_path / name)


def test_shards_are_small_enough_to_keep_all_workers_busy(folder):
    plan = make_plan(options(folder, count=1000))
    assert shard_size(plan, RunOptions(workers=2)) == 63
    assert shard_size(plan, RunOptions(workers=64)) == 16
    assert (
        shard_size(make_plan(options(folder, count=10**6)), RunOptions(workers=1))
        == (64 << 20) // plan.layout.sample_bytes
    )


def test_nothing_but_bad_images_is_an_error(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no image could be used"):
        make(make_plan(options(tmp_path / "photos")), tmp_path / "a.h5", SERIAL)


def test_sharded_output_reads_like_the_packed_one(folder, tmp_path, monkeypatch):
    in_small_shards(monkeypatch)
    packed = open_shards(made(folder, tmp_path / "packed.h5", per_image=3))
    master = made(folder, tmp_path / "master.h5", replace(SERIAL, sharded=True), per_image=3)
    sharded = open_shards(master)
    assert verify(master) == []
    for a, b in zip(packed, sharded, strict=True):
        assert np.array_equal(a.blurred, b.blurred)
        assert (a.id, a.key) == (b.id, b.key)
    assert pack_shards(master, tmp_path / "again.h5") == 30
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "packed.h5").read_bytes()


def test_exposures_of_a_crop_follow_each_other(folder, tmp_path):
    shards = open_shards(made(folder, tmp_path / "a.h5", exposure=(0.1, 1.0)))
    assert len(shards) == 20
    assert np.array_equal(shards[0].sharp, shards[1].sharp)
    assert shards.meta["exposure"][:4, 1].tolist() == [0.1, 1.0, 0.1, 1.0]
    assert np.array_equal(shards.meta["params"][0], shards.meta["params"][1])


class EndsTheProcess:
    """What ends a process that unpickles it."""

    def __reduce__(self):
        return os._exit, (7,)


def test_dying_workers_end_in_one_sentence(folder, tmp_path):
    jobs = [
        replace(job, source=EndsTheProcess()) for job in Run(make_plan(options(folder)), tmp_path / "a.h5", 5).jobs()
    ]
    with pytest.raises(
        RuntimeError, match=r"worker processes died 3 times over one shard, and the last ended with code 7"
    ):
        list(build_all(jobs, RunOptions(workers=2), 2))


def test_second_run_on_one_output_is_told_who_holds_it(folder, tmp_path):
    out = tmp_path / "a.h5"
    plan = make_plan(options(folder))
    with (
        FolderLock(open_run(plan, out, SERIAL).folder),
        pytest.raises(RuntimeError, match=r"written by process \d+ on"),
    ):
        make(plan, out, SERIAL)
    make(plan, out, SERIAL)
    assert len(open_shards(out)) == 10


def test_drafts_of_a_killed_run_are_removed(folder, tmp_path):
    out = tmp_path / "a.h5"
    plan = make_plan(options(folder))
    draft = open_run(plan, out, SERIAL).folder / ".00000.h5.1234.tmp"
    draft.write_bytes(b"half")
    make(plan, out, replace(SERIAL, sharded=True))
    assert not draft.exists()


def test_full_disk_is_noticed_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.pipeline.bytes_free", lambda path: 1000)
    with pytest.raises(OSError, match=r"needs [\d,]+ bytes .* 1,000 free"):
        made(folder, tmp_path / "a.h5")


def test_dry_run_states_what_will_be_written(folder, tmp_path):
    plan = make_plan(options(folder, per_image=5))
    stated = estimate(plan, tmp_path / "a.h5", SERIAL)
    made(folder, tmp_path / "a.h5", per_image=5)
    assert stated["samples"] == 50
    assert stated["seconds"] > 0
    assert not shard_folder(tmp_path / "b.h5").exists()
    assert abs(stated["bytes_needed"] / 2 / (tmp_path / "a.h5").stat().st_size - 1) < 0.1


def test_plan_document_reads_back_to_its_options(folder):
    chosen = options(folder, noise=Chosen("poisson-gaussian", {"photons": 100.0}), scale_mean=40.0, lowres=(2,))
    document = json.loads(json.dumps(make_plan(chosen).document))
    again = options_of(document)
    assert replace(again, source=chosen.source, count=None) == chosen


def test_plan_difference_names_fields_and_lets_count_grow():
    assert plan_difference({"count": 3, "a": {"b": 1}}, {"count": 5, "a": {"b": 2}}) == ["a.b: 1 -> 2"]
    assert plan_difference({"count": 5}, {"count": 3}) == ["count: 5 -> 3"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"crop": 0}, "crop must be at least 1"),
        ({"exposure": [0.0]}, r"exposure must be in \(0, 1\]"),
        ({"exposure": [1.5]}, r"exposure must be in \(0, 1\]"),
        ({"crop": 33, "lowres": [2]}, "divide the crop of 33 px"),
        ({"scale_std": 5.0}, "needs --scale-mean"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"count": 0}, "count must be at least 1"),
        ({"real": True, "noise": "realblur"}, "leave out --kernel, --noise"),
        ({"small": "drop"}, "small must be one of skip, scale"),
    ],
)
def test_impossible_options_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(MakeOptions, {"source": "text", **fields})


@pytest.mark.parametrize(("fields", "sentence"), [({"workers": 0}, "workers"), ({"shard_mib": 200}, "shard_mib")])
def test_impossible_run_options_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(RunOptions, fields)


def test_a_shard_that_never_appears_ends_the_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.backends.build", lambda job, take_up: job.path)
    with pytest.raises(RuntimeError, match=r"does not keep what was written: shard 00000\.h5"):
        made(folder, tmp_path / "a.h5")
