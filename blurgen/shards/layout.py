"""Format 1: what a shard holds, to the byte."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from blurgen.maps import PRIOR_FACTOR

FORMAT, MASTER, VERSION = "blurgen shard", "blurgen master", 1
MAX_CROP, MAX_KERNEL, MAX_FACTOR, MAX_PARAMS, MAX_ARRAYS, MAX_KEY = 16384, 4095, 64, 16, 12, 512
MAX_CLASSES, MAX_TRANSCRIPT = 256, 1 << 20
SIDES = {"both": ("sharp", "blurred"), "sharp": ("sharp",), "blurred": ("blurred",)}

META = np.dtype(
    [
        ("id", "<u8"),
        ("source", "<u4"),
        ("crop", "<u4"),
        ("y", "<f8"),
        ("x", "<f8"),
        ("side", "<f8"),
        ("scale", "<f8"),
        ("exposure", "<f8", (2,)),
        ("length_px", "<f4"),
        ("shift", "<f4", (2,)),
        ("params", "<f4", (MAX_PARAMS,)),
        ("noise", "<f4", (4,)),
        ("saturation", "<f4"),
        ("crc32", "<u4", (MAX_ARRAYS,)),
        ("row_crc32", "<u4"),
    ]
)
"""One row of ``/meta``, the story of one sample. What does not apply to a sample is 0, never NaN.

id          number of the sample, ascending; a source that could not be read leaves a gap
source      row of ``/source``
crop        number of the crop among those of its source; (source key, crop) fixes every pixel
y, x, side  the crop box in px of the source image as read: upper left corner and side
scale       output px per source px: the crop of the layout / side
exposure    the window [t0, t1] of the trajectory, as fractions of it
length_px   arc length of the whole path, in output px
shift       (x, y) in output px, from the anchor of the path to the centre of the kernel
params      what the kernel model drew; the attribute ``params`` names the entries
noise       what the noise model drew
saturation  what the saturation model drew
crc32       of the bytes of each image, kernel and map; the attribute ``arrays`` names the entries
row_crc32   of this row without its last four bytes
"""

SOURCE = np.dtype(
    [
        ("key", f"S{MAX_KEY}"),
        ("group", f"S{MAX_KEY}"),
        ("split", "S16"),
        ("sha256", "u1", (32,)),
        ("width", "<u4"),
        ("height", "<u4"),
        ("licence", "S128"),
        ("author", "S256"),
        ("row_crc32", "<u4"),
    ]
)
"""One row of ``/source``, one image that samples were cut from. Text is UTF-8, padded with NULs.

key            relative POSIX path, percent-encoded, ``archive!member`` inside an archive
group          the images of one scene or person share it; the key where nothing else is known
split          the data's own: train, val, test, or empty
sha256         of the encoded bytes that were decoded; of the pixels for a built-in source
width, height  of the image in px
licence, author
row_crc32      of this row without its last four bytes
"""

MANIFEST = np.dtype(
    [("name", f"S{MAX_KEY}"), ("size", "<u8"), ("count", "<u8"), ("digest", "u1", (32,)), ("row_crc32", "<u4")]
)
"""One row of ``/manifest`` in a master, one shard.

