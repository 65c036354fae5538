"""Sources list and read images from folders, archives and pairs; what they cannot read has a named reason."""

import gzip
import io
import multiprocessing
import os
import pickle
import stat
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from trees import plant

from blurgen.sources import BadImage, Entry, sorted_once
from blurgen.sources.archive import ArchiveSource
from blurgen.sources.folder import FolderSource
from blurgen.sources.globs import matches
from blurgen.sources.keys import decode_key, encode_key

READABLE = ("mapillary", "bsds500", "gopro", "street_misc", "classic", "text_docs", "real_blur_triplets")
HARD_NAMES = [
    "new\nline.png",
    "tab\there.png",
    os.fsdecode(b"caf\xe9_latin1.png"),
    "caf\u00e9.png",
    "trailing space .png",
    "-rf.png",
    "same.png",
    "SAME.png",
    "back\\slash.png",
    "colon:name.png",
    "100%25!.png",
    "\u6f22\u5b57/\U0001f600.png",
]


def png(level=7, size=(6, 8)):
    return cv2.imencode(".png", np.full((*size, 3), level, np.uint8))[1].tobytes()


def keys_of(source):
    return [entry.key for entry in source.entries()]


def reasons_of(source):
    """Return the reason for each key that is not read."""
    reasons = {}
    for key in keys_of(source):
        try:
            picture = source.read(key)
            assert (picture.sharp if picture.sharp is not None else picture.blurred).dtype == np.uint8
        except BadImage as error:
            reasons[key] = error.reason
    return reasons


def test_entries_are_sorted_and_the_first_of_equal_keys_stays():
    found = [
        Entry("b", "1"),
        Entry("c", "2"),
        Entry("a", "3"),
        Entry("b", "4", "train"),
        Entry("c", "5"),
        Entry("b", "6"),
    ]
    assert sorted_once(found) == [Entry("a", "3"), Entry("b", "1"), Entry("c", "2")]
    assert sorted_once([]) == []


def test_images_of_two_globs_are_listed_once_with_the_split_of_the_first(tmp_path):
    plant(tmp_path, ["x/2.png", "x/1.png", "y/3.png"])
    source = FolderSource(str(tmp_path), (("val", "x/1.png"), ("train", "**/*")))
    assert [(entry.key, entry.split) for entry in source.entries()] == [
        ("x/1.png", "val"),
        ("x/2.png", "train"),
        ("y/3.png", "train"),
    ]


@pytest.mark.parametrize("name", READABLE)
def test_every_image_of_the_test_data_reads(data_root, name):
    source = FolderSource(str(data_root / name))
    assert len(keys_of(source)) >= 3
    assert reasons_of(source) == {}


def test_size_is_that_of_the_pixels_for_every_image_of_the_test_data(data_root):
    source = FolderSource(str(data_root), (("", "text_docs/**/*"), ("", "awkward/exif*/*"), ("", "mapillary/**/*.jpg")))
    for key in keys_of(source):
        assert source.size(key) == source.read(key).sharp.shape[1::-1], key


def test_keys_are_sorted_ascii_and_lead_back_to_hard_names(tmp_path):
    for number, name in enumerate(HARD_NAMES):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(number))
    source = FolderSource(str(tmp_path))
    keys = keys_of(source)
    assert keys == sorted(keys)
    assert all(key.isascii() and key.isprintable() and "!" not in key for key in keys)
    assert {key: source.read(key).sharp[0, 0, 0] for key in keys} == {
        encode_key(name): number for number, name in enumerate(HARD_NAMES)
    }
    assert [decode_key(encode_key(name)) for name in HARD_NAMES] == HARD_NAMES


def test_path_beyond_512_bytes_is_listed_under_a_cut_key_and_refused(tmp_path):
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    for letter in "xy":
        (deep / (letter * 150 + ".png")).write_bytes(png())
    source = FolderSource(str(tmp_path))
    assert len(set(keys_of(source))) == 2
    assert all(len(key) == 512 for key in keys_of(source))
    assert set(reasons_of(source).values()) == {"key-too-long"}


