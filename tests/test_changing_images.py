"""Images that change, shrink, vanish or are forbidden between the plan and the work; folders without end."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import photo, write_photos
from surroundings import child

from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import make_plan
from blurgen.run import open_run, shard_folder
from blurgen.shards import BadShard, open_shards, verify, write_master
from blurgen.sources import BadImage
from blurgen.sources.files import OnDemand, read_whole
from blurgen.sources.folder import FolderSource
from blurgen.worker import build

SERIAL = RunOptions(workers=1, backend="threading")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 6)


def options(folder, **fields):
    values = {"kernel": Chosen("deblurgan", {"length_px": 10.0, "side_px": 3}), "crop": 32, **fields}
    return MakeOptions(source=Chosen(str(folder)), **values)


def _to_folder(path):
    path.unlink()
    path.mkdir()


CHANGES = {
    "vanished": Path.unlink,
    "not-an-image": lambda path: path.write_bytes(b"<html>"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "not-a-file": _to_folder,
    "outside-root": lambda path: path.rename(path.parents[1] / "x.jpg") and path.symlink_to(path.parents[1] / "x.jpg"),
    "too-small": lambda path: cv2.imwrite(str(path), photo(0, 20, 20)),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_image_that_changes_after_the_plan_is_left_out_by_name(photos, tmp_path, reason):
    plan = make_plan(options(photos))
    CHANGES[reason](photos / "photo02.jpg")
    progress = make(plan, tmp_path / "a.h5", SERIAL)
    assert [(bad.key, bad.reason) for bad in progress.bad] == [("photo02.jpg", reason)]
    assert [sample.id for sample in open_shards(tmp_path / "a.h5")] == [0, 1, 3, 4, 5]
    assert verify(tmp_path / "a.h5") == []


def test_image_that_shrinks_after_the_plan_is_left_out_by_name(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        cv2.imwrite(str(photos / f"{number}.png"), photo(number, 400, 500))
    kernel = Chosen("linear", {"length_px": 90.0, "side_px": 3})
    plan = make_plan(options(photos, kernel=kernel, resize_short=40))
    cv2.imwrite(str(photos / "1.png"), photo(1, 40, 50))
    progress = make(plan, tmp_path / "a.h5", SERIAL)
    assert [bad.key for bad in progress.bad] == ["1.png"]
    assert verify(tmp_path / "a.h5") == []


def test_folder_and_archive_that_vanish_end_in_one_sentence(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.write(path, path.name)
    for place in (photos, tmp_path / "z.zip"):
        plan = make_plan(options(place))
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        with pytest.raises(ValueError, match=r"no image could be used: .*photo00\.jpg: "):
            make(plan, tmp_path / "a.h5", SERIAL)


def test_image_that_changes_between_two_shards_is_noticed(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 12)
    plan, out = make_plan(options(photos, per_image=4, count=48)), tmp_path / "a.h5"
    run = open_run(plan, out, SERIAL)
    build(run.job(0))
    cv2.imwrite(str(photos / "photo01.jpg"), photo(77))
    with pytest.raises(BadShard, match=r"00002\.h5: the image 'photo01\.jpg' is another one than in .*00000\.h5"):
        make(plan, out, SERIAL)
    with pytest.raises(BadShard, match="it changed while the set was made"):
        write_master(sorted(shard_folder(out).glob("*.h5")), out)
    for number in (0, 2):
        (shard_folder(out) / f"{number:05d}.h5").unlink()
    assert make(plan, out, SERIAL).done == 48
    assert verify(out) == []


def test_file_that_changes_while_it_is_read_is_left_out(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), photo(0))
    size, descriptor = path.stat().st_size, os.open(path, os.O_RDONLY)
    assert bytes(OnDemand(descriptor, size)) == read_whole(descriptor, size) == path.read_bytes()
    header = OnDemand(descriptor, size)
    os.truncate(path, size // 2)
    for read in (lambda: bytes(header), lambda: read_whole(descriptor, size), lambda: OnDemand(descriptor, size)[-9:]):
        with pytest.raises(BadImage) as caught:
            read()
        assert caught.value.reason == "changed"
    os.close(descriptor)


def test_bytes_read_on_demand_are_those_of_the_file(tmp_path):
    data = np.random.default_rng(0).bytes(200_000) + b"\xff\xd9 the end"
    (tmp_path / "a").write_bytes(data)
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    file = OnDemand(descriptor, len(data))
    for start, stop in ((0, 10), (65_530, 65_540), (100_000, 100_000), (199_990, None), (-5, None), (0, None), (9, 3)):
        assert file[start:stop] == data[start:stop]
    assert (len(file), file[0], file[70_000]) == (len(data), data[0], data[70_000])
    for what, start in (
        (b"the end", 0),
        (data[65_530:65_542], 3),
        (b"absent!", 0),
        (data[:4], 1),
        (b"d", len(data) - 1),
    ):
        assert file.find(what, start) == data.find(what, start)
    os.close(descriptor)


def test_folder_that_may_not_be_read_is_listed_and_refused(tmp_path):
    write_photos(tmp_path / "photos" / "open", 1)
    write_photos(tmp_path / "photos" / "closed", 1)
    (tmp_path / "photos" / "closed").chmod(0)
    code = """if True:
        from blurgen.sources import BadImage
        from blurgen.sources.folder import FolderSource
        source = FolderSource("photos")
        for entry in source.entries():
            try:
                print(entry.key, source.read(entry.key).sharp.shape)
            except BadImage as error:
                print(entry.key, error.reason)
    """
    done = child(cwd=tmp_path, code=code)
    assert done.stdout.splitlines() == ["closed unreadable", "open/photo00.jpg (96, 128, 3)"], done.stderr


def test_path_deeper_than_any_key_is_listed_once_and_refused(tmp_path):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
        Path("a.png").write_bytes(b"x")
    finally:
        os.chdir(here)
    source = FolderSource(str(tmp_path))
    (entry,) = source.entries()
    with pytest.raises(BadImage, match="at most 512 bytes"):
        source.read(entry.key)
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_globs_of_many_wildcards_take_one_look_at_each_folder(tmp_path, monkeypatch):
    for name in ("a/a/a/a/a/a/a/a/a/a/x.png", "b/y.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    looks, scandir = [], os.scandir
    monkeypatch.setattr("blurgen.sources.globs.os.scandir", lambda path: looks.append(path) or scandir(path))
    source = FolderSource(str(tmp_path), (("", "/".join(["**", "a", "**"] * 6 + ["*.png"])),))
    assert [entry.key for entry in source.entries()] == ["a/a/a/a/a/a/a/a/a/a/x.png"]
    assert len(looks) <= 3 * 12
