"""Whether a file is made of the simple parts that blurgen writes, told from its bytes before HDF5 parses them.

HDF5 checks little of what stands in its heaps and trees, and a file that lies there crashes it. What blurgen writes
needs none but one small heap for the names of many datasets; a file with others is for a process that may be lost.
Addresses and messages are those of the HDF5 file format specification, version 3.
"""

import os
import struct
from collections.abc import Callable, Iterator
from functools import partial

from blurgen.shards.layout import BadShard

_SIGNATURE, _NOWHERE = b"\x89HDF\r\n\x1a\n", (1 << 64) - 1
_LONGEST_CHUNK, _MOST_CHUNKS = 1 << 24, 64
_SPACE, _LINKS, _TYPE, _FILL, _LINK, _LAYOUT, _GROUP, _FILTERS, _ATTRIBUTE, _MORE, _ATTRIBUTES = (
    0x01, 0x02, 0x03, 0x05, 0x06, 0x08, 0x0A, 0x0B, 0x0C, 0x10, 0x15,
)  # fmt: skip
_IN_ROOT, _IN_DATASET = {0, _LINKS, _LINK, _GROUP, _ATTRIBUTE}, {0, _SPACE, _TYPE, _FILL, _LAYOUT, _FILTERS}
_CONTIGUOUS, _CHUNKED = 1, 2
# One chunk, chunks in a row, and a plain array of their places.
_INDEXES = (1, 2, 3)
_RECORD = struct.Struct("<IBIH")
_BLOCK = 512

Pread = Callable[[int, int], bytes]


def is_simple(descriptor: int) -> bool:
    """Return whether HDF5 meets nothing but simple parts in an open file, so that no file can crash it."""
    pread = partial(_pread, descriptor)
    try:
        start = pread(48, 0)
        base, extension, _, root = struct.unpack_from("<4Q", start, 12)
        plain = start[:8] == _SIGNATURE and start[8] in (2, 3) and start[9:12] == b"\x08\x08\x00"
        if not plain or base or extension != _NOWHERE:
            return False
        datasets: list[int] = []
        for kind, body in _messages(pread, root):
            if kind == _LINK:
                datasets.append(_hard_link(body))
            elif kind == _LINKS:
                datasets += _dense_links(pread, body)
            elif not (kind in _IN_ROOT or (kind == _ATTRIBUTES and _nothing_dense(body))):
                return False
        return all(_is_simple_dataset(pread, address) for address in datasets)
    except (ValueError, IndexError, struct.error, OverflowError):
        return False


def check_start(descriptor: int) -> None:
    """Raise BadShard for a file that is not HDF5 or was cut, which HDF5 need not be asked about."""
    start, size = os.pread(descriptor, 48, 0), os.fstat(descriptor).st_size
    if start[:8] != _SIGNATURE[: len(start)] or len(start) < 8:
        raise BadShard("it is not an HDF5 file")
    end = int.from_bytes(start[28:36], "little") if start[8:9] in (b"\2", b"\3") else 0
    if len(start) < 48 or size < end:
        raise BadShard(f"it was cut short: only its first {size} bytes are there")


def _pread(descriptor: int, size: int, at: int) -> bytes:
    try:
        data = os.pread(descriptor, size, at)
    except OSError as error:
        raise ValueError("no such place") from error
    if len(data) < size:
        raise ValueError("beyond the end")
    return data


