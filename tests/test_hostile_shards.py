"""Shards made to harm: each kind is refused by name, at once, and without a look at another file."""

import os
import struct
import zlib

import h5py
import numpy as np
import pytest
from confined import Confined
from h5py import h5d, h5p, h5s, h5t, h5z
from hdf5_sums import resealed, sealed_blocks
from shard_data import LAYOUT, content

from blurgen import open_shards
from blurgen.shards import BadShard, Layout, confining, verify_each
from blurgen.shards.checking import problems
from blurgen.shards.layout import META

CPU_S = 1.0


def instead(kind=h5t.STD_U8LE, shape=(12, 8, 8, 3), set_up=lambda plist: None, name="blurred"):
    """Return a change that puts a dataset made with HDF5's own calls in the place of another."""

    def change(file, folder):
        if name in file:
            del file[name]
        plist = h5p.create(h5p.DATASET_CREATE)
        if shape and len(shape) > 1 and all(shape):
            plist.set_chunk((1, *shape[1:]))
        set_up(plist)
        space = h5s.create(h5s.NULL) if shape is None else h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
        h5d.create(file.id, name.encode(), kind, space, plist)

    return change


def bits(size=1, offset=0, precision=8, kind=h5t.STD_U8LE):
    """Return an integer type that uses only some of its bits."""
    own = kind.copy()
    own.set_precision(precision)
    own.set_offset(offset)
    return own


def filtered(*filters):
    def set_up(plist):
        for code, values in filters:
            plist.set_filter(code, h5z.FLAG_OPTIONAL, values)

    return set_up


def external(plist):
    plist.set_layout(h5d.CONTIGUOUS)
    plist.set_external(b"/etc/passwd", 0, 12 * 192)


def endless_external(plist):
    plist.set_layout(h5d.CONTIGUOUS)
    plist.set_external(b"/dev/zero", 0, h5s.UNLIMITED)


def virtual(plist):
    plist.set_layout(h5d.VIRTUAL)
    whole = h5s.create_simple((12, 8, 8, 3))
    plist.set_virtual(whole, b".", b"/sharp", whole)


def tiny_chunks(plist):
    plist.set_chunk((1, 1, 1))


def contiguous(plist):
    plist.set_layout(h5d.CONTIGUOUS)


def early(plist):
    plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)


def compact(plist):
    plist.set_layout(h5d.COMPACT)


def relinked(make):
    """Return a change that puts a link in the place of /blurred."""

    def change(file, folder):
        del file["blurred"]
        file["blurred"] = make(file)

    return change


def attributed(value, name="note", **how):
    return lambda file, folder: file.attrs.create(name, value, **how)


def referring(file, folder):
    file.attrs["note"] = file["sharp"].ref


def own_attribute(file, folder):
    file["blurred"].attrs["note"] = "of variable length"


def named_type(file, folder):
    kind = h5t.STD_U8LE.copy()
    del file["blurred"]
    kind.commit(file.id, b"blurred")


def many_attributes(file, folder):
    for number in range(70):
        file.attrs.create(f"a{number}", np.bytes_(b"x"))


def other_rows(name, fields):
    """Return a change that gives a table other rows."""

    def change(file, folder):
        count = len(file[name])
        del file[name]
        file.create_dataset(name, shape=count, dtype=fields)

    return change


def flag():
    """Return the type that h5py gives to numpy's bool."""
    kind = h5t.enum_create(h5t.STD_I8LE)
    kind.enum_insert(b"FALSE", 0)
    kind.enum_insert(b"TRUE", 1)
    return kind


DEEP = [("id", "<u8"), ("rest", [("a", "<u4"), ("b", h5py.string_dtype())])]
PLACES = [META.fields[name][1] + 8 for name in META.names]
KINDS = [META[name] for name in META.names]
STRETCHED = np.dtype({"names": META.names, "formats": KINDS, "offsets": PLACES, "itemsize": META.itemsize + 8})
SHORT = (h5z.FILTER_DEFLATE, (4,))