def test_what_is_no_file_within_the_root_is_named(tmp_path):
    root = tmp_path / "root"
    plant(root, ["a.png", "sub/b.png", "folder.png/inner.png"])
    plant(tmp_path, ["secret.png", "elsewhere/c.png"])
    os.mkfifo(root / "pipe.png")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "in.png").symlink_to("a.png")
    (root / "gone.png").symlink_to("nothing.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "near").symlink_to("sub")
    source = FolderSource(str(root))
    assert reasons_of(source) == {
        "far": "outside-root",
        "folder.png": "not-a-file",
        "gone.png": "vanished",
        "loop.png": "unreadable",
        "out.png": "outside-root",
        "pipe.png": "not-a-file",
    }
    assert set(keys_of(source)) - set(reasons_of(source)) == {"a.png", "sub/b.png", "folder.png/inner.png", "in.png"}


def test_device_is_not_read(tmp_path):
    try:
        os.mknod(tmp_path / "zero.png", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("may not make devices here")
    assert reasons_of(FolderSource(str(tmp_path))) in ({"zero.png": "not-a-file"}, {"zero.png": "unreadable"})


def test_key_that_leads_out_is_refused(tmp_path):
    plant(tmp_path, ["root/a.png", "b.png"])
    source = FolderSource(str(tmp_path / "root"))
    for key in ("../b.png", str(tmp_path / "b.png")):
        with pytest.raises(BadImage, match="leads out"):
            source.read(key)


def test_hidden_and_system_files_are_ignored(tmp_path):
    plant(tmp_path, ["a.png", ".hidden.png", ".git/b.png", "__MACOSX/c.png", "@eaDir/d.png"])
    for name in (".DS_Store", "Thumbs.db", "README.txt", "labels.json"):
        (tmp_path / name).write_text("no image")
    assert keys_of(FolderSource(str(tmp_path))) == ["a.png"]


def test_vanished_and_changed_files_are_noticed(tmp_path):
    plant(tmp_path, ["a.png", "b.png"])
    source = FolderSource(str(tmp_path))
    before = source.read("a.png").sha256
    (tmp_path / "b.png").unlink()
    (tmp_path / "a.png").write_bytes(png(9))
    assert source.read("a.png").sha256 != before
    for read in (source.read, source.size):
        with pytest.raises(BadImage, match="there is no such file") as caught:
            read("b.png")
        assert caught.value.reason == "vanished"


def test_large_file_is_refused_unread(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(10**12)
    assert reasons_of(FolderSource(str(tmp_path))) == {"a.png": "too-large"}


def test_picture_carries_the_digest_of_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    picture = FolderSource(str(tmp_path)).read("a.png")
    assert picture.sha256 == sha256(png()).digest()
    assert picture.blurred is None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*", ["a.png", "b.JPG", "x/c.png", "x/y/d.png"]),
        ("*.png", ["a.png"]),
        ("*.jpg", ["b.JPG"]),
        ("*/*.png", ["x/c.png"]),
        ("x/**/*.png", ["x/c.png", "x/y/d.png"]),
        ("**/y/*", ["x/y/d.png"]),
        ("[ab].*", ["a.png", "b.JPG"]),
        ("x/?.png", ["x/c.png"]),
        ("missing/*.png", []),
    ],
)
def test_globs_find_the_same_in_folders_and_archives(tmp_path, pattern, expected):
    names = ["a.png", "b.JPG", "x/c.png", "x/y/d.png", "x/notes.txt"]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in names:
            path = tmp_path / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png())
            archive.write(path, name)
    globs = (("", pattern),)
    assert keys_of(FolderSource(str(tmp_path / "tree"), globs)) == expected
    assert keys_of(ArchiveSource(str(tmp_path / "z.zip"), globs)) == [f"z.zip!{name}" for name in expected]
    assert [name for name in names[:4] if matches(name.split("/"), pattern)] == expected


def test_list_of_paths_names_images_by_relative_and_absolute_path(tmp_path):
    plant(tmp_path, ["here/a b.png", "there/c.png"])
    (tmp_path / "here" / "list.txt").write_text(f"a b.png\n../there/c.png\r\n{tmp_path}/here/a b.png\nmissing.png\n\n")
    source = FolderSource(str(tmp_path / "here"), listing=str(tmp_path / "here" / "list.txt"))
    assert keys_of(source) == [f"{tmp_path}/there/c.png", "a b.png", "missing.png"]
    assert reasons_of(source) == {"missing.png": "vanished"}