def _messages(pread: Pread, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of the messages in an object header; ValueError for one of another form than ours."""
    start = pread(6, address)
    if start[:5] != b"OHDR\x02":
        raise ValueError("no object header of version 2")
    flags = start[5]
    at = address + 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1)
    width = 1 << (flags & 3)
    chunks = [(at + width, int.from_bytes(pread(width, at), "little"))]
    for number, (at, size) in enumerate(chunks):
        if size > _LONGEST_CHUNK or number > _MOST_CHUNKS:
            raise ValueError("an absurd object header")
        for kind, body in _split(pread(size, at), 4 + 2 * (flags >> 2 & 1)):
            if kind != _MORE:
                yield kind, body
                continue
            at_more, size_more = struct.unpack("<QQ", body)
            if pread(4, at_more) != b"OCHK":
                raise ValueError("no continuation")
            chunks.append((at_more + 4, size_more - 8))


def _split(chunk: bytes, head: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + head <= len(chunk):
        kind, size, flags = struct.unpack_from("<BHB", chunk, at)
        at += head
        if flags & 2 or at + size > len(chunk):
            raise ValueError("a message that is shared or too long")
        yield kind, chunk[at : at + size]
        at += size


def _hard_link(body: bytes) -> int:
    """Return the address that a link message leads to."""
    version, flags = body[0], body[1]
    at = 2
    if flags & 8:
        if body[at]:
            raise ValueError("a link that is not hard")
        at += 1
    at += 8 * (flags >> 2 & 1) + (flags >> 4 & 1)
    width = 1 << (flags & 3)
    at += width + int.from_bytes(body[at : at + width], "little")
    if version != 1 or at + 8 != len(body):
        raise ValueError("a link message of another form")
    return int.from_bytes(body[at:], "little")


def _nothing_dense(body: bytes) -> bool:
    return body[:2] == b"\0\0" and struct.unpack("<QQ", body[2:]) == (_NOWHERE, _NOWHERE)


def _dense_links(pread: Pread, body: bytes) -> list[int]:
    """Return where the links lead that lie in a heap of a single block; none where they lie in the header."""
    if _nothing_dense(body):
        return []
    heap, tree = struct.unpack("<QQ", body[2:])
    count = _records(pread(38, tree))
    leaf = pread(_BLOCK, int.from_bytes(pread(8, tree + 16), "little"))
    block = pread(_BLOCK, _only_block(pread(146, heap)))
    if body[:2] != b"\0\0" or leaf[:6] != b"BTLF\0\x05" or block[:5] != b"FHDB\0":
        raise ValueError("links of another form")
    found = []
    for number in range(count):
        _, flags, at, size = _RECORD.unpack_from(leaf, 6 + number * _RECORD.size)
        if flags or at + size > _BLOCK:
            raise ValueError("a name that is not in the heap")
        found.append(_hard_link(block[at : at + size]))
    return found


def _records(tree: bytes) -> int:
    """Return the number of records in a tree of a single leaf."""
    form, count, total = tree[:16], *struct.unpack_from("<HQ", tree, 24)
    expected = b"BTHD\0\x05" + struct.pack("<IHHBB", _BLOCK, _RECORD.size, 0, 100, 40)
    if form != expected or count != total or 6 + count * _RECORD.size > _BLOCK - 4:
        raise ValueError("a tree of another form")
    return count


def _only_block(heap: bytes) -> int:
    """Return where the only block of a heap lies."""
    sizes, huge = struct.unpack_from("<HH", heap, 5), struct.unpack_from("<QQ", heap, 14)
    many = struct.unpack_from("<4Q", heap, 78)
    table = struct.unpack_from("<HQQHHQH", heap, 110)
    doubling = table[:4] == (4, _BLOCK, 1 << 16, 32)
    if heap[:5] != b"FRHP\0" or sizes != (7, 0) or huge[1] != _NOWHERE or any(many) or not doubling or table[6]:
        raise ValueError("a heap of another form")
    return table[5]


def _is_simple_dataset(pread: Pread, address: int) -> bool:
    for kind, body in _messages(pread, address):
        if kind == _LAYOUT:
            index = 5 + body[3] * body[4] if body[:2] == bytes([4, _CHUNKED]) else 0
            if not (body[1] == _CONTIGUOUS and body[0] in (3, 4)) and not (index and body[index] in _INDEXES):
                return False
        elif not (kind in _IN_DATASET or (kind == _ATTRIBUTES and _nothing_dense(body))):
            return False
    return True
