"""Whether an image file holds all that its header promises, since decoders fill in what is missing and say nothing."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from blurgen.sources import BadImage
from blurgen.sources.header import JPEG_END, JPEG_SCAN, Header, png_chunks

_JPEG_BETWEEN_SCANS = frozenset({0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_COEFFICIENTS = 64
# Left, top, and the steps to the right and down of the seven passes of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PIECE = 1 << 20
# What was reserved and never written is zeros; AV1 never ends in so many, unlike WebP, which packs flat areas so.
_HOLE = 4096
_WIDTH, _HEIGHT, _COMPRESSION, _CHANNELS, _ROWS_PER_STRIP, _PLANES = 256, 257, 259, 277, 278, 284
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325
TIFF_PLACES = (
    *(_COMPRESSION, _ROWS_PER_STRIP, _PLANES, _STRIPS, _STRIP_BYTES),
    *(_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES),
)
_RAW, _JPEG_IN_TIFF, _SEPARATE = 1, 7, 2


def check_jpeg_data(data: bytes, header: Header) -> int:
    """Return where the compressed data of a JPEG end (the position of its EOI marker).

    libjpeg carries on over missing and foreign bytes. What gives them away, at the cost of one pass over the bytes:
    markers that no encoder writes inside a scan, restart markers out of order, a hole of zeros, scans that are missing,
    no end.

    Raises
    ------
    BadImage
        ``"truncated"`` without an end, ``"corrupt"`` otherwise.
    """
    body = np.frombuffer(data, np.uint8, offset=header.data_start)
    after = np.flatnonzero((body[:-1] == 0xFF) & (body[1:] != 0x00)) + 1
    after = after[body[after] != 0xFF]
    markers = body[after]
    stops = np.flatnonzero((markers & 0xF8) != 0xD0)
    first, scans = 0, [header.scan]
    while True:
        later = stops[np.searchsorted(stops, first) :]
        if not later.size:
            raise BadImage("truncated", "the JPEG stops before its end-of-image marker")
        stop = later[0]
        if np.any((markers[first:stop] - np.arange(stop - first)) & 7):
            raise BadImage("corrupt", "the restart markers of the JPEG are out of order")
        marker, at = int(markers[stop]), header.data_start + int(after[stop])
        if marker == JPEG_END:
            break
        if marker not in _JPEG_BETWEEN_SCANS or (header.one_scan and marker != 0xDC):
            raise BadImage("corrupt", f"the JPEG has a stray marker 0x{marker:02x} within its image data")
        end = at + 1 + int.from_bytes(data[at + 1 : at + 3])
        if marker == JPEG_SCAN:
            scans.append(bytes(data[at + 3 : end]))
        first = int(np.searchsorted(after, end - header.data_start))
    if not header.one_scan:
        _check_scans(scans, header.channels)
    if header.one_scan and not header.zeros_possible and data.find(bytes(256), header.data_start, at) >= 0:
        raise BadImage("corrupt", "the JPEG has a hole of zero bytes within its image data")
    return at - 1


def _check_scans(scans: Sequence[bytes], channels: int) -> None:
    """Refuse a JPEG of several scans of which a coefficient has not come with its last bit: it ends between two."""
    bits_to_come = np.full((channels, _COEFFICIENTS), 255, np.uint8)
    rows: dict[int, int] = {}
    for scan in scans:
        count = scan[0]
        first, last, bits = scan[1 + 2 * count : 4 + 2 * count]
        for channel in scan[1 : 1 + 2 * count : 2]:
            bits_to_come[rows.setdefault(channel, len(rows)), first : last + 1] = bits & 15
    if bits_to_come.any():
        raise BadImage("truncated", "the JPEG ends before its last scan")


def longer_jpeg(data: bytes, header: Header, end: int) -> bytes:
    """Return a JPEG with more compressed data than it has; a decoder that needs none of them gives the same pixels.

    Parameters
    ----------
    end : int
        Where the compressed data end, from `check_jpeg_data`.
    """
    more = data[header.data_start : header.data_start + 4096].replace(b"\xff", b"\x55")
    return data[:end] + more + b"\xff\xd9"


def check_png_data(data: bytes) -> None:
    """Compare the checksums of a PNG's critical chunks and count its rows, as libpng does and Pillow does not."""
    inflater, missing = zlib.decompressobj(), _png_bytes(data)
    for name, start, end in png_chunks(data):
        if name[:1].isupper() and zlib.crc32(memoryview(data)[start - 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise BadImage("corrupt", f"the checksum of the PNG's {name.decode('latin-1')} chunk is wrong")
        if name == b"IDAT":
            missing -= _inflated(inflater, data[start:end], missing)
    if missing > 0 or not (inflater.eof or missing < 0):
        raise BadImage("truncated", "the image data of the PNG end before its last row")


def _inflated(inflater: Any, data: bytes, wanted: int) -> int:
    """Return the number of bytes that compressed data give, at most about one more than are wanted."""
    count = 0
    try:
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            while piece and count <= wanted and not inflater.eof:
                count += len(inflater.decompress(piece, min(_PIECE, wanted - count + 1)))
                piece = inflater.unconsumed_tail
    except zlib.error as error:
        raise BadImage("corrupt", f"the image data of the PNG are damaged: {error}") from error
    return count


def _png_bytes(data: bytes) -> int:
    """Return the size of the uncompressed rows of a PNG, the byte in front of each included."""
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour, interlaced = data[24], data[25], data[28]
    bits = depth * _PNG_CHANNELS.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - left) // right), -(-(height - top) // down)) for left, top, right, down in passes)
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def check_tiff_data(data: bytes, tags: Mapping[int, Any]) -> None:
    """Look for the strips or tiles of a TIFF; raises `BadImage` where one is missing.

    Parameters
    ----------
    tags : mapping
        The tags of `TIFF_PLACES`, width, height and channels, as Pillow's values, None where absent.
    """
    tiled = tags[_TILES] is not None
    names = (_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)
    places, sizes = (np.array(tags[name] or (), np.int64) for name in names)
    expected = _pieces(tags, tiled)
    if len(places) < expected or np.any(places[:expected] <= 0):
        raise BadImage("truncated", f"the TIFF has not all of its {expected} strips or tiles")
    if (tags[_COMPRESSION] or _RAW) == _RAW or not len(sizes):
        return
    if len(sizes) < expected or np.any((places[:expected] + sizes[:expected]) > len(data)):
        raise BadImage("truncated", "the TIFF stops within a strip or tile")
    if tags[_COMPRESSION] == _JPEG_IN_TIFF:
        for start, size in zip(places[:expected].tolist(), sizes.tolist(), strict=False):
            if bytes(data[start : start + size]).rstrip(b"\0")[-2:] != b"\xff\xd9":
                raise BadImage("truncated", "a JPEG within the TIFF stops before its end-of-image marker")


def _pieces(tags: Mapping[int, Any], tiled: bool) -> int:
    """Return how many strips or tiles a TIFF must have."""
    width, height = tags[_WIDTH], tags[_HEIGHT]
    across = -(-width // tags[_TILE_WIDTH]) if tiled else 1
    down = -(-height // (tags[_TILE_HEIGHT] if tiled else tags[_ROWS_PER_STRIP] or height))
    return across * down * ((tags[_CHANNELS] or 1) if tags[_PLANES] == _SEPARATE else 1)


def check_end(data: bytes, header: Header) -> None:
    """Look for the end of what decoders do without; raises `BadImage` where it is missing."""
    if header.kind == "JPEG2000":
        _check_jpeg2000(data)
    elif header.kind == "AVIF":
        *_, (name, _, end) = _boxes(data)
        if name == b"mdat" and end >= _HOLE and not any(data[end - _HOLE : end]):
            raise BadImage("truncated", f"the last {_HOLE} bytes of the AVIF are zeros, which were never written")


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of the boxes of a JPEG 2000 or AVIF file."""
    at = 0
    while at < len(data):
        length, name, start = int.from_bytes(data[at : at + 4]), bytes(data[at + 4 : at + 8]), at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16]), at + 16
        end = at + length if length else len(data)
        if end > len(data) or end < start:
            raise BadImage("truncated", "the file stops within a box")
        yield name, start, end
        at = end


def _check_jpeg2000(data: bytes) -> None:
    """Look for the end marker of a JPEG 2000 codestream, bare or in its box."""
    start, end = 0, len(data)
    if bytes(data[:2]) != b"\xff\x4f":
        start, end = next(((start, end) for name, start, end in _boxes(data) if name == b"jp2c"), (end, end))
    if bytes(data[start : start + 2]) != b"\xff\x4f" or bytes(data[end - 2 : end]) != b"\xff\xd9":
        raise BadImage("truncated", "the JPEG 2000 data stop before their end marker")
