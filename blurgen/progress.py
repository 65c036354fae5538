"""How far a run is, on stderr: a bar on a terminal, one line every ten seconds elsewhere."""

import sys
import time
from contextlib import suppress
from typing import Protocol

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10


class Counts(Protocol):
    """What is shown: how many are done of a total, and a few words on how it goes."""

    total: int
    done: int

    @property
    def note(self) -> str:
        """What else there is to say, such as ``2 images left out``."""


class ProgressLine:
    """Context that shows the progress of a run on stderr, with its rate and the time to go.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    unit : str
        What is counted, in the plural.
    """

    def __init__(self, quiet: bool, unit: str = "samples"):
        self._quiet, self._unit = quiet, unit
        self._bar: tqdm | None = None
        self._started, self._shown, self._first = time.monotonic(), 0.0, 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()

    def show(self, counts: Counts) -> None:
        """Show the state of a run; what was done before the first call does not count into the rate."""
        if self._quiet:
            return
        try:
            self._bar_of(counts) if sys.stderr.isatty() else self._line(counts)
        except OSError:  # nobody reads any more: that is no reason to end the run
            self._quiet = True

    def _bar_of(self, counts: Counts) -> None:
        if self._bar is None:
            self._bar = tqdm(total=counts.total, initial=counts.done, unit=f" {self._unit}", file=sys.stderr)
        self._bar.set_postfix_str(counts.note, refresh=False)
        self._bar.update(counts.done - self._bar.n)

    def _line(self, counts: Counts) -> None:
        now = time.monotonic()
        if not self._shown:
            self._first, self._started = counts.done, now
        elif now - self._shown < SECONDS_BETWEEN_LINES and counts.done < counts.total:
            return
        self._shown = now
        rate = (counts.done - self._first) / max(now - self._started, 1e-9)
        words = [f"{counts.done}/{counts.total} {self._unit}"]
        if rate:
            # Few a second are told by one decimal: "0 a second" tells nothing.
            words += [f"{rate:.{int(rate < 10)}f} a second", f"{_span((counts.total - counts.done) / rate)} to go"]
        print(", ".join([*words, counts.note] if counts.note else words), file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else tqdm.format_interval(seconds)
