"""Shards: nothing that is read back is taken on trust."""

import os
import zlib

import h5py
import numpy as np
import pytest

from blurgen import open_shards
from blurgen.shards import META, BadShard, Layout, pack, verify, verify_each, write_master
from blurgen.shards.checking import problems
from blurgen.shards.layout import MANIFEST, seal_rows
from blurgen.shards.structure import parse
from tests.shard_data import LAYOUT, MAPPED, content


def offset_of(path, name, index=0, field=None):
    """Return where an item, or a field of a row, begins in a file."""
    region = parse(path).regions[name]
    return region.offset + index * region.item_bytes + (region.dtype.fields[field][1] if field else 0)


def flip(path, offset, bit=0):
    with open(path, "r+b") as file:
        file.seek(offset)
        value = file.read(1)[0] ^ (1 << bit)
        file.seek(offset)
        file.write(bytes([value]))


def resealed(path, name, index, field, value):
    """Change a field of a row as a forger would, its checksum included."""
    region = parse(path).regions[name]
    with open(path, "r+b") as file:
        file.seek(region.offset + index * region.item_bytes)
        row = np.frombuffer(file.read(region.item_bytes), region.dtype).copy()
        row[field] = value
        file.seek(region.offset + index * region.item_bytes)
        file.write(seal_rows(row).tobytes())


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_sound_shards_have_no_problems(tmp_path, codec):
    paths = content().divided(tmp_path / "set", 5, codec)
    pack(paths, tmp_path / "packed.h5")
    write_master(paths, tmp_path / "master.h5")
    names = [tmp_path / "set", tmp_path / "packed.h5", tmp_path / "master.h5", paths[1]]
    assert list(verify_each(names)) == [[], [], [], []]


def test_real_pairs_without_kernels_have_no_problems(tmp_path):
    assert verify(content(layout=Layout(8)).write(tmp_path / "a.h5")) == []


@pytest.mark.parametrize(
    ("layout", "name"),
    [*((LAYOUT, name) for name in LAYOUT.arrays), (MAPPED, "label"), (MAPPED, "prior"), (MAPPED, "transcript")],
)
def test_flipped_pixel_is_named(tmp_path, layout, name):
    path = content(layout=layout).write(tmp_path / "a.h5")
    flip(path, offset_of(path, name, 4) + 5)
    assert f"/{name} of sample 11 does not agree with its checksum" in verify(path)[0]


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (lambda prior: prior * np.float16(1.01), "has classes that sum to 1.0"),
        (lambda prior: np.where(prior == prior.max(), np.float16("inf"), prior), "holds a value that is not finite"),
        (lambda prior: prior + np.float16([-1, 1, 0])[:, None, None], "holds a negative value"),
    ],
)
def test_wrong_prior_is_named_though_its_checksum_is_right(tmp_path, change, claim):
    made = content(layout=MAPPED)
    made.arrays["prior"][6] = change(made.arrays["prior"][6])
    (problem,) = verify(made.write(tmp_path / "a.h5"))
    assert f"/prior of sample 15 {claim}" in problem


@pytest.mark.parametrize("field", META.names)
def test_flipped_field_of_meta_is_named(tmp_path, field):
    path = content().write(tmp_path / "a.h5")
    flip(path, offset_of(path, "meta", 4, field))
    assert any("does not agree with the checksum of its row" in problem for problem in problems(path))


@pytest.mark.parametrize("field", ["key", "group", "split", "sha256", "width", "licence", "author", "row_crc32"])
def test_flipped_field_of_source_is_named(tmp_path, field):
    path = content().write(tmp_path / "a.h5")
    flip(path, offset_of(path, "source", 2, field))
    assert any("source 2 does not agree with its checksum" in problem for problem in problems(path))


