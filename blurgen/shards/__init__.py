"""The HDF5 format of the samples: write, read, verify, pack."""

from blurgen.shards.files import ShardFile, ShardSample
from blurgen.shards.layout import META, SOURCE, BadShard, Layout, source_row
from blurgen.shards.manifest import shard_paths, write_master
from blurgen.shards.reading import Shards, open_shards
from blurgen.shards.writing import shard_bytes, write_atomically, write_shard

__all__ = [
    "META",
    "SOURCE",
    "BadShard",
    "Layout",
    "ShardFile",
    "ShardSample",
    "Shards",
    "open_shards",
    "shard_bytes",
    "shard_paths",
    "source_row",
    "write_atomically",
    "write_master",
    "write_shard",
]
