"""Golden shards: what was written as format 1 is read to the bit by every later version."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from blurgen import open_shards
from blurgen.inspect_shards import describe
from blurgen.plan import options_of
from blurgen.shards import META, SOURCE, Layout, pack, parse, verify, verify_each
from blurgen.shards.layout import FORMAT, MASTER, VERSION, row_checksums

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))


def read(path):
    """Return what a file holds, in the words of ``expected.json``."""
    shards = open_shards(path)
    layout, meta, sources = shards.layout, shards.meta, shards.sources
    arrays = {}
    for name, item in layout.arrays.items():
        one_by_one = [shards.read(name, index) for index in range(len(shards))]
        data = b"".join(array.tobytes() for array in one_by_one)
        assert all((array.shape, array.dtype) == item for array in one_by_one)
        arrays[name] = [[len(shards), *item.shape], item.dtype.str, sha256(data).hexdigest()]
    return {
        "layout": [layout.crop, layout.kernel_side, list(layout.lowres), layout.sides, list(layout.params)],
        "arrays": arrays,
        "meta": {name: meta[name].tolist() for name in META.names if name not in ("crc32", "row_crc32")},
        "sources": [
            [row[name].decode() if SOURCE[name].kind == "S" else row[name].tolist() for name in SOURCE.names[:-1]]
            for row in sources
        ],
        "attrs": {name: shards.attrs[name] for name in ("plan", "licence", "blurgen", "range", "bad")},
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_shard_reads_to_the_bit(name):
    expected = {key: value for key, value in EXPECTED[name].items() if key != "files"}
    more = {key: expected["attrs"].pop(key) for key in list(expected["attrs"]) if key.startswith("more")}
    found = read(GOLDEN / f"{name}.h5")
    if name == "sharded":  # the order in which samples use them, not that of the rows
        for facts in (expected, found):
            keys = [row[0] for row in facts["sources"]]
            facts["meta"]["source"] = [keys[number] for number in facts["meta"]["source"]]
            facts["sources"].sort()
    assert found == expected
    assert more.items() <= open_shards(GOLDEN / f"{name}.h5").attrs.items()


def test_golden_shards_are_sound():
    paths = [GOLDEN / f"{name}.h5" for name in EXPECTED]
    for path, found in zip(paths, verify_each(paths), strict=True):
        assert found == [], path


def test_golden_shards_are_the_files_that_were_made():
    named = {name: digest for facts in EXPECTED.values() for name, digest in facts["files"].items()}
    there = {str(path.relative_to(GOLDEN)): path for path in GOLDEN.rglob("*.h5")}
    assert {name: sha256(path.read_bytes()).hexdigest() for name, path in there.items()} == named


def test_golden_rows_carry_the_checksums_of_format_1():
    for name, facts in EXPECTED.items():
        shards = open_shards(GOLDEN / f"{name}.h5")
        assert np.array_equal(shards.meta["row_crc32"], row_checksums(shards.meta))
        assert np.array_equal(shards.sources["row_crc32"], row_checksums(shards.sources))
        kind = MASTER if name == "sharded" else FORMAT
        assert parse(GOLDEN / f"{name}.h5").kind == kind
        assert shards.attrs["version"] == VERSION == 1
        assert len(shards) == facts["attrs"]["range"][1] or name in ("sharded", "empty")


def test_golden_shards_pack_into_one(tmp_path):
    pack(GOLDEN / "sharded.h5", tmp_path / "packed.h5")
    packed, sharded = read(tmp_path / "packed.h5"), read(GOLDEN / "sharded.h5")
    assert packed == sharded
    assert verify(tmp_path / "packed.h5") == []


def test_golden_sharded_set_may_be_moved(tmp_path):
    for path in GOLDEN.glob("sharded.h5*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    assert read(tmp_path / "sharded.h5") == read(GOLDEN / "sharded.h5")
    assert len(open_shards(tmp_path / "sharded.h5.d")) == 4


def test_golden_plan_is_still_understood():
    document = EXPECTED["made"]["attrs"]["plan"]
    options = options_of(document)
    assert (options.source.name, options.crop, options.count, options.kernel.name) == ("leaves", 16, 2, "deblurgan")
    facts = describe(GOLDEN / "made.h5")
    assert (facts["samples"], facts["kernel"], facts["licence"], facts["left_out"]) == (2, "deblurgan", "CC0-1.0", [])


def test_format_1_has_not_changed():
    """The bytes of a row, and the order of the arrays, which the golden files depend on."""
    assert (META.itemsize, SOURCE.itemsize) == (212, 1468)
    assert META.names[:4] == ("id", "source", "crop", "y")
    assert list(Layout(8, 3, (2,), label=True, prior=5, transcript=9).arrays)[-4:] == [
        "blurred_x2",
        "label",
        "prior",
        "transcript",
    ]
    assert list(Layout(8, 3, (2, 4)).arrays) == [
        "sharp",
        "blurred",
        "kernel",
        "sharp_x2",
        "blurred_x2",
        "sharp_x4",
        "blurred_x4",
    ]