# Kind -> (what is done to a sound file, what is said of it); more of them are in test_shards_trust.
HOSTILE = {
    "soft link to nothing": (relinked(lambda file: h5py.SoftLink("/absent")), "/blurred is a soft link"),
    "soft link to itself": (relinked(lambda file: h5py.SoftLink("/blurred")), "/blurred is a soft link"),
    "external link to itself": (relinked(lambda file: h5py.ExternalLink("a.h5", "/")), "/blurred is an external link"),
    "root within itself": (relinked(lambda file: file["/"]), "/blurred is not a dataset"),
    "named type": (named_type, "/blurred is not a dataset"),
    "external password file": (instead(set_up=external), "/blurred has external storage"),
    "endless external storage": (instead(shape=(12, 192), set_up=endless_external), "/blurred has external storage"),
    "virtual from itself": (instead(set_up=virtual), "/blurred is a virtual dataset"),
    "compact": (instead(set_up=compact), "/blurred is not stored in chunks"),
    "no space": (instead(shape=None), "/blurred is not stored in chunks"),
    "single value": (instead(shape=()), "/blurred is not stored in chunks"),
    "no width": (instead(shape=(12, 8, 0, 3), set_up=contiguous), "/blurred is not stored in chunks"),
    "rank 32": (instead(shape=(12, *[1] * 31)), "/blurred has items of shape|was not allocated"),
    "2^93 bytes": (instead(shape=(2**31, 2**31 - 1, 2**31 - 1), set_up=tiny_chunks), "has chunks of"),
    "2^62 rows": (instead(h5t.py_create(META), shape=(2**53,), name="meta"), "absurd or growing shape"),
    "enumeration": (instead(flag()), "/blurred has the type"),
    "bitfield": (instead(h5t.STD_B8LE), "/blurred has the type"),
    "opaque": (instead(h5t.create(h5t.OPAQUE, 1)), "/blurred has the type"),
    "seven bits": (instead(bits(precision=7)), "/blurred has the type"),
    "shifted bits": (instead(bits(precision=4, offset=4)), "/blurred has the type"),
    "signed": (instead(h5t.STD_I8LE), "/blurred has the type"),
    "half floats": (instead(h5t.IEEE_F16LE, (12, 3, 3), name="kernel"), "/kernel has the type"),
    "double floats": (instead(h5t.IEEE_F64LE, (12, 3, 3), name="kernel"), "/kernel has the type"),
    "wide ids": (instead(h5t.STD_U16LE, (12, 8, 8), name="label"), "/label has the type"),
    "ids in colour": (instead(set_up=early, name="label"), "/label has items of shape"),
    "wide probabilities": (instead(h5t.IEEE_F32LE, (12, 3, 2, 2), name="prior"), "/prior has the type"),
    "no class": (instead(h5t.IEEE_F16LE, (12, 0, 2, 2), set_up=contiguous, name="prior"), "/prior is not stored in ch"),
    "many classes": (instead(h5t.IEEE_F16LE, (12, 300, 2, 2), set_up=early, name="prior"), "prior must be 0 to 256"),
    "wide text": (instead(h5t.STD_U16LE, (12, 6), set_up=early, name="transcript"), "/transcript has the type"),
    "long text": (
        instead(h5t.STD_U8LE, (12, (1 << 20) + 1), set_up=early, name="transcript"),
        "transcript must be 0 to 1,048,576",
    ),
    "fine classes": (instead(h5t.IEEE_F16LE, (12, 3, 8, 8), set_up=early, name="prior"), "/prior has items of shape"),
    "array of bytes": (instead(h5t.array_create(h5t.STD_U8LE, (3,)), (12, 8, 8)), "/blurred has the type"),
    "text": (instead(h5t.C_S1), "/blurred has the type"),
    "n-bit": (instead(bits(precision=7), set_up=filtered((5, ()))), "/blurred has the type|none but gzip"),
    "unknown filter": (instead(set_up=filtered((32001, (1, 2, 3)))), r"the filters \[32001\], and none but gzip"),
    "gzip twice": (instead(set_up=filtered(SHORT, SHORT)), r"the filters \[1, 1\]"),
    "shuffle alone": (instead(set_up=filtered((2, (1,)))), "none but gzip"),
    "checksum after gzip": (instead(set_up=filtered(SHORT, (3, ()))), "none but gzip"),
    "rows with another field": (other_rows("meta", [*META.descr, ("more", "<u4")]), "/meta has the type"),
    "rows in another order": (other_rows("meta", META.descr[::-1]), "/meta has the type"),
    "rows with a gap": (other_rows("meta", STRETCHED), "/meta has the type"),
    "rows with hidden text": (other_rows("meta", DEEP), "/meta holds variable-length data"),
    "rows with references": (other_rows("meta", [("id", h5py.ref_dtype)]), "/meta holds references"),
    "sources as numbers": (other_rows("source", "<f8"), "/source has the type float64"),
    "number as attribute": (attributed(7), "attribute note is not a fixed-size string"),
    "list as attribute": (attributed(np.array([b"a", b"b"])), "attribute note is not one string"),
    "empty attribute": (attributed(h5py.Empty("S4")), "attribute note is not one string"),
    "reference as attribute": (referring, "attribute note is not a fixed-size string"),
    "rows as attribute": (attributed(np.zeros(1, META)), "attribute note is not a fixed-size string"),
    "attribute beyond ASCII": (attributed(np.bytes_(b"\xff\xfe")), "attribute note is not ASCII"),
    "many attributes": (many_attributes, "it has 77 attributes"),
    "attribute of a dataset": (own_attribute, "/blurred has attributes of its own"),
    "no JSON": (attributed(np.bytes_(b"{"), "plan"), "attributes do not agree with their checksum"),
}  # fmt: skip


