"""Pairs to measure on: those of shards or folders that a run did not train on."""

from hashlib import sha256

import cv2
import numpy as np
import pytest
import toy_system
from photos import photo, write_pairs, write_png
from shard_data import grouped

from blurgen.shards import Layout, open_shards
from trainers.held_out import folder_pairs, read_roles, shard_pairs

ROLE_OF = ["sharp", "sharp", "blurred", "validation", "test", "test"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train the toy for two steps."""
    folder = tmp_path_factory.mktemp("run")
    shards = toy_system.write_shards(folder / "shards.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        toy_system.train_here(data=shards, out=folder / "out", steps=2, workers=0)
    return folder / "out"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def roles_of(content, roles=ROLE_OF):
    digests = [row["sha256"].tobytes().hex() for row in content.sources]
    return {digest: frozenset({role}) for digest, role in zip(digests, roles, strict=True) if role}


def six(tmp_path, **values):
    content = grouped([*"abcdef"], Layout(12), 2, **values)
    return content.write(tmp_path / "six.h5"), content


def keys(held_out):
    return [pair.key for pair in held_out.pairs]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("test", ["4.png#0", "4.png#1", "5.png#0", "5.png#1"]),
        ("validation", ["3.png#0", "3.png#1"]),
        ("all", ["3.png#0", "3.png#1", "4.png#0", "4.png#1", "5.png#0", "5.png#1"]),
    ],
)
def test_own_shards_are_measured_on_what_the_run_kept(tmp_path, split, expected):
    path, content = six(tmp_path)
    held_out = shard_pairs(path, split, roles_of(content))
    assert keys(held_out) == expected
    assert held_out.notes == ()
    assert not np.array_equal(held_out.pairs[0].blurred, held_out.pairs[0].sharp)


def test_other_shards_are_measured_on_all_that_was_not_trained_on(tmp_path):
    path, content = six(tmp_path)
    held_out = shard_pairs(path, "test", roles_of(content, ["sharp", "blurred", "train", None, "validation", None]))
    assert keys(held_out) == ["3.png#0", "3.png#1", "4.png#0", "4.png#1", "5.png#0", "5.png#1"]
    assert held_out.notes == ("3 of 6 source images are left out, because the run trained on them",)
    assert len(shard_pairs(path, "test", None).pairs) == 12


def test_an_image_in_two_roles_counts_as_trained_on(tmp_path):
    path, content = six(tmp_path)
    roles = roles_of(content) | {content.sources["sha256"][4].tobytes().hex(): frozenset({"test", "sharp"})}
    assert keys(shard_pairs(path, "test", roles)) == ["5.png#0", "5.png#1"]


def test_shards_without_anything_to_measure_are_refused(tmp_path):
    path, content = six(tmp_path)
    with pytest.raises(ValueError, match=r"the run trained on every image of .*six.h5: name shards of other images"):
        shard_pairs(path, "test", roles_of(content, ["sharp"] * 6))
    with pytest.raises(ValueError, match=r"the run kept no validation images of .*: use --split test or --split all"):
        shard_pairs(path, "validation", {})
    sharp = grouped(["a"], Layout(12, sides="sharp")).write(tmp_path / "sharp.h5")
    with pytest.raises(ValueError, match=r"sharp.h5 holds no blurred images"):
        shard_pairs(sharp, "test", None)


def test_record_of_a_run_is_read_and_checked(tmp_path, run):
    roles = read_roles(run)
    shards = open_shards(run.parent / "shards.h5")
    assert set(roles) == {digest.tobytes().hex() for digest in shards.sources["sha256"]}
    assert set().union(*roles.values()) == {"sharp", "blurred", "validation", "test"}
    assert read_roles(tmp_path) is None
    (tmp_path / "split.tsv").write_text(f"role\tsha256\tkey\ntest\t{'0' * 64}\ta\nsharp\t{'0' * 64}\tb\n")
    assert read_roles(tmp_path) == {"0" * 64: {"test", "sharp"}}
    (tmp_path / "split.tsv").write_text("role\tsha256\tkey\ntest\t123\ta\n")
    with pytest.raises(ValueError, match=r"split.tsv is damaged: a line must be role, SHA-256 and key, got 'test"):
        read_roles(tmp_path)


@pytest.fixture
def folders(tmp_path):
    return write_pairs(tmp_path / "real")


def test_folders_are_matched_by_name(folders):
    held_out = folder_pairs(*folders)
    assert keys(held_out) == [f"deep/{number}.png" for number in range(3)]
    assert held_out.notes == ("2 images have no partner and are left out, such as 'alone.png'",)
    np.testing.assert_array_equal(held_out.pairs[1].sharp, photo(1, 36, 36))
    np.testing.assert_array_equal(held_out.pairs[1].blurred, cv2.GaussianBlur(photo(1, 36, 36), (0, 0), 2))
    assert [pair.key for pair in held_out.pairs.limited(2)] == ["deep/0.png", "deep/1.png"]


def test_several_blurred_images_may_share_a_sharp_one(tmp_path):
    for number in range(2):
        write_png(tmp_path / f"blurred/im1_ker{number}_blur.jpg", photo(number))
    write_png(tmp_path / "sharp/im1.png", photo(5))
    with pytest.raises(ValueError, match=r"\(they hold 'im1_ker0_blur.jpg' and 'im1.png'\): say with --match REGEX"):
        folder_pairs(tmp_path / "blurred", tmp_path / "sharp")
    pairs = folder_pairs(tmp_path / "blurred", tmp_path / "sharp", r"_ker\d_blur").pairs
    assert len(pairs) == 2
    np.testing.assert_array_equal(pairs[0].sharp, pairs[1].sharp)
    with pytest.raises(ValueError, match=r"--match must be a regular expression, got '\('"):
        folder_pairs(tmp_path / "blurred", tmp_path / "sharp", "(")


def test_bad_pairs_are_refused_by_name(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none is no folder: --pairs needs one of blurred and one of sharp"):
        folder_pairs(folders[0], tmp_path / "none")
    write_png(folders[0] / "deep/1.png", photo(1, 36, 37))
    with pytest.raises(ValueError, match=r"deep/1.png and deep/1.png must be of one size, got 37x36 and 36x36 px"):
        folder_pairs(*folders)
    (folders[0] / "deep/1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"blur/deep/1.png: "):
        folder_pairs(*folders)


def test_files_that_were_trained_on_are_left_out(folders):
    def digest(side, number):
        return sha256((folders[side] / f"deep/{number}.png").read_bytes()).digest()

    joint = sha256(digest(1, 2) + digest(0, 2)).hexdigest()
    roles = {digest(1, 0).hex(): frozenset({"sharp"}), joint: frozenset({"train"})}
    held_out = folder_pairs(*folders, roles=roles)
    assert keys(held_out) == ["deep/1.png"]
    assert held_out.notes[1] == "2 of 3 source images are left out, because the run trained on them"
    with pytest.raises(ValueError, match=r"the run trained on every pair of"):
        folder_pairs(*folders, roles=roles | {digest(0, 1).hex(): frozenset({"blurred"})})
    assert len(folder_pairs(*folders, roles={digest(1, 0).hex(): frozenset({"test"})}).pairs) == 3
