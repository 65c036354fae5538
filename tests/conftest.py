"""What every test shares: the switch for slow tests and the folder of real images."""

import os
import signal
from pathlib import Path

import pytest

# Tests run side by side, one to a core; networks as small as theirs gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell without job control starts jobs that ignore Ctrl-C, and all their children would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow"):
        return
    skip = pytest.mark.skip(reason="slow: needs --runslow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data_root():
    """Return the folder of real images; skip the test where there is none."""
    root = os.environ.get("BLURGEN_TEST_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("BLURGEN_TEST_DATA names no folder of test images")
    return Path(root)