@pytest.fixture(params=["z.zip", "z.tar", "z.tar.gz", "z.tgz", "z.tar.bz2", "z.tar.xz"])
def archive(request, tmp_path):
    """Return an archive of images with hard and with forbidden names."""
    path = tmp_path / request.param
    members = {
        "./dot.png": png(1),
        "b/photo.png": png(2),
        "cut.png": png()[:40],
        "/etc/abs.png": png(),
        "notes.txt": b"x",
    }
    members |= {
        "../up.png": png(),
        "b/../../up2.png": png(),
        "__MACOSX/._a.png": b"x",
        os.fsdecode(b"t\tab.png"): png(4),
    }
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                file.writestr(name, data)
            link = zipfile.ZipInfo("link.png")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(link, "b/photo.png")
            file.mkdir("folder.png")
    else:
        with tarfile.open(path, "w:" + (path.suffix[1:].replace("tgz", "gz") if path.suffix != ".tar" else "")) as file:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
            for name, kind in (
                ("link.png", tarfile.SYMTYPE),
                ("pipe.png", tarfile.FIFOTYPE),
                ("folder.png", tarfile.DIRTYPE),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "b/photo.png"
                file.addfile(info)
    return path


def test_archive_reads_members_and_names_what_it_refuses(archive):
    source = pickle.loads(pickle.dumps(ArchiveSource(str(archive))))
    refused = reasons_of(source)
    refused.pop(f"{archive.name}!pipe.png", None)
    assert refused == {
        f"{archive.name}!{name}": reason
        for name, reason in [
            ("../up.png", "unsafe-name"),
            ("/etc/abs.png", "unsafe-name"),
            ("b/../../up2.png", "unsafe-name"),
            ("cut.png", "truncated"),
            ("link.png", "not-a-file"),
        ]
    }
    for name, level in {"dot.png": 1, "b/photo.png": 2, "t%09ab.png": 4}.items():
        picture = source.read(f"{archive.name}!{name}")
        assert (picture.sharp == level).all()
        assert picture.sha256 == sha256(png(level)).digest()
        assert source.size(f"{archive.name}!{name}") == (8, 6)
    with pytest.raises(BadImage, match="no such member"):
        source.read(f"{archive.name}!absent.png")


def _read_keys(source, keys, results):
    results.put([source.read(key).sharp[0, 0, 0] for key in keys for _ in range(20)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_archive_is_read_by_several_processes_at_once(tmp_path, method):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as file:
        for level in range(30):
            file.writestr(f"{level:02}.png", png(level, (64, 64)))
    source = ArchiveSource(str(path))
    keys = keys_of(source)
    source.read(keys[0])  # opened before the fork
    context = multiprocessing.get_context(method)
    results = context.Queue()
    workers = [context.Process(target=_read_keys, args=(source, keys, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [[level for level in range(30) for _ in range(20)]] * 2


def test_damaged_and_encrypted_members_are_refused(tmp_path):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.png", png())
        file.writestr("b.png", png())
    data = bytearray(path.read_bytes())
    data[data.find(b"IDAT") + 5] ^= 0xFF
    encrypted = data.rfind(b"PK\x01\x02") + 8
    data[encrypted] |= 1
    path.write_bytes(data)
    assert reasons_of(ArchiveSource(str(path))) == {"z.zip!a.png": "corrupt", "z.zip!b.png": "unsupported"}


def test_bombs_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(2_000_000))
    monkeypatch.setattr("blurgen.sources.archive.MAX_FILE_BYTES", 1_000_000)
    assert reasons_of(ArchiveSource(str(tmp_path / "z.zip"))) == {"z.zip!a.png": "too-large"}
    (tmp_path / "t.tgz").write_bytes(gzip.compress(bytes(20_000_000)))
    with pytest.raises(ValueError, match="unpacks to more than 100 times its size"):
        ArchiveSource(str(tmp_path / "t.tgz")).entries()


@pytest.mark.parametrize("name", ["z.zip", "z.tar", "z.tgz"])
def test_archive_that_is_none_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises((ValueError, OSError), match=r"damaged|gzip|BZ2"):
        ArchiveSource(str(tmp_path / name)).entries()


LIST_KEYS = """
import sys
from blurgen.recipes import open_source
for src in ("in", "list.txt", "in.zip", "in.tar"):
    source = open_source(src)
    assert all(source.read(entry.key).sharp.shape == (6, 8, 3) for entry in source.entries())
    print(*(entry.key for entry in source.entries()))
"""


def test_keys_are_the_same_in_every_locale(tmp_path):
    plant(tmp_path, ["in/caf\u00e9.png", "in/\u6e96.png"])
    (tmp_path / "list.txt").write_text("in/caf\u00e9.png\nin/\u6e96.png\n", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as packed, tarfile.open(tmp_path / "in.tar", "w") as tar:
        for path in sorted((tmp_path / "in").iterdir()):
            packed.write(path, path.name)
            tar.add(path, path.name)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = [
        subprocess.run(
            [sys.executable, "-c", LIST_KEYS], cwd=tmp_path, check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **settings},
        ).stdout
        for settings in ({"PYTHONUTF8": "1"}, plain)
    ]  # fmt: skip
    assert shown[0] == shown[1]
    assert shown[1].splitlines()[2] == "in.zip!%E6%BA%96.png in.zip!caf%C3%A9.png"


def test_archive_with_a_divider_in_its_name_reads(tmp_path):
    plant(tmp_path, ["x.png"])
    with zipfile.ZipFile(tmp_path / "a!b.zip", "w") as packed:
        packed.write(tmp_path / "x.png", "c!d.png")
    source = ArchiveSource(str(tmp_path / "a!b.zip"))
    assert keys_of(source) == ["a%21b.zip!c%21d.png"]
    assert source.read(keys_of(source)[0]).sharp.shape == (6, 8, 3)


def test_list_of_paths_may_have_blank_lines_and_comments(tmp_path):
    plant(tmp_path, ["a.png", "#b.png"])
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf# mine\r\n\r\na.png\r\n  # more\n./#b.png\nnever.png\n")
    source = FolderSource(str(tmp_path), listing=str(tmp_path / "list.txt"))
    assert keys_of(source) == ["#b.png", "a.png", "never.png"]
    with pytest.raises(BadImage, match="there is no such file"):
        source.read("never.png")
