"""Shards whose pixels tell where they are, and what a feed makes of them."""

import threading
from itertools import islice

import numpy as np
import torch
from shard_data import grouped

from blurgen.shards import Layout
from trainers.data import DataOptions, open_data
from trainers.method import MethodConfig

LAYOUT = Layout(16, 0, lowres=(2,))
CONFIG = MethodConfig(batch=6, crop=8)


def names(count, prefix="scene "):
    return [f"{prefix}{number}" for number in range(count)]


def twenty_groups(folder):
    """Write shards of 20 groups: 48 samples each for sharp and blurred, too few for whole batches."""
    groups = [name for name in names(20) for _ in range(3)]
    return grouped(groups, LAYOUT, crops=2).write(folder / "a.h5")


def opened(path, pairing="unpaired", seed=0, **settings):
    return open_data(DataOptions(path), pairing, seed, **settings)


def batches(data, count, start=0, config=CONFIG, **settings):
    with data.feed(config, **settings) as feed:
        return list(islice(feed.steps(start), count))


def levels(images):
    """Return float images (B, 3, H, W) as the levels (B, H, W, 3) they came from."""
    return ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def place(crop, blurred=False):
    """Return (sample, y, x, flip) of a crop, which its pixels tell, after checking that they all tell the same."""
    rows = crop[..., 1].astype(int)
    columns = 255 - crop[..., 2].astype(int) if blurred else crop[..., 2].astype(int)
    flip = columns[0, 0] > columns[0, -1]
    columns = columns[:, ::-1] if flip else columns
    side = len(crop)
    assert np.all(crop[..., 0] == crop[0, 0, 0])
    assert np.all(rows == rows[0, 0] + np.arange(side)[:, None])
    assert np.all(columns == columns[0, 0] + np.arange(side))
    return int(crop[0, 0, 0]), int(rows[0, 0]), int(columns[0, 0]), bool(flip)


def seen(some, side):
    crops = np.concatenate([levels(getattr(batch, side)) for batch in some])
    return [place(crop, side == "blurred") for crop in crops]


def same(one, other):
    return all(
        torch.equal(a.sharp, b.sharp) and torch.equal(a.blurred, b.blurred) for a, b in zip(one, other, strict=True)
    )


def feed_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]
