"""How the golden shards were made, once, by blurgen 0.1.0: ``python tests/golden/make.py``.

They are what format 1 is: later versions must read them to the bit, so they are never made anew. A new kind of file is
added by a new function here; files that exist stay as they are. ``expected.json`` holds what was given to the writer,
as digests and in words, so that no reader had a say in it, but for ``made``:

- ``raw``, ``gzip``: both codecs, with kernels and a low-resolution variant
- ``many``: so many datasets that HDF5 keeps their names in a heap
- ``heap``: attributes in a heap, too, as they were written before blurgen kept them in the header
- ``sharded``: a master and its shards
- ``pairs``, ``sharp``, ``blurred``: real pairs, and one side alone
- ``empty``: no sample at all
- ``made``: by the command ``blurgen make --src leaves --count 2 --crop 16``, small in every other way
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]

from blurgen.make_options import MakeOptions, RunOptions  # noqa: E402
from blurgen.options import Chosen  # noqa: E402
from blurgen.pipeline import make  # noqa: E402
from blurgen.plan import make_plan  # noqa: E402
from blurgen.shards import Layout, open_shards, write_master, writing  # noqa: E402
from tests.shard_data import Content, content  # noqa: E402

PARAMS = ("anxiety", "gaussian")
ATTRS = {
    "plan": {"seed": 7, "count": 3, "source": {"name": "folder", "settings": {}}},
    "licence": {"source": "folder", "licence": "CC0-1.0", "author": "Zo\u00eb"},
    "blurgen": "0.1.0",
    "range": [0, 3],
    "bad": [["b%0A.png", "truncated", "the PNG stops before its end chunk"]],
}


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def described(
    layout: Layout, arrays: dict[str, np.ndarray], meta: np.ndarray, sources: np.ndarray, attrs: dict
) -> dict:
    """Return what a reader must find, as JSON says it; the checksums in the rows are the writer's."""
    fields = {name: meta[name].tolist() for name in meta.dtype.names if name not in ("crc32", "row_crc32")}
    images = [name for name in sources.dtype.names if name != "row_crc32"]
    rows = [
        [row[name].decode() if row[name].dtype.kind == "S" else row[name].tolist() for name in images]
        for row in sources
    ]
    return {
        "layout": [layout.crop, layout.kernel_side, list(layout.lowres), layout.sides, list(layout.params)],
        "arrays": {name: [list(array.shape), array.dtype.str, digest(array)] for name, array in arrays.items()},
        "meta": fields,
        "sources": rows,
        "attrs": attrs,
    }


def _given(made: Content) -> dict:
    return described(made.layout, made.arrays, made.meta, made.sources, made.attrs)


def _plain(name: str, layout: Layout, codec: str | None = None, count: int = 3, attrs: dict = ATTRS) -> dict:
    made = content(count, layout, sources=2, seed=len(name), attrs=attrs)
    made.write(HERE / f"{name}.h5", codec)
    return _given(made)


def _heap(name: str) -> dict:
    kept, writing._MOST_ATTRS = writing._MOST_ATTRS, 8
    try:
        return _plain(name, Layout(8, 3, params=PARAMS), attrs={**ATTRS, **{f"more {n}": n for n in range(4)}})
    finally:
        writing._MOST_ATTRS = kept


def _sharded(name: str) -> dict:
    made = content(4, Layout(8, 3, params=PARAMS), sources=2, seed=9, attrs=ATTRS)
    paths = made.divided(HERE / f"{name}.h5.d", 2)
    write_master(paths, HERE / f"{name}.h5")
    return _given(made)


def _made(name: str) -> dict:
    kernel = Chosen("deblurgan", {"length_px": 4.0, "side_px": 3})
    source = Chosen("leaves", {"width": 256, "height": 256})
    plan = make_plan(MakeOptions(source=source, crop=16, count=2, kernel=kernel))
    make(plan, HERE / f"{name}.h5", RunOptions(workers=1, backend="threading"))
    shards = open_shards(HERE / f"{name}.h5")
    arrays = {one: np.stack([shards.read(one, index) for index in range(2)]) for one in shards.layout.arrays}
    attrs = {
        one: value for one, value in shards.attrs.items() if one not in ("arrays", "params", "version", "attrs_crc32")
    }
    return described(shards.layout, arrays, shards.meta, shards.sources, attrs)


FILES: dict[str, Callable[[str], dict]] = {
    "raw": lambda name: _plain(name, Layout(8, 3, (2,), params=PARAMS)),
    "gzip": lambda name: _plain(name, Layout(8, 3, (2,), params=PARAMS), "gzip"),
    "many": lambda name: _plain(name, Layout(8, 3, (2, 4), params=PARAMS), "gzip"),
    "heap": _heap,
    "sharded": _sharded,
    "pairs": lambda name: _plain(name, Layout(8)),
    "sharp": lambda name: _plain(name, Layout(8, sides="sharp")),
    "blurred": lambda name: _plain(name, Layout(8, sides="blurred")),
    "empty": lambda name: _plain(name, Layout(8, 3), count=0),
    "made": _made,
}


def main() -> None:
    """Make the files that do not exist, and add what they hold to ``expected.json``."""
    listed = HERE / "expected.json"
    expected = json.loads(listed.read_text()) if listed.exists() else {}
    for name, build in FILES.items():
        if name not in expected:
            (HERE / f"{name}.h5").unlink(missing_ok=True)
            shutil.rmtree(HERE / f"{name}.h5.d", ignore_errors=True)
            expected[name] = build(name)
            files = sorted(HERE.rglob(f"{name}.h5*/*")) or [HERE / f"{name}.h5"]
            files = sorted({HERE / f"{name}.h5", *files})
            expected[name]["files"] = {
                str(path.relative_to(HERE)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
            }
    text = ",\n".join(f'"{name}": {json.dumps(facts, ensure_ascii=False)}' for name, facts in expected.items())
    listed.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
