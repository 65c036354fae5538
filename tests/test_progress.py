"""Progress on stderr: lines that are ten seconds apart, or a bar on a terminal."""

import io
import sys
from dataclasses import dataclass

import pytest

from blurgen import progress
from blurgen.progress import ProgressLine


@dataclass
class Counts:
    total: int
    done: int
    note: str = ""


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_lines_come_every_ten_seconds_and_at_the_end(clock, capsys):
    with ProgressLine(quiet=False, unit="steps") as line:
        for done, seconds in ((1, 0), (2, 9), (3, 1), (4, 0.5), (5, 9.5), (9, 1), (10, 0)):
            clock.now += seconds
            line.show(Counts(10, done, f"note {done}"))
    told = capsys.readouterr().err.splitlines()
    assert [words.split(",")[0] for words in told] == ["1/10 steps", "3/10 steps", "5/10 steps", "10/10 steps"]
    assert told[0] == "1/10 steps, note 1"
    assert told[2] == "5/10 steps, 0.2 a second, 25 s to go, note 5"


def test_what_was_done_before_does_not_count_into_the_rate(clock, capsys):
    line = ProgressLine(quiet=False)
    line.show(Counts(20_000, 9_000))
    clock.now += 10
    line.show(Counts(20_000, 9_100))
    assert capsys.readouterr().err.splitlines()[1] == "9100/20000 samples, 10 a second, 18:10 to go"


def test_bar_on_a_terminal_shows_unit_and_note(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressLine(quiet=False, unit="steps") as line:
        line.show(Counts(10, 4, "7 images a second"))
        line.show(Counts(10, 10, "8 images a second"))
    assert "10/10" in terminal.getvalue()
    assert "steps/s" in terminal.getvalue() or "s/ steps" in terminal.getvalue()
    assert "8 images a second" in terminal.getvalue()


def test_quiet_is_quiet(capsys):
    with ProgressLine(quiet=True) as line:
        line.show(Counts(1, 1))
    assert capsys.readouterr() == ("", "")
