"""Broken surroundings: closed and full streams, odd locales, no colours."""

import os
import pty
import re
import shutil
import subprocess
import sys

import pytest
from photos import write_photos
from surroundings import ROOT, SMALL, child

SLOW = pytest.mark.slow


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
