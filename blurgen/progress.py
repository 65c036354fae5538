"""How far a run is, on stderr: a bar on a terminal, one line every ten seconds elsewhere."""

import sys
import time
from typing import Any, Protocol

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10


class Counts(Protocol):
    """What is shown: samples done of a total, and the images left out."""

    total: int
    done: int
    bad: list[Any]


class ProgressLine:
    """Context that shows the progress of a run on stderr, with its rate and the time to go."""

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._bar: tqdm | None = None
        self._started, self._shown, self._first = time.monotonic(), 0.0, 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, counts: Counts) -> None:
        """Show the state of a run; what was done before the first call does not count into the rate."""
        if self._quiet:
            return
        if not sys.stderr.isatty():
            self._line(counts)
            return
        if self._bar is None:
            self._bar = tqdm(total=counts.total, initial=counts.done, unit=" samples", file=sys.stderr)
        self._bar.set_postfix(left_out=len(counts.bad))
        self._bar.update(counts.done - self._bar.n)

    def _line(self, counts: Counts) -> None:
        now = time.monotonic()
        if not self._shown:
            self._first = counts.done
        elif now - self._shown < SECONDS_BETWEEN_LINES and counts.done < counts.total:
            return
        self._shown = now
        rate = (counts.done - self._first) / max(now - self._started, 1e-9)
        to_go = f", {(counts.total - counts.done) / rate:.0f} s to go" if rate else ""
        print(
            f"{counts.done}/{counts.total} samples, {rate:.0f} a second{to_go}, {len(counts.bad)} images left out",
            file=sys.stderr,
            flush=True,
        )
