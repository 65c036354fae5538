"""What is fuzzed of the readers of recipes, configs and plans, in the child process of `confined.Confined`."""

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from shard_data import content

from blurgen.inspect_shards import describe
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen, resolve_together
from blurgen.pipeline import make, pack_shards
from blurgen.plan import make_plan
from blurgen.recipes import load_recipe, open_source
from blurgen.rerender import Places, compare_samples
from blurgen.run import PLAN_NAME, open_run, shard_folder
from blurgen.shards import Layout, open_shards, write_shard

_KEPT = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
_FOLDER = Path(_KEPT.name)
_SERIAL = RunOptions(workers=1, backend="threading")
# What a command turns into one sentence.
_SAID = (ValueError, OSError, RuntimeError, MemoryError)


def _outcome(call) -> str:
    """Return ``"done"``, or the sentence that a user gets; whatever else is raised escapes."""
    try:
        call()
    except RecursionError:
        raise
    except _SAID as error:
        return str(error) or f"nothing is said of {error!r}"
    return "done"


def read(data: bytes) -> Any:
    """Return what the function of this module gives whose name is the first line of the data."""
    name, _, rest = data.partition(b"\n")
    return globals()[name.decode()](rest)


def read_recipe(data: bytes) -> list[str]:
    """Return what comes of loading a recipe, and of opening and listing a folder by it, with and without --real."""
    path = _FOLDER / "mine.toml"
    path.write_bytes(data)
    loaded = _outcome(lambda: load_recipe(path))
    if loaded != "done":
        return [loaded]
    return [_outcome(lambda real=real: _listed(path, real)) for real in (False, True)]


def _listed(path: Path, real: bool) -> None:
    source = open_source(str(path), _images(), real=real)
    for entry in source.entries():
        assert entry.key.isascii()
        assert max(map(len, (entry.key, entry.group))) <= 512
        assert len(entry.split) <= 16
    source.read(source.entries()[0].key)


@cache
def _images() -> Path:
    for name in ("train/a/sharp/1.png", "train/a/blur/1.png", "test/b/sharp/2.png", "x/3.png"):
        path = _FOLDER / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    (_FOLDER / "images" / "groups.txt").write_bytes(b"1.png \xff\xfe\n2.png " + b"g" * 900 + b"\n3.png a,b\n")
    return _FOLDER / "images"


def read_config(data: bytes) -> str:
    """Return what comes of planning by a config file."""
    path = _FOLDER / "config.toml"
    path.write_bytes(data)

    def planned():
        options, _ = resolve_together((MakeOptions, RunOptions), {}, path)
        json.dumps(make_plan(options).document)

    return _outcome(planned)


@cache
def _plan():
    kernel = Chosen("deblurgan", {"length_px": 4.0, "side_px": 3})
    source = Chosen("leaves", {"width": 256, "height": 256})
    return make_plan(MakeOptions(source=source, crop=16, count=2, kernel=kernel))


@cache
def _made():
    make(_plan(), _FOLDER / "made.h5", _SERIAL)
    return open_shards(_FOLDER / "made.h5")


def plan_document(data: bytes) -> dict:
    """Return the attributes of a finished file that are read back."""
    attrs = dict(_made().attrs)
    return {name: attrs[name] for name in ("plan", "licence", "blurgen", "range", "bad")}


def read_plan(data: bytes) -> list[str]:
    """Return what the readers of a finished file do with attributes that are forged."""
    path, packed, shards = _FOLDER / "forged.h5", _FOLDER / "packed.h5", _made()
    packed.unlink(missing_ok=True)
    arrays = {name: np.stack([shards.read(name, index) for index in range(2)]) for name in shards.layout.arrays}
    write_shard(path, shards.layout, arrays, shards.meta, shards.sources, json.loads(data))
    calls = (
        lambda: json.dumps(describe(path)),
        lambda: compare_samples(path, 1, Places(), 0),
        lambda: make(_plan(), path, _SERIAL),
        lambda: pack_shards(path, packed),
    )
    return [_outcome(call) for call in calls]


def read_state(data: bytes) -> list[str]:
    """Return what comes of continuing a run whose ``plan.json`` is forged; without data, that file."""
    out = _FOLDER / "stopped.h5"
    out.unlink(missing_ok=True)
    shutil.rmtree(shard_folder(out), ignore_errors=True)
    open_run(_plan(), out, _SERIAL)
    path = shard_folder(out) / PLAN_NAME
    if not data:
        return [path.read_text()]
    path.write_bytes(data)
    content(2, Layout(16, 3), sources=1).write(shard_folder(out) / "00000.h5")
    return [_outcome(lambda: make(_plan(), out, _SERIAL))]