@pytest.fixture
def in_place(monkeypatch):
    """Let unusual files be parsed in this process, as within `verify`: a new one for each costs too much here."""
    monkeypatch.setattr(confining, "_inside", True)


def spoiled(tmp_path, change, **how):
    path = content().write(tmp_path / "a.h5", **how)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        change(file, tmp_path)
    return path


def cpu_s():
    return sum(os.times()[:4])


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_refused_by_name_at_once(tmp_path, kind, in_place):
    change, message = HOSTILE[kind]
    path, started = spoiled(tmp_path, change), cpu_s()
    with pytest.raises(BadShard, match=message):
        open_shards(path)
    assert cpu_s() - started < CPU_S


def test_hostile_files_are_refused_by_verify(tmp_path):
    paths = []
    for number, (change, _) in enumerate(HOSTILE.values()):
        (tmp_path / str(number)).mkdir()
        paths.append(spoiled(tmp_path / str(number), change))
    for kind, found in zip(HOSTILE, verify_each(paths, timeout_s=20), strict=True):
        assert len(found) == 1, kind
        assert "is not a sound shard" in found[0], kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_refused_from_a_process_of_its_own(tmp_path, kind):
    change, message = HOSTILE[kind]
    path, started = spoiled(tmp_path, change), cpu_s()
    with pytest.raises(BadShard, match=message):
        open_shards(path)
    assert cpu_s() - started < CPU_S


