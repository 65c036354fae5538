"""A run of a hundred thousand samples: memory, open files and temporary files stay what they are at its beginning."""

import os
import re
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from photos import write_photos
from runs import workers_of

from blurgen.shards import open_shards

SAMPLES, IMAGES = 100_000, 50
OPTIONS = ("--crop", "64", "--kernel", "linear", "--set", "kernel.length_px=8", "--shard-mib", "4", "--workers", "1")


class Moment(NamedTuple):
    """What a run holds at one moment, over all its processes: memory in MiB, open files, temporary files."""

    memory_mib: float
    open_files: int
    drafts: int


@pytest.mark.slow
def test_hundred_thousand_samples_take_no_more_at_the_end_than_at_the_beginning(tmp_path):
    photos, out = write_photos(tmp_path / "photos", IMAGES, 80, 96), tmp_path / "many.h5"
    per_image = ("--per-image", str(SAMPLES // IMAGES))
    command = [sys.executable, "-m", "blurgen", "make", "--src", photos, "--out", out, *per_image, *OPTIONS]
    with open(tmp_path / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        making, packing = watched(process, out)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    tenth = len(making) // 10
    assert tenth >= 3, "the run was over before it was looked at"
    # The first tenth is start-up; the second is what the last is compared with.
    early, late = making[tenth : 2 * tenth], making[-tenth:]
    assert median(late, "memory_mib") <= 1.1 * median(early, "memory_mib")
    assert median(late, "open_files") <= median(early, "open_files") + 1
    assert max(moment.drafts for moment in making) <= 1
    assert max(moment.memory_mib for moment in packing) <= median(early, "memory_mib")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len(open_shards(out)) == SAMPLES


def watched(process, out):
    """Return the moments of a run while its worker makes shards, and those while it packs them, ten a second."""
    making, packing, folder = [], [], out.with_name(out.name + ".d")
    while process.poll() is None:
        time.sleep(0.1)
        with suppress(OSError):  # a process, a file or the folder has just gone
            drawn = any(folder.glob("*.h5"))
            if any(out.parent.glob(".*.tmp")):
                packing.append(moment(process.pid, folder))
            elif drawn and workers_of(process.pid):
                making.append(moment(process.pid, folder))
    return making, packing


def moment(pid, folder):
    pids = [pid, *workers_of(pid)]
    resident = [re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{one}/status").read_text()) for one in pids]
    memory = sum(int(found.group(1)) for found in resident if found) / 1024
    files = sum(len(os.listdir(f"/proc/{one}/fd")) for one in pids)
    return Moment(memory, files, sum(path.name.endswith(".tmp") for path in folder.iterdir()))


def median(moments, field):
    return statistics.median(getattr(one, field) for one in moments)
