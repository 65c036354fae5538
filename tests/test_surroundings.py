"""Broken surroundings: no home, nothing that can be written, closed streams, odd locales, images that change."""

import ctypes
import importlib.util
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import photo, write_photos

from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import make_plan
from blurgen.run import open_run, shard_folder
from blurgen.shards import BadShard, open_shards, verify, write_master
from blurgen.sources import BadImage
from blurgen.sources.files import OnDemand, read_whole
from blurgen.sources.folder import FolderSource
from blurgen.worker import build

ROOT = Path(__file__).parents[1]
SERIAL = RunOptions(workers=1, backend="threading")
SMALL = ("--crop", "32", "--set", "kernel.length_px=8", "--set", "kernel.side_px=3", "--backend", "threading")
SLOW = pytest.mark.slow
ADDING = "from blurgen.jit import njit\n\n@njit\ndef add(a, b):\n    return a + b\n"
# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER: with these, root may write where nobody may.
_RIGHTS_OF_ROOT = (1, 2, 3)
_PR_CAPBSET_DROP = 24


def without_rights():
    """Give up what lets root ignore permissions, in a child before it starts."""
    for right in _RIGHTS_OF_ROOT:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)


def child(*words, cwd, code=None, **changes):
    """Run `blurgen` with words, or Python code, in an environment with some variables changed, None meaning absent."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, *(("-c", code) if code else ("-m", "blurgen")), *map(os.fspath, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, preexec_fn=without_rights)


# The cache of compiled code.


def loaded(path):
    """Return the function of a module that is loaded anew from its file."""
    spec = importlib.util.spec_from_file_location("adding", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.add


def hits(function):
    assert function(1, 2) == 3
    return sum(function.stats.cache_hits.values())


def _flip_in_the_code(path):
    data = bytearray(path.read_bytes())
    # Behind a header of 64 bytes comes what is run; an index has no code, and its middle serves as well.
    code = data.find(b"\x7fELF")
    data[code + 66 if code >= 0 else len(data) // 2] ^= 0x10
    path.write_bytes(data)


def _into_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut by a byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "zeros at the end": lambda path: path.write_bytes(path.read_bytes()[:-400] + bytes(400)),
    "a flipped bit": _flip_in_the_code,
    "a folder": _into_folder,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("suffix", [".nbc", pytest.param(".nbi", marks=SLOW)])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_cache_heals_itself(tmp_path, kind, suffix):
    path = tmp_path / "adding.py"
    path.write_text(ADDING)
    assert hits(loaded(path)) == 0
    assert hits(loaded(path)) == 1
    (kept,) = (tmp_path / "__pycache__").glob(f"*{suffix}")
    DAMAGE[kind](kept)
    assert hits(loaded(path)) == 0
    if kind != "a folder":
        assert hits(loaded(path)) == 1


def test_cache_that_cannot_be_written_any_more_is_done_without(tmp_path, monkeypatch):
    path = tmp_path / "adding.py"
    path.write_text(ADDING)
    function = loaded(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert hits(function) == 0
    assert not list((tmp_path / "__pycache__").iterdir())


ADD = "import sys; sys.path.insert(0, sys.argv[1]); import adding; print(adding.add(1, 2), adding.add._cache.__class__)"
NOBODY = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"


@pytest.mark.parametrize(
    ("home", "kept"),
    [
        ("nobody's", "NullCache"),
        pytest.param("read-only", "NullCache", marks=SLOW),
        pytest.param("writable", "_HealingCache", marks=SLOW),
        pytest.param("not there", "NullCache", marks=SLOW),
    ],
)
def test_code_is_compiled_wherever_nothing_can_be_written(tmp_path, home, kept):
    install, here = tmp_path / "install", tmp_path / "here"
    for folder in (install, here, tmp_path / "writable", tmp_path / "read-only"):
        folder.mkdir()
    (install / "adding.py").write_text(ADDING)
    install.chmod(0o555)
    (tmp_path / "read-only").chmod(0o555)
    variables = {"HOME": str(tmp_path / home), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}
    tmp_path.chmod(0o555)
    if home == "nobody's":
        variables["HOME"] = None
    done = child(install, cwd=here, code=(NOBODY if home == "nobody's" else "") + ADD, **variables)
    tmp_path.chmod(0o755)
    assert done.stdout.startswith("3 "), done.stderr
    assert kept in done.stdout
    assert done.stderr == ""
    assert not list(here.iterdir())


@pytest.mark.slow
def test_read_only_installation_makes_shards_without_a_home(tmp_path):
    install, here = tmp_path / "install", tmp_path / "here"
    for name in ("blurgen", "datasets"):
        shutil.copytree(ROOT / name, install / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [install, *install.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    here.mkdir()
    before = {path: path.stat().st_mtime_ns for path in install.rglob("*")}
    # Who runs this test may have a home after all, which is not to be written to.
    variables = {"PYTHONPATH": str(install), "HOME": None, "XDG_CACHE_HOME": os.devnull, "NUMBA_CACHE_DIR": None}
    done = child("make", "--src", "leaves", "--count", "2", *SMALL, cwd=here, **variables)
    assert done.returncode == 0, done.stderr
    assert "samples: 2" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in install.rglob("*")} == before
    assert verify(here / "shards.h5") == []


# Streams and locales.


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with photographs of hard names and the file that was made of them."""
    folder = tmp_path_factory.mktemp("made")
    write_photos(folder / "ph\u00f6tos", 3)
    (folder / "ph\u00f6tos" / "caf\u00e9 \x1b[31m.jpg").write_bytes(b"no image")
    done = child("make", "--src", "ph\u00f6tos", *SMALL, "--out", "\u6f22.h5", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.mark.parametrize("locale", ["C", *(pytest.param(name, marks=SLOW) for name in ("ASCII", "Latin-1"))])
def test_commands_speak_in_every_locale(made, locale):
    for words, expected in ((("info", "\u6f22.h5"), "samples: 3"), (("verify", "\u6f22.h5"), "no problem found")):
        done = subprocess.run(
            [sys.executable, "-m", "blurgen", *words], cwd=made, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **LOCALES[locale]},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert expected.encode() in done.stdout
        assert b"\x1b" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_shards_are_the_same_in_every_locale(made, tmp_path, locale):
    shutil.copytree(made / "ph\u00f6tos", tmp_path / "ph\u00f6tos")
    done = subprocess.run(
        [sys.executable, "-m", "blurgen", "make", "--src", "ph\u00f6tos", *SMALL, "--out", "\u6f22.h5", "--quiet"],
        cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), **LOCALES[locale]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "\u6f22.h5").read_bytes() == (made / "\u6f22.h5").read_bytes()


