"""Shards: what is written is read, by this package and by plain h5py; sets read like files."""

import multiprocessing
import pickle
import threading

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blurgen import open_shards
from blurgen.shards import META, SOURCE, BadShard, Layout, file_bytes, manifest, pack, parse, source_row, write_master
from blurgen.shards.layout import row_checksums
from tests.shard_data import ATTRS, LAYOUT, MAPPED, content

CODECS = [None, "gzip"]


def assert_same(shards, made):
    assert len(shards) == len(made.meta)
    for index, sample in enumerate(shards):
        assert sample.id == made.meta["id"][index]
        assert sample.key == bytes(made.sources["key"][made.meta["source"][index]]).decode()
        assert set(sample.arrays) == set(made.arrays)
        for name, array in made.arrays.items():
            assert sample.arrays[name].dtype == array.dtype
            assert np.array_equal(sample.arrays[name], array[index])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT,
        MAPPED,
        Layout(4, prior=256),
        Layout(1, 1),
        Layout(16, sides="sharp"),
        Layout(12, lowres=(3,), sides="blurred"),
        Layout(5, 257),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_samples_return_as_written(tmp_path, layout, codec, count):
    made = content(count, layout)
    shards = open_shards(made.write(tmp_path / "a.h5", codec))
    assert shards.layout == layout
    assert_same(shards, made)


@settings(max_examples=25, deadline=None)
@given(
    crop=st.integers(1, 24),
    kernel_side=st.integers(0, 4).map(lambda half: 2 * half + 1),
    count=st.integers(0, 6),
    codec=st.sampled_from(CODECS),
    text=st.text(max_size=300),
)
def test_any_shard_returns_as_written(tmp_path_factory, crop, kernel_side, count, codec, text):
    lowres = tuple(factor for factor in (2, 3, 4) if crop % factor == 0)
    made = content(count, Layout(crop, kernel_side, lowres), attrs={"note": text})
    shards = open_shards(made.write(tmp_path_factory.mktemp("any") / "a.h5", codec))
    assert_same(shards, made)
    assert shards.attrs["note"] == text


def test_sequence_counts_from_the_end_slices_and_ends(tmp_path):
    made = content()
    shards = open_shards(made.write(tmp_path / "a.h5"))
    assert shards[-1].id == made.meta["id"][-1]
    assert [sample.id for sample in shards[2:8:3]] == [7, 13]
    assert np.array_equal(shards[3].sharp, made.arrays["sharp"][3])
    assert np.array_equal(shards.read("blurred_x4", -2), made.arrays["blurred_x4"][-2])
    for index in (12, -13):
        with pytest.raises(IndexError, match="holds 12 samples"):
            shards[index]
    with pytest.raises(KeyError, match="no 'label'; it has sharp, blurred, kernel"):
        shards.read("label", 0)


@pytest.mark.parametrize("codec", CODECS)
def test_plain_h5py_reads_the_same(tmp_path, codec):
    made = content()
    with h5py.File(made.write(tmp_path / "a.h5", codec)) as file:
        for name, array in made.arrays.items():
            assert np.array_equal(file[name][:], array)
            assert file[name].chunks == (1, *array.shape[1:])
        for name in ("id", "side", "exposure", "params"):
            assert np.array_equal(file["meta"][:][name], made.meta[name])
        assert np.array_equal(file["source"][:]["key"], made.sources["key"])
        assert file.attrs["format"] == b"blurgen shard"


def test_attributes_and_tables_return(tmp_path):
    made = content()
    shards = open_shards(made.write(tmp_path / "a.h5"))
    assert shards.attrs["version"] == 1
    assert {name: shards.attrs[name] for name in ATTRS} == ATTRS
    assert np.array_equal(shards.meta["params"], made.meta["params"])
    assert np.array_equal(shards.sources["sha256"], made.sources["sha256"])
    assert np.array_equal(shards.meta["row_crc32"], row_checksums(shards.meta))


def test_long_attributes_fit(tmp_path):
    bad = [[f"{number}.jpg", "truncated"] for number in range(20_000)]
    shards = open_shards(content(attrs={"bad": bad}).write(tmp_path / "a.h5"))
    assert shards.attrs["bad"] == bad
    assert len(shards) == 12


@pytest.mark.parametrize("codec", CODECS)
def test_equal_samples_give_equal_bytes(codec):
    assert content().bytes(codec) == content().bytes(codec)