name       path relative to the master's folder
size       of the file in bytes
count      of its samples
digest     SHA-256 of its ``/meta``, ``/source`` and attributes, which hold the checksums of all the rest
row_crc32  of this row without its last four bytes
"""


class BadShard(ValueError):
    """A file that is not what the format says; the message names what is wrong with it."""


class Item(NamedTuple):
    """Shape and dtype of one sample's part in an array of a shard."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """What every sample of a shard consists of.

    Parameters
    ----------
    crop : int
        Side of the images in px, from 1 to 16384.
    kernel_side : int
        Side of the kernels in px, odd; 0 where there are none, as in real pairs.
    lowres : tuple of int
        Factors of the low-resolution variants, ascending, each from 2 to 64 and a divisor of `crop`.
    sides : str
        "both", "sharp" or "blurred".
    params : tuple of str
        Names of the first entries of ``meta["params"]``, at most 16.
    label : bool
        Whether there are label maps: the id of each pixel of the crop.
    prior : int
        Classes of the probability maps, at most 256, at a quarter of the crop; 0 where there are none.
    transcript : int
        Bytes of the text in a crop, at most 2^20: UTF-8, padded with NULs; 0 where there is none.

    Raises
    ------
    ValueError
        A value outside its range.

    Examples
    --------
    >>> list(Layout(256, 65, lowres=(2,)).arrays)
    ['sharp', 'blurred', 'kernel', 'sharp_x2', 'blurred_x2']
    """

    crop: int
    kernel_side: int = 0
    lowres: tuple[int, ...] = ()
    sides: str = "both"
    params: tuple[str, ...] = ()
    label: bool = False
    prior: int = 0
    transcript: int = 0

    def __post_init__(self):
        if self.sides not in SIDES:
            raise ValueError(f"sides must be one of {', '.join(SIDES)}, got {self.sides!r}")
        if not 1 <= self.crop <= MAX_CROP:
            raise ValueError(f"crop must lie between 1 and {MAX_CROP} px, got {self.crop}")
        if self.kernel_side and not (self.kernel_side % 2 and 1 <= self.kernel_side <= MAX_KERNEL):
            raise ValueError(f"kernel_side must be 0 or an odd number up to {MAX_KERNEL}, got {self.kernel_side}")
        for factor in self.lowres:
            if not 2 <= factor <= MAX_FACTOR or self.crop % factor:
                raise ValueError(
                    f"a low-resolution factor must divide the crop of {self.crop} px and lie between 2 and "
                    f"{MAX_FACTOR}, got {factor}"
                )
        if list(self.lowres) != sorted(set(self.lowres)):
            raise ValueError(f"low-resolution factors must ascend, got {self.lowres}")
        if not 0 <= self.prior <= MAX_CLASSES or (self.prior and self.crop % PRIOR_FACTOR):
            raise ValueError(
                f"prior must be 0 to {MAX_CLASSES} classes, of crops that {PRIOR_FACTOR} divides, got {self.prior} of "
                f"{self.crop} px"
            )
        if not 0 <= self.transcript <= MAX_TRANSCRIPT:
            raise ValueError(f"transcript must be 0 to {MAX_TRANSCRIPT:,} bytes, got {self.transcript}")
        if len(self.arrays) > MAX_ARRAYS:
            raise ValueError(f"a sample holds at most {MAX_ARRAYS} arrays, got {len(self.arrays)}")
        if len(self.params) > MAX_PARAMS:
            raise ValueError(f"a kernel model records at most {MAX_PARAMS} parameters, got {len(self.params)}")

    @cached_property
    def arrays(self) -> dict[str, Item]:
        """Name -> shape and dtype of one sample, in the order of ``meta["crc32"]``."""
        sides = SIDES[self.sides]
        items = {side: Item((self.crop, self.crop, 3), np.dtype("u1")) for side in sides}
        if self.kernel_side:
            items["kernel"] = Item((self.kernel_side, self.kernel_side), np.dtype("<f4"))
        for factor in self.lowres:
            small = self.crop // factor
            items |= {f"{side}_x{factor}": Item((small, small, 3), np.dtype("u1")) for side in sides}
        # What is optional stands last, so that its checksums leave the columns of all others where they are.
        if self.label:
            items["label"] = Item((self.crop, self.crop), np.dtype("u1"))
        if self.prior:
            quarter = self.crop // PRIOR_FACTOR
            items["prior"] = Item((self.prior, quarter, quarter), np.dtype("<f2"))
        if self.transcript:
            items["transcript"] = Item((self.transcript,), np.dtype("u1"))
        return items

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, its row of ``/meta`` included and its source not."""
        return META.itemsize + sum(item.nbytes for item in self.arrays.values())


def source_row(
    key: str,
    sha256: bytes,
    width: int,
    height: int,
    group: str = "",
    split: str = "",
    licence: str = "",
    author: str = "",
) -> np.void:
    """Return one row of ``/source`` (SOURCE), sealed.

    Raises
    ------
    ValueError
        A text that is longer than its field or holds a NUL.
    """
    row = np.zeros(1, SOURCE)
    texts = {"key": key, "group": group or key, "split": split, "licence": licence, "author": author}
    for name, text in texts.items():
        row[name] = _fixed(name, text, SOURCE[name].itemsize)
    row["sha256"] = np.frombuffer(sha256, np.uint8)
    row["width"], row["height"] = width, height
    return seal_rows(row)[0]


def _fixed(name: str, text: str, limit: int) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) > limit or b"\0" in encoded:
        raise ValueError(f"the {name} of a source must have at most {limit} bytes and no NUL, got {text[:80]!r}")
    return encoded


def seal_rows(rows: np.ndarray) -> np.ndarray:
    """Return `rows` after writing the checksum of each into its ``row_crc32``."""
    rows["row_crc32"] = row_checksums(rows)
    return rows


def row_checksums(rows: np.ndarray) -> np.ndarray:
    """Return the CRC-32 (n,) uint32 of each row without its last four bytes."""
    data = memoryview(np.ascontiguousarray(rows)).cast("B") if len(rows) else b""
    size = rows.dtype.itemsize
    starts = range(0, len(rows) * size, size)
    return np.fromiter((zlib.crc32(data[start : start + size - 4]) for start in starts), np.uint32, len(rows))


def attrs_checksum(texts: Mapping[str, str]) -> int:
    """Return the CRC-32 of the attributes of a file, its own left out."""
    pairs = sorted((name, text) for name, text in texts.items() if name != "attrs_crc32")
    return zlib.crc32(repr(pairs).encode("utf-8", "surrogatepass"))