def test_files_of_blurgen_itself_need_no_other_process(tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.shards.scanning.call_confined", None)
    attrs = {f"k{number}": "x" * 3000 for number in range(12)}
    for layout in (Layout(4), Layout(16, 3, lowres=(2,)), Layout(16, 3, lowres=(2, 4, 8, 16))):
        for codec in (None, "gzip"):
            for count in (0, 1, 5):
                path = content(count, layout, attrs=attrs).write(tmp_path / "a.h5", codec)
                assert len(open_shards(path)) == count


@pytest.mark.parametrize(("offset", "value"), [(10, 0), (24, 0xFFFF)], ids=["SIGFPE", "SIGSEGV"])
def test_tree_that_crashes_hdf5_is_refused_by_name(tmp_path, offset, value):
    """The size and the number of the records in a tree, which HDF5 2.0 divides by and reads until it dies."""
    attrs = {"bad": [["key.jpg", "truncated", "cut"]] * 2500}
    data = bytes(content(3, Layout(4), attrs=attrs).bytes())
    forged = bytearray(data)
    struct.pack_into("<H", forged, data.index(b"BTHD") + offset, value)
    path = tmp_path / "a.h5"
    path.write_bytes(resealed(forged, sealed_blocks(data)))
    with Confined("fuzz_shards:read_shards") as read:
        assert read(path.read_bytes()) == "refused"
    with pytest.raises(BadShard, match="is not a sound shard"):
        open_shards(path)


# What is done to the list of the chunks of /blurred: (place and size of each) -> the same, forged.
CHUNKS = {
    "two samples in one chunk": (lambda at: at[[0, 0, 2, 3]], "chunks that overlap"),
    "chunks that overlap": (lambda at: at - [[1, 0]] * (np.arange(4)[:, None] == 2), "chunks that overlap"),
    "beyond the end": (lambda at: at + np.array([1 << 20, 0]), "beyond the end"),
    "far beyond the end": (lambda at: at * 0 + np.array([1 << 62, 90]), "beyond the end|HDF5 cannot read it"),
    "no bytes": (lambda at: at * [1, 0], "short or over-long"),
    "4 GiB": (lambda at: at * [1, 0] + np.array([0, 2**32 - 1]), "short or over-long|HDF5 cannot read it"),
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_forged_chunks_are_refused(tmp_path, kind):
    forge, message = CHUNKS[kind]
    path = content(4, Layout(8), sources=1).write(tmp_path / "a.h5", "gzip")
    with h5py.File(path) as file:
        infos = [file["blurred"].id.get_chunk_info(number) for number in range(4)]
    data = path.read_bytes()
    entry = struct.pack("<Q", infos[0].byte_offset)
    first = data.index(entry, data.index(b"FADB"))
    width = data.index(struct.pack("<Q", infos[1].byte_offset), first) - first
    assert data[first + 8 : first + width - 4] == infos[0].size.to_bytes(width - 12, "little")
    table, forged = np.array([[info.byte_offset, info.size] for info in infos]), bytearray(data)
    for number, (offset, size) in enumerate(forge(table).tolist()):
        size = min(size, (1 << 8 * (width - 12)) - 1)
        row = struct.pack("<Q", offset) + size.to_bytes(width - 12, "little") + bytes(4)
        forged[first + number * width : first + (number + 1) * width] = row
    path.write_bytes(resealed(forged, sealed_blocks(data)))
    with pytest.raises(BadShard, match=message):
        open_shards(path)[0]
    assert any("/blurred has" in line or "HDF5 cannot read it" in line for line in problems(path))


@pytest.mark.parametrize(
    ("stored", "mask", "message"),
    [
        (zlib.compress(bytes(192))[:-6], 0, "does not decompress|cannot be decompressed"),
        (zlib.compress(bytes(191)), 0, "does not decompress to the 192 bytes"),
        (zlib.compress(bytes(193)), 0, "does not decompress to the 192 bytes"),
        (zlib.compress(bytes(192)) + b"more", 0, "does not decompress to the 192 bytes"),
        (bytes(192), 1, "does not have one chunk for each"),
        (b"no zlib", 0, "cannot be decompressed"),
    ],
    ids=["cut", "short", "over-long", "trailing", "not compressed", "other bytes"],
)
def test_wrong_bytes_in_a_compressed_chunk_are_refused(tmp_path, stored, mask, message):
    path = content(2, Layout(8), sources=1).write(tmp_path / "a.h5", "gzip")
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["blurred"].id.write_direct_chunk((1, 0, 0, 0), stored, filter_mask=mask)
    with pytest.raises(BadShard, match=message):
        open_shards(path)[1]
    assert list(problems(path))


OTHER_FILES = {
    "user block": {"userblock_size": 512},
    "pages": {"fs_strategy": "page"},
    "oldest form": {"libver": "earliest"},
    "ordered": {"track_order": True},
}


@pytest.mark.parametrize("kind", [*OTHER_FILES, "left open"])
def test_another_kind_of_hdf5_file_is_refused_or_read_as_what_it_is(tmp_path, kind, in_place):
    made, path = content(), tmp_path / "b.h5"
    if kind == "left open":
        data = bytes(made.bytes())
        path.write_bytes(resealed(data[:11] + b"\5" + data[12:], sealed_blocks(data)))
    else:
        with h5py.File(made.write(tmp_path / "a.h5")) as sound, h5py.File(path, "w", **OTHER_FILES[kind]) as file:
            for name, value in sound.attrs.items():
                file.attrs.create(name, value)
            for name in sound:
                sound.copy(name, file)
    found = list(problems(path))
    assert len(found) <= 1
    if found:
        with pytest.raises(BadShard, match="is not a sound shard"):
            open_shards(path)
        return
    shards = open_shards(path)
    for name, array in made.arrays.items():
        assert all(np.array_equal(shards.read(name, index), array[index]) for index in range(12))


def test_layout_of_the_hostile_files_is_sound(tmp_path):
    assert len(open_shards(spoiled(tmp_path, lambda file, folder: None))) == 12
    assert len(LAYOUT.arrays) > 6