@pytest.mark.parametrize(
    ("table", "field", "value", "claim"),
    [
        ("meta", "id", 3, "sample 3 has an id that does not ascend"),
        ("meta", "id", 2**64 - 1, "has an id that does not ascend"),
        ("meta", "source", 4, "sample 5 names a source that does not exist"),
        ("meta", "side", np.nan, "sample 5 has a number that is not finite"),
        ("meta", "params", np.inf, "not finite"),
        ("meta", "scale", 9.0, "scale that is not crop / side"),
        ("meta", "exposure", (0.5, 0.4), "exposure outside of 0 <= t0 <= t1 <= 1"),
        ("meta", "exposure", (-0.5, 0.4), "exposure outside"),
        ("meta", "crc32", 1, "sample 5 has checksums of arrays that do not exist"),
        ("source", "key", b"", "source 1 has no key"),
        ("source", "key", b"folder/0%20\xc3\xb6.jpg", "source 1 has the key of another one, 'folder/0%20ö.jpg'"),
        ("source", "group", b"", "source 1 has no group"),
        ("source", "width", 0, "source 1 has no pixels"),
    ],
)
def test_forged_row_is_named(tmp_path, table, field, value, claim):
    path = content().write(tmp_path / "a.h5")
    resealed(path, table, 1, field, value)
    assert any(claim in problem for problem in problems(path))


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (lambda kernel: kernel * 1.01, "sums to 1.0"),
        (lambda kernel: np.where(kernel == kernel.max(), np.nan, kernel), "holds a value that is not finite"),
        (lambda kernel: kernel + np.float32([[-1, 1, 0], [0, 0, 0], [0, 0, 0]]), "holds a negative value"),
    ],
)
def test_wrong_kernel_is_named_though_its_checksum_is_right(tmp_path, change, claim):
    made = content()
    made.arrays["kernel"][6] = change(made.arrays["kernel"][6])
    (problem,) = problems(made.write(tmp_path / "a.h5"))
    assert f"/kernel of sample 15 {claim}" in problem


def test_flipped_attribute_is_refused(tmp_path):
    path = content().write(tmp_path / "a.h5")
    flip(path, path.read_bytes().index(b'"seed":7') + 7)
    assert len(list(problems(path))) == 1
    with pytest.raises(BadShard):
        open_shards(path)


@pytest.mark.parametrize("length", [0, 1, 8, 47, 100, 2000, 10_000, -1])
def test_truncated_file_is_refused(tmp_path, length):
    path = content().write(tmp_path / "a.h5")
    os.truncate(path, length if length >= 0 else path.stat().st_size - 1)
    assert len(list(problems(path))) == 1
    with pytest.raises(BadShard, match="not a sound shard"):
        open_shards(path)


def replaced(name, **settings):
    """Return a change that puts another dataset in the place of /`name`."""

    def change(file, folder):
        how = dict(settings)
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        shape = how.pop("shape", shape)
        chosen = {"shape": shape, "dtype": dtype, "chunks": (1, *shape[1:]), **how}
        file.create_dataset(name, **{key: value for key, value in chosen.items() if value is not None})

    return change


def soft_link(file, folder):
    del file["blurred"]
    file["blurred"] = h5py.SoftLink("/sharp")


def external_link(file, folder):
    del file["blurred"]
    file["blurred"] = h5py.ExternalLink("/etc/passwd", "/")


def hard_link(file, folder):
    del file["blurred"]
    file["blurred"] = file["sharp"]


def virtual(file, folder):
    layout = h5py.VirtualLayout(file["blurred"].shape, "u1")
    layout[:] = h5py.VirtualSource("absent.h5", "sharp", file["blurred"].shape)
    del file["blurred"]
    file.create_virtual_dataset("blurred", layout)


def external_storage(file, folder):
    (folder / "secret").write_bytes(bytes(100_000))
    replaced("blurred", chunks=None, external=[(str(folder / "secret"), 0, 100_000)])(file, folder)


def subgroup(file, folder):
    del file["blurred"]
    file.create_group("blurred")


def foreign_attribute(file, folder):
    file.attrs["note"] = "a variable-length string"


def many_entries(file, folder):
    for number in range(100):
        file.create_group(f"g{number}")


