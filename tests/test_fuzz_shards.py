"""Damaged and forged shards are refused or read as what they were: never a crash, a hang, or another pixel."""

import numpy as np
import pytest
from confined import Confined
from hdf5_sums import lookup3, resealed, sealed_blocks
from mutants import forged_mutant, mutant
from shard_data import LAYOUT, content

from blurgen.shards import Layout, verify_each

# Few samples, so that most changes meet structure; attributes as few as possible, as many as `make` writes, and so
# long that HDF5 keeps them in a heap.
BASES = {
    "raw": (Layout(4, 3), {}, None),
    "gzip": (Layout(4, 3), {}, "gzip"),
    "many datasets": (LAYOUT, {f"k{number}": number for number in range(8)}, None),
    "long attributes": (Layout(4, 3), {"bad": [["key.jpg", "truncated", "cut"]] * 2500}, "gzip"),
}
# The checksums that HDF5 computes keep most changes from being looked at: half of them are forged.
SHARES = [pytest.param(25, 2), pytest.param(1000, 3, marks=pytest.mark.slow)]


def base(name):
    layout, attrs, codec = BASES[name]
    return bytes(content(3, layout, sources=2, attrs=attrs).bytes(codec))


def damaged(data, count, seed):
    """Yield mutants, every other one with its checksums put right."""
    rng, blocks = np.random.default_rng(seed), sealed_blocks(data)
    for number in range(count):
        yield resealed(forged_mutant(data, rng, blocks), blocks) if number % 2 else mutant(data, rng)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(("count", "seed"), SHARES)
def test_mutant_never_passes_as_something_else(tmp_path, name, count, seed):
    data, given = base(name), []

    def written():
        for number, one in enumerate(damaged(data, count, seed)):
            path = tmp_path / f"{number % 2}.h5"
            path.write_bytes(one)
            given.append(one)
            yield path

    with Confined("fuzz_shards:read_shards") as read:
        truth, verdicts = read(data), {"sound": 0, "refused": 0}
        for number, problems in enumerate(verify_each(written(), timeout_s=20)):
            verdicts["refused" if problems else "sound"] += 1
            assert not any("took longer" in line or "needed more than" in line for line in problems), (number, problems)
            found = read(given[number])
            assert problems or found == truth, f"mutant {number} passes"
        assert read.peak_mib < 500
    assert verdicts["refused"] > count / 2
    assert verdicts["sound"] >= count // 100


def test_forged_checksums_are_those_of_hdf5():
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    data = base("gzip")
    blocks = sealed_blocks(data)
    assert {data[start : start + 4] for start, _ in blocks} >= {b"\x89HDF", b"OHDR", b"OCHK", b"FAHD", b"FADB"}
    assert resealed(data, blocks) == data
