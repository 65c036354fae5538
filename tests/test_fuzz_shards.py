"""Damaged and forged shards are refused or read as what they were: never a crash, a hang, or another pixel."""

import numpy as np
import pytest
from confined import Confined
from hdf5_sums import lookup3, resealed, sealed_blocks
from mutants import forged_mutant, mutant
from shard_data import LAYOUT, content

from blurgen.shards import Layout, verify_each, write_master

# Few samples, so that most changes meet structure; attributes as few as possible, as many as `make` writes, and so
# long that HDF5 keeps them in a heap.
BASES = {
    "raw": (Layout(4, 3), {}, None),
    "gzip": (Layout(4, 3), {}, "gzip"),
    "maps": (Layout(4, label=True, prior=2, transcript=9), {}, None),
    "many datasets": (LAYOUT, {f"k{number}": number for number in range(8)}, None),
    "long attributes": (Layout(4, 3), {"bad": [["key.jpg", "truncated", "cut"]] * 2500}, "gzip"),
}


def base(name):
    layout, attrs, codec = BASES[name]
    return bytes(content(3, layout, sources=2, attrs=attrs).bytes(codec))


def damaged(data, count, seed):
    """Yield mutants, every other one with the checksums put right that keep HDF5 from looking any further."""
    rng, blocks = np.random.default_rng(seed), sealed_blocks(data)
    for number in range(count):
        yield resealed(forged_mutant(data, rng, blocks), blocks) if number % 2 else mutant(data, rng)


def verdicts(tmp_path, names, count, seed):
    """Return for each mutant whether it is refused, after asserting that what is not is what it was."""
    cases = [(name, data) for name in names for data in damaged(base(name), count, seed)]

    def written():
        for number, (_, data) in enumerate(cases):
            path = tmp_path / f"{number % 2}.h5"
            path.write_bytes(data)
            yield path

    found = []
    with Confined("fuzz_shards:read_shards") as read:
        truth = {name: read(base(name)) for name in names}
        for (name, data), problems in zip(cases, verify_each(written(), timeout_s=20), strict=True):
            assert not any("took longer" in line or "needed more than" in line for line in problems), problems
            contents = read(data)
            assert problems or contents == truth[name], f"mutant {len(found)} passes"
            found.append(bool(problems))
        assert read.peak_mib < 500
    return found


def test_mutant_never_passes_as_something_else(tmp_path):
    assert sum(verdicts(tmp_path, BASES, 14, 2)) > 28


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_one_of_many_mutants_never_passes_as_something_else(tmp_path, name):
    refused = sum(verdicts(tmp_path, [name], 1000, 3))
    assert 500 < refused < 990


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutant_of_a_master_never_passes_as_something_else(tmp_path, count):
    write_master(content(6, Layout(4, 3), sources=2, attrs={}).divided(tmp_path / "m.d", 2), tmp_path / "m.h5")
    mutants = [tmp_path / "0.h5", tmp_path / "1.h5"]

    def written():
        for number, data in enumerate(damaged((tmp_path / "m.h5").read_bytes(), count, 4)):
            mutants[number % 2].write_bytes(data)
            yield mutants[number % 2]

    with Confined("fuzz_shards:read_path") as read:
        truth, refused = read(bytes(tmp_path / "m.h5")), 0
        for number, problems in enumerate(verify_each(written(), timeout_s=20)):
            assert not any("took longer" in line or "needed more than" in line for line in problems), problems
            contents = read(bytes(mutants[number % 2]))
            assert problems or contents == truth, f"mutant {number} passes"
            refused += bool(problems)
    assert count / 2 < refused < count


def test_forged_checksums_are_those_of_hdf5():
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    data = base("gzip")
    blocks = sealed_blocks(data)
    assert {data[start : start + 4] for start, _ in blocks} >= {b"\x89HDF", b"OHDR", b"OCHK", b"FAHD", b"FADB"}
    assert resealed(data, blocks) == data
