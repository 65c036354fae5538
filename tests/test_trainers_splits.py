"""Roles: what each source image is used for, and that no group serves two ends."""

from hashlib import blake2b

import numpy as np
import pytest

from blurgen.shards import BadShard, Layout, open_shards
from tests.shard_data import grouped
from trainers.splits import BLURRED_SIDE, PAIRED, UNPAIRED, all_but_test, deal, refuse_shared, samples_of

LAYOUT = Layout(2)


def opened(folder, groups, name="a.h5", **settings):
    return open_shards(grouped(groups, LAYOUT, **settings).write(folder / name))


def keys_by_role(shards, roles):
    dealt = deal(shards, roles)
    return {role: set(shards.sources["key"][rows].tolist()) for role, rows in dealt.items()}


@pytest.mark.parametrize(
    ("groups", "roles", "counts"),
    [
        (4, UNPAIRED, {"test": 1, "validation": 1, "blurred": 1, "sharp": 1}),
        (5, UNPAIRED, {"test": 1, "validation": 1, "blurred": 1, "sharp": 2}),
        (6, UNPAIRED, {"test": 1, "validation": 1, "blurred": 2, "sharp": 2}),
        (20, UNPAIRED, {"test": 2, "validation": 2, "blurred": 8, "sharp": 8}),
        (3, PAIRED, {"test": 1, "validation": 1, "train": 1}),
        (20, PAIRED, {"test": 2, "validation": 2, "train": 16}),
        (3, BLURRED_SIDE, {"test": 1, "validation": 1, "blurred": 1}),
    ],
)
def test_every_role_gets_whole_groups(tmp_path, groups, roles, counts):
    names = [f"scene {number % groups}" for number in range(3 * groups)]
    shards = opened(tmp_path, names)
    dealt = deal(shards, roles)
    held = {role: {shards.sources["group"][row] for row in rows} for role, rows in dealt.items()}
    assert {role: len(found) for role, found in held.items()} == counts
    assert len(set().union(*held.values())) == groups
    assert sorted(np.concatenate(list(dealt.values()))) == list(range(3 * groups))


def test_groups_are_dealt_by_the_hash_of_their_name(tmp_path):
    names = [f"scene {number}" for number in range(20)]
    shards = opened(tmp_path, names)
    ranked = sorted(names, key=lambda name: blake2b(name.encode(), digest_size=16).digest())
    expected = {"test": ranked[:2], "validation": ranked[2:4], "blurred": ranked[4:12], "sharp": ranked[12:]}
    dealt = deal(shards, UNPAIRED)
    held = {role: {shards.sources["group"][row].decode() for row in rows} for role, rows in dealt.items()}
    assert held == {role: set(some) for role, some in expected.items()}


def test_roles_do_not_depend_on_the_order_of_the_samples(tmp_path):
    made = grouped([f"scene {number // 2}" for number in range(24)], LAYOUT, crops=2)
    forward = keys_by_role(open_shards(made.write(tmp_path / "a.h5")), UNPAIRED)
    order = np.random.default_rng(0).permutation(24)
    made.sources[:] = made.sources[order]
    assert keys_by_role(open_shards(made.write(tmp_path / "b.h5")), UNPAIRED) == forward


def closure(groups, contents):
    """Return for each source the set of sources it must stay with: joined again and again until nothing changes."""
    together = [{row} for row in range(len(groups))]
    for _ in groups:
        for one in range(len(groups)):
            for other in range(len(groups)):
                if groups[one] == groups[other] or contents[one] == contents[other]:
                    together[one] |= together[other]
    return together


@pytest.mark.parametrize("seed", range(5))
def test_renamed_duplicates_keep_their_groups_together(tmp_path, seed):
    rng = np.random.default_rng(seed)
    groups = [f"scene {number}" for number in rng.integers(0, 14, 30)]
    contents = [f"image {number}" for number in rng.integers(0, 60, 30)]
    shards = opened(tmp_path, groups, contents=contents)
    role_of = {row: role for role, rows in deal(shards, UNPAIRED).items() for row in rows.tolist()}
    assert len(set(role_of.values())) == 4
    for row, others in enumerate(closure(groups, contents)):
        assert {role_of[other] for other in others} == {role_of[row]}


def test_chain_of_duplicates_is_one_group(tmp_path):
    # a shares an image with b, b another with c.
    groups, contents = ["a", "b", "b", "c", "d", "e", "f"], ["1", "1", "2", "2", "3", "4", "5"]
    dealt = deal(opened(tmp_path, groups, contents=contents), UNPAIRED)
    assert [0, 1, 2, 3] in [rows.tolist() for rows in dealt.values()]


