"""Archives made to harm, damaged, or changed while they are used: refused by name, within bounds of memory and time."""

import bz2
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from confined import Confined
from mutants import mutant
from pictures import encode, scene

from blurgen.sources import BadImage
from blurgen.sources.archive import ArchiveSource

PNG = encode(scene(8, 8), "PNG")
BOMB_BYTES, MOST_MIB = 80_000_000, 120
MEMBERS = {"a.png": PNG, "b/c.jpg": encode(scene(8, 8), "JPEG"), "\u00e9.png": PNG, "x" * 120 + "/l.png": PNG}


@pytest.fixture(scope="module")
def read():
    """Return `fuzz_archives.read_archive` in a child that lives as long as it survives."""
    with Confined("fuzz_archives:read_archive", timeout_s=5) as confined:
        yield confined


def outcomes(path):
    """Return member -> None where it reads, else the reason."""
    source, found = ArchiveSource(str(path)), {}
    for entry in source.entries():
        try:
            source.read(entry.key)
            found[entry.key.partition("!")[2]] = None
        except BadImage as error:
            found[entry.key.partition("!")[2]] = error.reason
    return found


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def tarred(path, *members, end=True, **how):
    """Write a tar file of (name, data, changes of its TarInfo)."""
    with tarfile.open(path, "w", **how) as file:
        for name, data, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in changes.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(data))
        last = file.offset
    if not end:
        os.truncate(path, last)
    return path


def patched(path, old, new, count=-1):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2], ids=["deflate", "bzip2"])
def test_member_that_unpacks_to_more_than_it_says_takes_little_memory(method, read):
    bomb, crc = bytes(BOMB_BYTES), zlib.crc32(bytes(10))
    packed = zlib.compress(bomb, 9, -15) if method == zipfile.ZIP_DEFLATED else bz2.compress(bomb)
    head = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0, crc, len(packed), 10, 5, 0)
    local = b"PK\3\4" + head + b"a.png"
    central = b"PK\1\2" + struct.pack("<H", 20) + head + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"a.png"
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(packed), 0)
    assert read(b"z.zip\n" + local + packed + central + end) in (["not-an-image"], ["unsupported"])
    assert read.peak_mib < MOST_MIB


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../a.png", "unsafe-name"),
        ("/a.png", "unsafe-name"),
        ("a/../../b.png", "unsafe-name"),
        ("-rf.png", None),
        ("new\nline.png", None),
        ("C:\\a.png", None),
        ("a..\\..\\b.png", None),
        ("a//b.png", None),
        ("%2e%2e!x.png", None),
        ("n" * 600 + ".png", "key-too-long"),
        (" .png", None),
    ],
)
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_hard_name_is_read_or_refused_by_name(tmp_path, name, reason, suffix):
    path = tmp_path / f"z{suffix}"
    zipped(path, {name: PNG}) if suffix == ".zip" else tarred(path, (name, PNG, {}))
    assert list(outcomes(path).values()) == [reason]
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name]


def test_name_that_is_not_utf_8_comes_back(tmp_path):
    assert outcomes(tarred(tmp_path / "z.tar", (os.fsdecode(b"caf\xe9.png"), PNG, {}), format=tarfile.GNU_FORMAT)) == {
        "caf%E9.png": None
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "not-a-file"),
        ({"type": tarfile.LNKTYPE, "linkname": "b.png"}, "not-a-file"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, "not-a-file"),
        ({"type": tarfile.BLKTYPE}, "not-a-file"),
        ({"type": tarfile.FIFOTYPE}, "not-a-file"),
        ({"pax_headers": {"path": "../../evil.png"}}, "unsafe-name"),
        ({"pax_headers": {"path": "/etc/evil.png"}}, "unsafe-name"),
        ({"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}}, "not-a-file"),
    ],
    ids=str,
)
def test_member_of_a_tar_that_is_no_file_is_refused(tmp_path, changes, reason):
    data = PNG if "pax_headers" in changes else b""
    found = outcomes(tarred(tmp_path / "z.tar", ("a.png", data, changes), ("b.png", PNG, {})))
    assert found.pop("b.png") is None
    assert list(found.values()) == [reason]


def _pax_chain(path, links=3000):
    """Write headers that announce each other, which `tarfile` follows by recursion."""
    info = tarfile.TarInfo("h")
    info.type = tarfile.XHDTYPE
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) * links + bytes(1024))
    return path


def _sized(path, size, at=0):
    """Write a tar file that has a size in the binary form, which may be negative, in its header at a place."""
    tarred(path, ("a.png", PNG, {}), ("b.png", PNG, {}), format=tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes())
    header = data[at : at + 512]
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[at : at + 512] = header
    path.write_bytes(data)
    return path