HOSTILE = {
    "soft link": (soft_link, "/blurred is a soft link"),
    "external link": (external_link, "/blurred is an external link"),
    "hard link": (hard_link, "overlaps"),
    "virtual": (virtual, "/blurred is a virtual dataset"),
    "external storage": (external_storage, "/blurred has external storage"),
    "group": (subgroup, "/blurred is not a dataset"),
    "absurd side": (replaced("blurred", shape=(12, 2**20, 2**20, 3), chunks=(1, 64, 64, 3)), "/blurred has chunks of"),
    "absurd count": (replaced("blurred", shape=(2**50, 8, 8, 3)), "absurd or growing shape"),
    "absurd tiny": (replaced("kernel", shape=(12, 2**16, 2**13)), "more than a file of"),
    "absurd gzip": (replaced("kernel", shape=(12, 2**14, 2**14 + 1), compression="gzip"), "more than a file of"),
    "growing": (replaced("blurred", maxshape=(None, 8, 8, 3)), "absurd or growing shape"),
    "more chunks": (replaced("blurred", chunks=(1, 4, 4, 3)), r"chunks of shape \(1, 4, 4, 3\)"),
    "longer chunks": (replaced("blurred", chunks=(2, 8, 8, 3)), r"chunks of shape \(2, 8, 8, 3\)"),
    "no chunks": (replaced("blurred", chunks=None), "/blurred is not stored in chunks"),
    "shuffle": (replaced("blurred", shuffle=True, compression="gzip"), "none but gzip"),
    "fletcher": (replaced("blurred", fletcher32=True), "none but gzip"),
    "lzf": (replaced("blurred", compression="lzf"), "none but gzip"),
    "scaleoffset": (replaced("blurred", scaleoffset=0), "none but gzip"),
    "compressed rows": (replaced("meta", compression="gzip", chunks=(12,)), "/meta is not stored in one piece"),
    "vlen": (replaced("blurred", dtype=h5py.vlen_dtype("u1")), "/blurred holds variable-length data"),
    "vlen text": (replaced("source", dtype=h5py.string_dtype()), "/source holds variable-length data"),
    "reference": (replaced("blurred", dtype=h5py.ref_dtype), "/blurred holds references"),
    "region": (replaced("blurred", dtype=h5py.regionref_dtype), "/blurred holds references"),
    "dtype": (replaced("blurred", dtype="i1"), "/blurred has the type int8 instead of uint8"),
    "byte order": (replaced("kernel", dtype=">f4"), "/kernel has the type >f4"),
    "rank": (replaced("blurred", shape=(12, 8, 8), compression="gzip"), "/blurred has items of shape"),
    "scalar": (replaced("meta", shape=(), chunks=None), "absurd or growing shape"),
    "count": (replaced("blurred", shape=(11, 8, 8, 3)), "different lengths|not allocated"),
    "late allocation": (replaced("blurred"), "/blurred was not allocated when it was created"),
    "missing": (lambda file, folder: file.pop("kernel"), "its attribute arrays names .*kernel.* and it holds"),
    "no image": (lambda file, folder: [file.pop("sharp"), file.pop("blurred")], "neither /sharp nor /blurred"),
    "stranger": (lambda file, folder: file.create_dataset("x", data=np.zeros(3, "u1")), "/x is not part of"),
    "many entries": (many_entries, "more than 64 entries"),
    "attribute": (foreign_attribute, "attribute note is not a fixed-size string"),
    "version": (lambda file, folder: file.attrs.__setitem__("version", np.bytes_("2")), "this blurgen reads 1"),
    "format": (lambda file, folder: file.attrs.__setitem__("format", np.bytes_("x")), "format is 'x'"),
    "no format": (lambda file, folder: file.attrs.__delitem__("format"), "format is None"),
    "own checksum": (lambda file, folder: file.attrs.__setitem__("card", np.bytes_("{}")), "attributes do not agree"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_by_name(tmp_path, case):
    change, message = HOSTILE[case]
    path = content().write(tmp_path / "a.h5")
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        change(file, tmp_path)
    with pytest.raises(BadShard, match=message):
        open_shards(path)
    assert len(list(problems(path))) == 1


@pytest.mark.parametrize("kind", ["fifo", "folder of nothing", "device", "text", "image"])
def test_what_is_no_file_of_samples_is_refused_at_once(tmp_path, kind):
    path = "/dev/zero" if kind == "device" else tmp_path / "a.h5"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder of nothing":
        path.mkdir()
    elif kind != "device":
        path.write_bytes(b"\x89PNG\r\n" if kind == "image" else b"hello")
    with pytest.raises(BadShard):
        open_shards(path)
    assert len(verify(path, timeout_s=10)) == 1


def test_chunks_that_do_not_follow_each_other_are_refused(tmp_path):
    path = content(300, Layout(4)).write(tmp_path / "a.h5")
    with h5py.File(path, "r+", libver="earliest") as file:
        shape = file["blurred"].shape
        del file["blurred"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, *shape[1:]))
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        # The nodes of the old kind of index lie between the chunks.
        h5py.h5d.create(file.id, b"blurred", h5py.h5t.STD_U8LE, h5py.h5s.create_simple(shape), plist)
    with pytest.raises(BadShard, match="of /blurred does not follow those before it"):
        open_shards(path)


def test_compressed_dataset_with_missing_chunks_is_refused(tmp_path):
    path = content().write(tmp_path / "a.h5", "gzip")
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        replaced("blurred", compression="gzip")(file, tmp_path)
        file["blurred"].id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(192)))
    with pytest.raises(BadShard, match="/blurred does not have one chunk for each of its 12 samples"):
        open_shards(path)[0]
    assert any("/blurred does not have one chunk for each" in problem for problem in problems(path))