@pytest.mark.parametrize("samples", [0, 1, 12, 3000])
def test_size_is_known_before_the_work(samples):
    made = content(samples, Layout(4, 3, params=("a",)))
    assert len(made.bytes()) == file_bytes(made.layout, samples, 4, ATTRS)


@pytest.mark.parametrize("way", ["folder", "master", "packed"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("per_shard", [1, 5, 12])
def test_sets_read_like_one_file(tmp_path, way, codec, per_shard):
    made = content()
    paths = made.divided(tmp_path / "set.h5.d", per_shard, codec)
    path = {"folder": tmp_path / "set.h5.d"}.get(way, tmp_path / "set.h5")
    if way == "master":
        assert write_master(paths, path, ATTRS) == 12
    if way == "packed":
        assert pack(paths, path, ATTRS) == 12
    shards = open_shards(path)
    assert_same(shards, made)
    assert np.array_equal(shards.sources["key"][shards.meta["source"]], made.sources["key"][made.meta["source"]])
    assert len(np.unique(shards.sources["key"])) == len(shards.sources)
    assert {name: shards.attrs[name] for name in ATTRS} == ATTRS


def test_set_of_many_files_keeps_few_open(tmp_path):
    made = content(80, Layout(1))
    made.divided(tmp_path / "set", 1)
    shards = open_shards(tmp_path / "set")
    assert_same(shards, made)
    assert len(shards._open) <= 64


def test_files_of_a_set_are_parsed_once_however_often_they_are_opened(tmp_path, monkeypatch):
    made = content(70, Layout(1))
    write_master(made.divided(tmp_path / "set", 1), tmp_path / "m.h5")
    shards, parsed = open_shards(tmp_path / "m.h5"), []
    monkeypatch.setattr(manifest, "parse", lambda path: parsed.append(path) or parse(path))
    for _ in range(2):
        assert [shards.read("sharp", index).tolist() for index in range(70)] == made.arrays["sharp"].tolist()
    assert len(parsed) == len(set(parsed))


def test_shards_of_a_folder_are_read_by_number(tmp_path):
    made = content(3)
    for number, name in enumerate(["99998", "99999", "100000"]):
        made.part(number, number + 1).write(tmp_path / f"{name}.h5")
    assert open_shards(tmp_path).meta["id"].tolist() == [3, 5, 7]


def test_folder_speaks_with_one_voice(tmp_path):
    for number, name in enumerate("ab"):
        content(1, attrs={"plan": 1, "range": [number, number + 1]}).write(tmp_path / f"{name}.h5")
    assert open_shards(tmp_path).attrs["plan"] == 1
    assert "range" not in open_shards(tmp_path).attrs


def check_all(shards, made, failures):
    try:
        assert_same(shards, made)
    except BaseException as error:
        failures.put(repr(error))
        raise


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("codec", CODECS)
def test_open_shards_cross_to_other_processes(tmp_path, method, codec):
    made = content()
    made.divided(tmp_path / "set", 5, codec)
    shards = open_shards(tmp_path / "set")
    assert shards[0].id == 3
    context = multiprocessing.get_context(method)
    failures = context.Queue()
    child = context.Process(target=check_all, args=(shards, made, failures))
    child.start()
    child.join(60)
    assert child.exitcode == 0, failures.get()
    assert_same(shards, made)


def test_threads_share_one_set(tmp_path):
    made = content(60, Layout(64))
    shards = open_shards(made.write(tmp_path / "a.h5"))
    wrong = []

    def read(seed):
        for index in np.random.default_rng(seed).integers(0, 60, 200):
            if not np.array_equal(shards[index].sharp, made.arrays["sharp"][index]):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_pickled_set_is_nothing_but_its_path(tmp_path):
    shards = open_shards(content().write(tmp_path / "a.h5"))
    assert len(pickle.dumps(shards)) < 1000
    assert_same(pickle.loads(pickle.dumps(shards)), content())


def test_file_that_h5py_has_open_is_read(tmp_path):
    path = content().write(tmp_path / "a.h5")
    with h5py.File(path) as file:
        assert np.array_equal(open_shards(path)[4].sharp, file["sharp"][4])


def test_file_cut_short_while_open_is_an_error(tmp_path):
    path = content().write(tmp_path / "a.h5")
    shards = open_shards(path)
    with open(path, "r+b") as file:
        file.truncate(5000)
    with pytest.raises(BadShard, match="cut short"):
        shards[11]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 0}, "crop must lie between 1 and 16384 px, got 0"),
        ({"crop": 20000}, "got 20000"),
        ({"kernel_side": 4}, "kernel_side must be 0 or an odd number up to 4095, got 4"),
        ({"lowres": (3,)}, "must divide the crop of 8 px"),
        ({"lowres": (4, 2)}, "must ascend"),
        ({"sides": "left"}, "sides must be one of both, sharp, blurred"),
        ({"params": tuple("abcdefghijklmnopq")}, "at most 16 parameters, got 17"),
        ({"prior": 257}, "prior must be 0 to 256 classes, of crops that 4 divides, got 257 of 8 px"),
        ({"crop": 6, "prior": 2}, "got 2 of 6 px"),
        ({"transcript": 1 << 21}, "transcript must be 0 to 1,048,576 bytes, got 2097152"),
        ({"crop": 5040, "lowres": (2, 3, 4, 5, 6)}, "at most 12 arrays, got 13"),
    ],
)
def test_layouts_outside_of_their_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Layout(**{"crop": 8, "kernel_side": 3, **changes})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"key": "k" * 513}, "key of a source must have at most 512 bytes"),
        ({"key": "ö" * 257}, "at most 512"),
        ({"key": "a\0b"}, "no NUL"),
        ({"key": "a", "split": "s" * 17}, "split of a source must have at most 16"),
        ({"key": "a", "author": "x" * 257}, "author of a source"),
    ],
)
def test_texts_that_do_not_fit_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        source_row(sha256=bytes(32), width=1, height=1, **texts)