DAMAGED = {
    "a negative size": lambda path: _sized(path, -1024),
    "a size that leads to itself": lambda path: _sized(path, -512),
    "a size that leads back for ever": lambda path: _sized(path, -512, at=1024),
    "an endless size": lambda path: _sized(path, 1 << 62),
    "a chain of headers": _pax_chain,
    "a negative size in words": lambda path: tarred(path, ("a.png", PNG, {"pax_headers": {"size": "-512"}})),
    "a size of words": lambda path: tarred(path, ("a.png", PNG, {"pax_headers": {"size": "9" * 5000}})),
    "a damaged header": lambda path: patched(
        tarred(path, ("a.png", PNG, {}), ("bb.png", PNG, {})), b"bb.png\0", b"bb.jpg\0"
    ),
    "no end": lambda path: tarred(path, ("a.png", PNG, {}), end=False),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_tar_is_refused_at_once(tmp_path, kind, read):
    assert read(b"z.tar\n" + DAMAGED[kind](tmp_path / "z.tar").read_bytes()) == "refused"
    with pytest.raises(ValueError, match=r"an archive must be a whole .* is damaged"):
        ArchiveSource(str(tmp_path / "z.tar")).entries()


def _zip64(path):
    path = zipped(path, {"a.png": PNG})
    at = path.read_bytes().index(b"PK\1\2")
    data = bytearray(path.read_bytes())
    data[at + 20 : at + 28] = b"\xff" * 8
    path.write_bytes(data)
    return path


def _again_and_again(path):
    """Write a zip of 200 entries that are one and the same member."""
    path = zipped(path, {"a.png": PNG})
    data = path.read_bytes()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = b"".join(data[start:end].replace(b"a.png", b"%05d" % number) for number in range(200))
    entries = entries.replace(b"00000", b"a.png")
    tail = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 200, 200, len(entries), start, 0)
    path.write_bytes(data[:start] + entries + tail)
    return path


ZIPS = {
    "sizes that are elsewhere": (_zip64, "too-large"),
    "one member many times": (_again_and_again, None),
    "another name within": (lambda path: patched(zipped(path, {"a.png": PNG}), b"a.png", b"b.png", 1), "corrupt"),
    "an unknown method": (
        lambda path: patched(zipped(path, {"a.png": PNG}, zipfile.ZIP_STORED), b"\x14\0\0\0\0\0", b"\x14\0\0\0\x63\0"),
        "unsupported",
    ),
    "a wrong checksum": (
        lambda path: patched(zipped(path, {"a.png": PNG}), zlib.crc32(PNG).to_bytes(4, "little"), b"\1\2\3\4"),
        "corrupt",
    ),
    "a place beyond the end": (
        lambda path: patched(zipped(path, {"a.png": PNG}), bytes(4) + b"a.png", b"\0\xff\xff\x7fa.png"),
        "corrupt",
    ),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_odd_zip_is_read_or_refused_by_name(tmp_path, kind):
    make, expected = ZIPS[kind]
    path = make(tmp_path / "z.zip")
    assert set(outcomes(path).values()) == {expected}


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file_is_no_archive(tmp_path, kind):
    path = tmp_path / "z.zip"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="an archive must be a file"):
        ArchiveSource(str(path)).entries()


@pytest.mark.parametrize("name", ["z.zip", "z.tar"])
def test_archive_that_changes_or_vanishes_is_noticed(tmp_path, name):
    def write(members):
        if name == "z.zip":
            return zipped(path, members)
        return tarred(path, *((member, data, {}) for member, data in members.items()))

    path = tmp_path / name
    source = ArchiveSource(str(write({"a.png": PNG})))
    assert source.size(f"{name}!a.png") == (8, 8)
    write({"b.png": PNG, "a.png": encode(scene(8, 24), "PNG")})
    assert source.size(f"{name}!a.png") == (24, 8)
    assert len(source.entries()) == 2
    path.write_bytes(b"no archive")
    for reason in ("corrupt", "vanished"):
        with pytest.raises(BadImage) as caught:
            source.read(f"{name}!a.png")
        assert caught.value.reason == reason
        path.unlink(missing_ok=True)


def test_full_disk_under_an_unpacked_tar_says_so(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "z.tgz", "w:gz") as file:
        file.addfile(tarfile.TarInfo("a.png"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blurgen.sources.archive._unpack", full)
    with pytest.raises(OSError, match=r"has no room for what .*z\.tgz unpacks to; TMPDIR names another folder"):
        ArchiveSource(str(tmp_path / "z.tgz")).entries()


def archive_bytes(name, form):
    """Return an archive of `MEMBERS` and a link, in one of the forms of its kind."""
    file = io.BytesIO()
    if name == "z.zip":
        with zipfile.ZipFile(file, "w", form) as archive:
            for member, data in MEMBERS.items():
                archive.writestr(member, data)
            link = zipfile.ZipInfo("link.png")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "a.png")
        return file.getvalue()
    with tarfile.open(fileobj=file, mode=f"w:{name[6:]}", format=form) as archive:
        for member, data in MEMBERS.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


FORMS = {
    "z.zip": (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    "z.tar": (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT),
    "z.tar.gz": (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT),
    "z.tar.xz": (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("count", "seed"), [pytest.param(30, 0), pytest.param(1000, 1, marks=pytest.mark.slow)])
def test_mutant_of_an_archive_is_read_or_refused(name, count, seed, read):
    bases = tuple(archive_bytes(name, form) for form in FORMS[name])
    rng = np.random.default_rng(seed)
    whole = [read(name.encode() + b"\n" + base) for base in bases]
    assert all(len(set(one) - {"not-a-file"}) == 2 for one in whole)
    changed = 0
    for number in range(count):
        data = mutant(bases[number % len(bases)], rng, bases)
        changed += read(name.encode() + b"\n" + data) != whole[number % len(bases)]
    assert read.peak_mib < MOST_MIB
    assert changed > count / 2
