"""The cache of compiled code: damaged, unwritable, or nowhere."""

import importlib.util
import os
import shutil
import stat
from pathlib import Path

import pytest
from surroundings import ROOT, SMALL, child

from blurgen.shards import verify

SLOW = pytest.mark.slow
ADDING = "from blurgen.jit import njit\n\n@njit\ndef add(a, b):\n    return a + b\n"


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