def test_duplicates_count_as_one_group(tmp_path):
    with pytest.raises(ValueError, match="holds 3 groups of images, and 4 are needed"):
        deal(opened(tmp_path, ["a", "b", "c", "d"], contents=["1", "1", "2", "3"]), UNPAIRED)


@pytest.mark.parametrize("split", ["test", "testing", "test2017"])
def test_own_test_split_is_the_test_set_with_its_whole_groups(tmp_path, split):
    groups = ["a", "a", "b", "c", "d", "e"]
    shards = opened(tmp_path, groups, splits=[split, "train", "train", "", "val", split])
    dealt = deal(shards, UNPAIRED)
    assert dealt["test"].tolist() == [0, 1, 5]
    assert [len(dealt[role]) for role in ("validation", "blurred", "sharp")] == [1, 1, 1]


def test_renamed_duplicate_of_a_test_image_is_not_trained_on(tmp_path):
    groups, contents = ["a", "b", "b", "c", "d", "e"], ["1", "1", "2", "3", "4", "5"]
    shards = opened(tmp_path, groups, contents=contents, splits=["test", *["train"] * 5])
    assert deal(shards, UNPAIRED)["test"].tolist() == [0, 1, 2]
    assert all_but_test(shards).tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("groups", "splits", "roles", "message"),
    [
        (3, (), UNPAIRED, "holds 3 groups of images, and 4 are needed, .* blurred, sharp, test, validation"),
        (1, (), UNPAIRED, "holds 1 group of images, and 4 are needed"),
        (3, ("test", "", ""), UNPAIRED, "holds 2 groups of images beside the test split of the data, and 3 are needed"),
        (2, (), PAIRED, "holds 2 groups of images, and 3 are needed, one each for test, train, validation"),
        (2, ("", "test"), PAIRED, "holds 1 group of images beside the test split of the data, and 2 are needed"),
        (2, (), BLURRED_SIDE, "and 3 are needed, .*: make shards from more images, or set a finer group"),
    ],
)
def test_too_few_groups_are_refused(tmp_path, groups, splits, roles, message):
    shards = opened(tmp_path, [str(number) for number in range(groups)], splits=splits)
    with pytest.raises(ValueError, match=message):
        deal(shards, roles)


def test_sources_without_a_sample_do_not_count(tmp_path):
    made = grouped(["a", "b", "c", "d"], LAYOUT, crops=2)
    made.meta["source"][made.meta["source"] == 3] = 0
    with pytest.raises(ValueError, match="holds 3 groups"):
        deal(open_shards(made.write(tmp_path / "a.h5")), UNPAIRED)


def test_sample_of_no_source_is_refused(tmp_path):
    shards = opened(tmp_path, ["a", "b", "c", "d"])
    shards.meta["source"][2] = 4
    with pytest.raises(BadShard, match="a sample names source 4, and there are 4"):
        deal(shards, UNPAIRED)


def test_samples_follow_their_sources(tmp_path):
    made = grouped(["a", "b", "c"], LAYOUT, crops=4)
    made.meta["source"] = [2, 0, 1, 1, 0, 2, 2, 1, 0, 0, 1, 2]
    shards = open_shards(made.write(tmp_path / "a.h5"))
    assert samples_of(shards, np.array([0, 2])).tolist() == [0, 1, 4, 5, 6, 8, 9, 11]
    assert samples_of(shards, np.array([], int)).tolist() == []


def test_nothing_but_a_test_split_is_refused(tmp_path):
    shards = opened(tmp_path, ["a", "b"], splits=["test", "test"])
    with pytest.raises(ValueError, match=r"holds no image to train on, .* `blurgen make --split train`"):
        all_but_test(shards)


def test_two_files_with_an_image_in_common_are_refused(tmp_path):
    sharp = opened(tmp_path, ["a", "b"], contents=["1", "2"])
    blurred = opened(tmp_path, ["c", "d", "e"], "b.h5", contents=["3", "2", "4"], prefix="other/")
    with pytest.raises(ValueError, match=r"1 are in both, such as '1.png' of .*a.h5 and 'other/1.png' of .*b.h5"):
        refuse_shared(sharp, blurred)
    refuse_shared(sharp, opened(tmp_path, ["a", "b"], "c.h5", contents=["3", "4"]))