def test_compressed_chunk_that_grows_too_long_is_refused(tmp_path):
    path = content(2, Layout(8), sources=1).write(tmp_path / "a.h5", "gzip")
    bomb = zlib.compress(bytes(10_000_000), 9)[:100]
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["sharp"].id.write_direct_chunk((1, 0, 0, 0), bomb)
    with pytest.raises(BadShard, match="does not decompress to the 192 bytes"):
        open_shards(path)[1]
    assert any("/sharp of sample 5 cannot be read" in problem for problem in problems(path))


def test_chunks_out_of_order_are_found_though_readers_may_differ(tmp_path):
    made = content(9, Layout(4))
    path = made.write(tmp_path / "a.h5", "gzip")
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["sharp"].id.write_direct_chunk((3, 0, 0, 0), zlib.compress(made.arrays["sharp"][4]))
    assert any("/sharp of sample 9 does not agree" in problem for problem in problems(path))


def master_of(tmp_path):
    made = content()
    paths = made.divided(tmp_path / "m.h5.d", 5)
    write_master(paths, tmp_path / "m.h5", {})
    return made, paths, tmp_path / "m.h5"


def test_shard_that_was_swapped_is_named(tmp_path):
    made, paths, master = master_of(tmp_path)
    made.arrays["sharp"][7] = 0
    made.part(5, 10).write(paths[1])
    (problem,) = problems(master)
    assert "00001.h5: its rows and attributes do not agree with the manifest" in problem


def test_shard_that_is_missing_is_named(tmp_path):
    made, paths, master = master_of(tmp_path)
    paths[1].unlink()
    (problem,) = problems(master)
    assert "00001.h5" in problem
    with pytest.raises(FileNotFoundError):
        open_shards(master)[6]
    assert np.array_equal(open_shards(master)[11].sharp, made.arrays["sharp"][11])


def test_shard_of_another_size_is_refused(tmp_path):
    made, paths, master = master_of(tmp_path)
    made.part(5, 9).write(paths[1])
    with pytest.raises(BadShard, match="not the shard of 5 samples"):
        open_shards(master)[6]


@pytest.mark.parametrize("name", [b"/etc/passwd", b"../a.h5", b"m.h5.d/../../a.h5", b""])
def test_manifest_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    *_, master = master_of(tmp_path)
    resealed(master, "manifest", 1, "name", name)
    with pytest.raises(BadShard, match="outside of its folder"):
        open_shards(master)


@pytest.mark.parametrize("field", MANIFEST.names)
def test_flipped_field_of_the_manifest_is_found(tmp_path, field):
    *_, master = master_of(tmp_path)
    flip(master, offset_of(master, "manifest", 1, field))
    (problem,) = problems(master)
    assert "row 1 of /manifest does not agree with its checksum" in problem


def test_doubled_and_foreign_shards_are_found(tmp_path):
    made = content()
    paths = made.divided(tmp_path / "set", 6)
    made.part(0, 6).write(tmp_path / "set" / "00002.h5")
    assert any("ids that do not ascend after 25" in problem for problem in problems(tmp_path / "set"))
    paths[0].unlink()
    content(layout=Layout(4)).write(tmp_path / "set" / "00002.h5")
    assert any("holds other arrays" in problem for problem in problems(tmp_path / "set"))


@pytest.mark.parametrize(
    ("text", "claim"), [(b"a\0b", "holds a NUL within its text"), (b"\xc3(", "is no UTF-8: 'utf-8' codec can't decode")]
)
def test_wrong_transcript_is_named_though_its_checksum_is_right(tmp_path, text, claim):
    made = content(layout=MAPPED)
    made.arrays["transcript"][6] = np.frombuffer(text.ljust(6, b"\0"), np.uint8)
    (problem,) = verify(made.write(tmp_path / "a.h5"))
    assert f"/transcript of sample 15 {claim}" in problem