def in_shell(line, cwd):
    """Run a line of bash in which ``$BLURGEN`` is the command; return the exit code of its first part, and stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BLURGEN": f"{sys.executable} -m blurgen"}
    script = f"{line}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=cwd, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$BLURGEN sources | head -1", (0, 1), ""),
        pytest.param("$BLURGEN info \u6f22.h5 | true", (0, 1), "", marks=SLOW),
        pytest.param("$BLURGEN info \u6f22.h5 --json >&-", (0,), "", marks=SLOW),
        pytest.param("$BLURGEN verify \u6f22.h5 <&- 2>&-", (0,), "", marks=SLOW),
        pytest.param("$BLURGEN verify \u6f22.h5 <&- >&- 2>&-", (0,), "", marks=SLOW),
        ("$BLURGEN verify no.h5 2>&-", (1,), ""),
        pytest.param("$BLURGEN sources > /dev/full", (1,), "Error: No space left on device\n", marks=SLOW),
    ],
)
def test_closed_and_full_streams_end_quietly(made, line, code, said):
    found, errors = in_shell(line, made)
    assert found in code
    assert errors == said


@pytest.mark.parametrize(
    "closed", ["<&- >&- 2>&-", *(pytest.param(how, marks=SLOW) for how in ("2>&1 | true", "2> /dev/full", "2>&-"))]
)
def test_run_goes_on_when_nobody_listens(made, tmp_path, closed):
    shutil.copytree(made / "ph\u00f6tos", tmp_path / "ph\u00f6tos")
    in_shell(f"$BLURGEN make --src ph\u00f6tos {' '.join(SMALL)} --out a.h5 {closed}", tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == (made / "\u6f22.h5").read_bytes()


@pytest.mark.parametrize(
    "words",
    [("-h",), *(pytest.param(w, marks=SLOW) for w in (("make", "--src", "x"), ("sources",), ("verify", "\u6f22.h5")))],
)
def test_no_color_means_none_on_a_terminal(made, words):
    terminal, screen = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "blurgen", *words]
    with subprocess.Popen(command, cwd=made, env=environment, stdin=screen, stdout=screen, stderr=screen) as process:
        os.close(screen)
        shown = b""
        while True:
            try:
                piece = os.read(terminal, 1 << 16)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        process.wait()
    os.close(terminal)
    assert shown
    assert not re.search(rb"\x1b\[[0-9;]*m", shown)


# Images that change between plan and work.


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 6)


def options(folder, **fields):
    values = {"kernel": Chosen("deblurgan", {"length_px": 10.0, "side_px": 3}), "crop": 32, **fields}
    return MakeOptions(source=Chosen(str(folder)), **values)


def _to_folder(path):
    path.unlink()
    path.mkdir()


CHANGES = {
    "vanished": Path.unlink,
    "not-an-image": lambda path: path.write_bytes(b"<html>"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "not-a-file": _to_folder,
    "outside-root": lambda path: path.rename(path.parents[1] / "x.jpg") and path.symlink_to(path.parents[1] / "x.jpg"),
    "too-small": lambda path: cv2.imwrite(str(path), photo(0, 20, 20)),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_image_that_changes_after_the_plan_is_left_out_by_name(photos, tmp_path, reason):
    plan = make_plan(options(photos))
    CHANGES[reason](photos / "photo02.jpg")
    progress = make(plan, tmp_path / "a.h5", SERIAL)
    assert [(bad.key, bad.reason) for bad in progress.bad] == [("photo02.jpg", reason)]
    assert [sample.id for sample in open_shards(tmp_path / "a.h5")] == [0, 1, 3, 4, 5]
    assert verify(tmp_path / "a.h5") == []


def test_image_that_shrinks_after_the_plan_is_left_out_by_name(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        cv2.imwrite(str(photos / f"{number}.png"), photo(number, 400, 500))
    kernel = Chosen("linear", {"length_px": 90.0, "side_px": 3})
    plan = make_plan(options(photos, kernel=kernel, resize_short=40))
    cv2.imwrite(str(photos / "1.png"), photo(1, 40, 50))
    progress = make(plan, tmp_path / "a.h5", SERIAL)
    assert [bad.key for bad in progress.bad] == ["1.png"]
    assert verify(tmp_path / "a.h5") == []


def test_folder_and_archive_that_vanish_end_in_one_sentence(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.write(path, path.name)
    for place in (photos, tmp_path / "z.zip"):
        plan = make_plan(options(place))
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        with pytest.raises(ValueError, match=r"no image could be read: .*photo00\.jpg: "):
            make(plan, tmp_path / "a.h5", SERIAL)


def test_image_that_changes_between_two_shards_is_noticed(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 12)
    plan, out = make_plan(options(photos, per_image=4, count=48)), tmp_path / "a.h5"
    run = open_run(plan, out, SERIAL)
    build(run.job(0))
    cv2.imwrite(str(photos / "photo01.jpg"), photo(77))
    with pytest.raises(BadShard, match=r"00002\.h5: the image 'photo01\.jpg' is another one than in .*00000\.h5"):
        make(plan, out, SERIAL)
    with pytest.raises(BadShard, match="it changed while the set was made"):
        write_master(sorted(shard_folder(out).glob("*.h5")), out)
    for number in (0, 2):
        (shard_folder(out) / f"{number:05d}.h5").unlink()
    assert make(plan, out, SERIAL).done == 48
    assert verify(out) == []


def test_file_that_changes_while_it_is_read_is_left_out(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), photo(0))
    size, descriptor = path.stat().st_size, os.open(path, os.O_RDONLY)
    assert bytes(OnDemand(descriptor, size)) == read_whole(descriptor, size) == path.read_bytes()
    header = OnDemand(descriptor, size)
    os.truncate(path, size // 2)
    for read in (lambda: bytes(header), lambda: read_whole(descriptor, size), lambda: OnDemand(descriptor, size)[-9:]):
        with pytest.raises(BadImage) as caught:
            read()
        assert caught.value.reason == "changed"
    os.close(descriptor)


def test_bytes_read_on_demand_are_those_of_the_file(tmp_path):
    data = np.random.default_rng(0).bytes(200_000) + b"\xff\xd9 the end"
    (tmp_path / "a").write_bytes(data)
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    file = OnDemand(descriptor, len(data))
    for start, stop in ((0, 10), (65_530, 65_540), (100_000, 100_000), (199_990, None), (-5, None), (0, None), (9, 3)):
        assert file[start:stop] == data[start:stop]
    assert (len(file), file[0], file[70_000]) == (len(data), data[0], data[70_000])
    for what, start in (
        (b"the end", 0),
        (data[65_530:65_542], 3),
        (b"absent!", 0),
        (data[:4], 1),
        (b"d", len(data) - 1),
    ):
        assert file.find(what, start) == data.find(what, start)
    os.close(descriptor)


def test_folder_that_may_not_be_read_is_listed_and_refused(tmp_path):
    write_photos(tmp_path / "photos" / "open", 1)
    write_photos(tmp_path / "photos" / "closed", 1)
    (tmp_path / "photos" / "closed").chmod(0)
    code = """if True:
        from blurgen.sources import BadImage
        from blurgen.sources.folder import FolderSource
        source = FolderSource("photos")
        for entry in source.entries():
            try:
                print(entry.key, source.read(entry.key).sharp.shape)
            except BadImage as error:
                print(entry.key, error.reason)
    """
    done = child(cwd=tmp_path, code=code)
    assert done.stdout.splitlines() == ["closed unreadable", "open/photo00.jpg (96, 128, 3)"], done.stderr


def test_path_deeper_than_any_key_is_listed_once_and_refused(tmp_path):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
        Path("a.png").write_bytes(b"x")
    finally:
        os.chdir(here)
    source = FolderSource(str(tmp_path))
    (entry,) = source.entries()
    with pytest.raises(BadImage, match="at most 512 bytes"):
        source.read(entry.key)
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_globs_of_many_wildcards_take_one_look_at_each_folder(tmp_path, monkeypatch):
    for name in ("a/a/a/a/a/a/a/a/a/a/x.png", "b/y.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    looks, scandir = [], os.scandir
    monkeypatch.setattr("blurgen.sources.globs.os.scandir", lambda path: looks.append(path) or scandir(path))
    source = FolderSource(str(tmp_path), (("", "/".join(["**", "a", "**"] * 6 + ["*.png"])),))
    assert [entry.key for entry in source.entries()] == ["a/a/a/a/a/a/a/a/a/a/x.png"]
    assert len(looks) <= 3 * 12
