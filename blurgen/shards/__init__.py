"""The HDF5 format of the samples: write, read, verify, pack."""

from blurgen.shards.drafts import naming_bytes, remove_drafts, sync_folder, write_atomically, write_text
from blurgen.shards.files import ShardFile, ShardSample
from blurgen.shards.layout import MASTER, MAX_KERNEL, META, SOURCE, BadShard, Layout, source_row
from blurgen.shards.manifest import shard_paths, write_master
from blurgen.shards.packing import pack
from blurgen.shards.reading import Shards, open_shards
from blurgen.shards.structure import Structure, parse
from blurgen.shards.verifying import verify, verify_each
from blurgen.shards.writing import file_bytes, shard_bytes, shard_pieces, write_shard

__all__ = [
    "MASTER",
    "MAX_KERNEL",
    "META",
    "SOURCE",
    "BadShard",
    "Layout",
    "ShardFile",
    "ShardSample",
    "Shards",
    "Structure",
    "file_bytes",
    "naming_bytes",
    "open_shards",
    "pack",
    "parse",
    "remove_drafts",
    "shard_bytes",
    "shard_paths",
    "shard_pieces",
    "source_row",
    "sync_folder",
    "verify",
    "verify_each",
    "write_atomically",
    "write_master",
    "write_shard",
    "write_text",
]