def test_group_is_the_key_where_nothing_else_is_known():
    assert source_row("a/b.jpg", bytes(32), 1, 1)["group"] == b"a/b.jpg"
    assert source_row("k" * 512, bytes(32), 1, 1)["key"] == b"k" * 512


def broken(made, **changes):
    arrays, meta, sources = dict(made.arrays), made.meta.copy(), made.sources
    if "array" in changes:
        arrays["sharp"] = changes["array"]
    if "left_out" in changes:
        del arrays[changes["left_out"]]
    for name in {"id", "source"} & set(changes):
        meta[name] = changes[name]
    return arrays, changes.get("meta", meta), sources


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"array": np.zeros((2, 8, 8, 3), np.uint8)}, "sharp must have shape"),
        ({"array": np.zeros((12, 8, 8, 3), np.int16)}, "dtype uint8, got .* int16"),
        ({"left_out": "kernel"}, "asks for the arrays"),
        ({"id": 5}, "ids of a shard must ascend"),
        ({"source": 4}, "source must be a row of the 4 sources, got 4"),
        ({"meta": np.zeros(12, SOURCE)}, "dtypes META and SOURCE"),
    ],
)
def test_arguments_that_disagree_are_refused(changes, message):
    made = content()
    arrays, meta, sources = broken(made, **changes)
    with pytest.raises(ValueError, match=message):
        type(made)(made.layout, arrays, meta, sources, {}).bytes()


def test_unknown_codec_is_refused():
    with pytest.raises(ValueError, match="codec must be None or 'gzip', got 'lzf'"):
        content().bytes("lzf")


def test_rows_have_no_padding():
    for dtype in (META, SOURCE):
        assert dtype.itemsize == sum(field.itemsize for field, _ in dtype.fields.values())


def test_nothing_to_open_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_shards(tmp_path / "absent.h5")
    with pytest.raises(BadShard, match="no finished shard: run `blurgen make`"):
        open_shards(tmp_path)
    with pytest.raises(BadShard, match="no shard among the paths"):
        pack([], tmp_path / "a.h5")


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_array_is_read_into_the_place_given(tmp_path, codec):
    made = content()
    made.write(tmp_path / "a.h5", codec)
    shards = open_shards(tmp_path / "a.h5")
    batch = np.zeros((2, *shards.read("blurred", 0).shape), np.uint8)
    assert shards.read("blurred", 3, batch[1]).base is batch
    assert np.array_equal(batch[1], shards.read("blurred", 3))
    assert not batch[0].any()
    for wrong in (batch, batch[0].astype(np.float32), batch[0].swapaxes(0, 1)):
        with pytest.raises(ValueError, match="out must be a contiguous uint8 array"):
            shards.read("blurred", 3, wrong)
