"""The data of a run: its sides, its roles, and the pairs to measure with."""

from pathlib import Path

import numpy as np
import pytest
from feeds import LAYOUT, batches, names, opened, place, seen, twenty_groups
from shard_data import grouped

from blurgen.shards import Layout
from trainers.data import DataOptions, PairSet, open_data


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return twenty_groups(tmp_path_factory.mktemp("data"))


def test_roles_name_every_image_once(path):
    data = opened(path)
    rows = list(data.roles())
    assert len({key for *_, key in rows}) == len({digest for _, digest, _ in rows}) == len(rows) == 60
    shards = data.test.shards
    expected = {shards.sources["key"][shards.meta["source"][sample]].decode() for sample in data.test.samples}
    assert {key for role, _, key in rows if role == "test"} == expected
    assert data.counts == {"test": 12, "validation": 12, "blurred": 48, "sharp": 48}


def test_pairs_are_whole_images_with_keys_of_their_own(path):
    pairs = opened(path).validation
    assert len({pair.key for pair in pairs}) == len(pairs) == 12
    for pair, sample in zip(pairs, pairs.samples, strict=True):
        assert place(pair.sharp) == place(pair.blurred, blurred=True) == (sample, 0, 0, False)
        assert pair.sharp.shape == pair.blurred.shape == (16, 16, 3)
        assert pair.key == f"{sample // 2}.png#{sample % 2}"
    with pytest.raises(IndexError):
        pairs[12]


def test_pairs_of_single_crops_have_the_key_of_their_source(tmp_path):
    data = opened(grouped(names(5), LAYOUT).write(tmp_path / "a.h5"))
    assert data.test[0].key == f"{data.test.samples[0]}.png"
    assert data.test[-1].key == data.test[0].key


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(12, 4, [0, 3, 6, 9]), (12, 5, [0, 2, 4, 7, 9]), (3, 1, [0]), (3, 3, [0, 1, 2]), (3, 9, [0, 1, 2])],
)
def test_limited_pairs_are_spread_evenly(path, count, limit, expected):
    pairs = PairSet(opened(path).test.shards, np.arange(count))
    assert pairs.limited(limit).samples.tolist() == expected
    assert pairs.limited(None) is pairs


def test_two_files_give_one_side_each(tmp_path):
    sharp = grouped([*names(6), "t"], Layout(24, sides="sharp"), prefix="s/", splits=[""] * 6 + ["test"])
    blurred = grouped(names(10), LAYOUT, prefix="b/")
    options = DataOptions(sharp=sharp.write(tmp_path / "a.h5"), blurred=blurred.write(tmp_path / "b.h5"))
    data = open_data(options, "unpaired", 0)
    rows = list(data.roles())
    assert {key for role, _, key in rows if role == "sharp"} == {f"s/{number}.png" for number in range(6)}
    assert {key[0] for role, _, key in rows if role != "sharp"} == {"b"}
    assert data.counts == {"sharp": 6, "test": 1, "validation": 1, "blurred": 8}
    assert [pair.sharp.shape for pair in (*data.validation, *data.test)] == [(16, 16, 3)] * 2
    some = batches(data, 4)
    assert {cut[0] for cut in seen(some, "sharp")} == set(range(6))
    assert max(cut[1] for cut in seen(batches(data, 40), "sharp")) == 16
    assert {cut[0] for cut in seen(some, "blurred")} == set(data.blurred.samples.tolist())


def test_blurred_images_alone_are_all_trained_on(tmp_path):
    sharp = grouped(names(2), LAYOUT, prefix="s/").write(tmp_path / "a.h5")
    blurred = grouped([*names(2), "t"], Layout(16, sides="blurred"), prefix="b/", splits=["", "", "test"])
    data = open_data(DataOptions(sharp=sharp, blurred=blurred.write(tmp_path / "b.h5")), "unpaired", 0)
    assert data.counts == {"sharp": 2, "blurred": 2}
    assert len(data.validation) == len(data.test) == 0
    assert list(data.test.limited(5)) == []
    assert len(batches(data, 2)) == 2


def test_missing_shards_say_how_to_make_them(tmp_path):
    message = r"a.h5 does not exist: make it with `blurgen make --src text --out .*a.h5`, or name .* with --data"
    with pytest.raises(FileNotFoundError, match=message):
        opened(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match=r"b.h5 does not exist: .* with --sharp"):
        open_data(DataOptions(sharp=tmp_path / "b.h5", blurred=tmp_path / "c.h5"), "unpaired", 0)


def test_one_side_without_the_other_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--sharp and --blurred must be given together"):
        DataOptions(sharp=tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"stand in place of --data c\.h5: leave one or the others out"):
        DataOptions(Path("c.h5"), tmp_path / "a.h5", tmp_path / "b.h5")


@pytest.mark.parametrize(
    ("layout", "arrays", "message"),
    [
        (Layout(16, sides="sharp"), ("sharp", "blurred"), "holds no blurred images, only sharp: give shards of both"),
        (Layout(16, sides="blurred"), ("sharp", "blurred"), "holds no sharp images, only blurred: give"),
        (Layout(16, 3), ("sharp", "blurred_x2"), "no blurred_x2 images, only sharp, blurred: make .* --lowres 2`"),
    ],
)
def test_images_that_are_not_there_are_refused(tmp_path, layout, arrays, message):
    path = grouped(names(5), layout).write(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=message):
        opened(path, arrays=arrays)


def test_two_files_that_cannot_serve_are_refused(path, tmp_path):
    with pytest.raises(ValueError, match="must not share images"):
        open_data(DataOptions(sharp=path, blurred=path), "unpaired", 0)
    other = grouped(names(5), LAYOUT, prefix="s/").write(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="trains on pairs, which two files cannot give: use --data"):
        open_data(DataOptions(sharp=other, blurred=path), "paired", 0)
    with pytest.raises(ValueError, match="pairing must be one of unpaired, paired, got 'both'"):
        opened(path, "both")
