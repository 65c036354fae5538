"""The child process that checks what may be hostile: its limits, and what is said when it dies."""

import faulthandler
import os

import numpy as np
import pytest

from blurgen.shards.verifying import _confined


def test_child_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("blurgen.shards.verifying.problems", lambda path: iter(lambda: "a", "b"))
    monkeypatch.setattr("blurgen.shards.verifying._LISTED", 10**12)
    found = _confined(str(tmp_path), 0.3, 3072)
    assert found[-1].endswith("the check took longer than 0 s and was ended")


def _abort(path):
    faulthandler.disable()  # its report of a crash that is meant would only alarm the reader of the log
    os.abort()


@pytest.mark.parametrize(
    ("crash", "message"),
    [
        (_abort, r"the check crashed \(SIGABRT\)"),
        (lambda path: os._exit(7), r"the check crashed \(exit 7\)"),
        (lambda path: np.ones(2**33), "the check needed more than 1024 MiB"),
    ],
)
def test_child_that_crashes_is_reported(tmp_path, monkeypatch, crash, message):
    monkeypatch.setattr("blurgen.shards.verifying.problems", crash)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(_confined(str(tmp_path), 20, 1024))
