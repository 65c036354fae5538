"""Damaged copies of files: what a bad disk, a cut download or a hostile hand makes of them, the same on every run."""

import struct
import zlib
from typing import Any

import numpy as np

# Values on which sizes, counts and offsets break.
_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_HEAD = 512


def mutant(data: bytes, rng: np.random.Generator, others: tuple[bytes, ...] = ()) -> bytes:
    """Return `data` after one to four changes, half of them near its beginning, where the structure is.

    Parameters
    ----------
    data : bytes
    rng : numpy.random.Generator
    others : tuple of bytes
        Files of the same kind, pieces of which may be spliced in.
    """
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 4]))):
        if not changed:
            break
        _CHANGES[rng.integers(len(_CHANGES))](changed, _place(changed, rng), rng, others)
    return bytes(changed)


def forged_mutant(data: bytes, rng: np.random.Generator, blocks: list[tuple[int, int]]) -> bytes:
    """Return `data` of the same length after one to three changes within one of the blocks (start, stop)."""
    changed = bytearray(data)
    start, stop = blocks[rng.integers(len(blocks))]
    for _ in range(int(rng.integers(1, 4))):
        piece = changed[start:stop]
        _IN_PLACE[rng.integers(len(_IN_PLACE))](piece, int(rng.integers(len(piece))), rng, ())
        changed[start:stop] = piece[: stop - start].ljust(stop - start, b"\0")
    return bytes(changed)


def text_mutant(text: str, rng: np.random.Generator, words: tuple[str, ...]) -> bytes:
    """Return a text after a change or two: of a value, of a line, of a few letters, or of its bytes."""
    for _ in range(int(rng.choice([1, 1, 2]))):
        kind, lines, word = rng.random(), text.split("\n"), str(rng.choice(words))
        at = int(rng.integers(len(lines)))
        if kind < 0.5:
            key, equals, _ = lines[at].partition("=")
            lines[at] = f"{key}{equals} {word}" if equals else word
        elif kind < 0.7:
            lines[at] = lines[int(rng.integers(len(lines)))]
        elif kind < 0.85:
            place = int(rng.integers(len(lines[at]) + 1))
            lines[at] = lines[at][:place] + word + lines[at][place + int(rng.integers(0, 6)) :]
        else:
            return mutant(text.encode(), rng)
        text = "\n".join(lines)
    return text.encode()


def json_mutant(value: Any, rng: np.random.Generator, words: tuple[Any, ...]) -> Any:
    """Return a copy of what JSON can say with one part of it replaced, removed or doubled."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return words[rng.integers(len(words))]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[rng.integers(len(keys))]
    changed = value.copy()
    if rng.random() < 0.2:
        del changed[key]
    elif rng.random() < 0.1:
        changed = {**changed, "stranger": value[key]} if isinstance(value, dict) else [*changed, value[key]]
    else:
        changed[key] = json_mutant(value[key], rng, words)
    return changed


def with_png_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks agree with their checksums again, so that what they say is believed."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4])
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    return int(rng.integers(min(len(data), _HEAD) if rng.random() < 0.5 else len(data)))


def _flip(data, at, rng, others):
    data[at] ^= 1 << int(rng.integers(8))


def _byte(data, at, rng, others):
    data[at] = int(rng.integers(256))


def _edge(data, at, rng, others):
    """Put an extreme value into 1, 2, 4 or 8 bytes, in either order."""
    size = int(rng.choice([1, 2, 4, 8]))
    value = int(_EDGES[rng.integers(len(_EDGES))]) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, "little" if rng.random() < 0.5 else "big")


def _near(data, at, rng, others):
    """Add or subtract a little, as an error by one does."""
    data[at] = (data[at] + int(rng.integers(-3, 4))) % 256


def _noise(data, at, rng, others):
    size = int(rng.integers(1, 33))
    data[at : at + size] = rng.bytes(size)


def _hole(data, at, rng, others):
    size = int(rng.integers(1, 257))
    data[at : at + size] = bytes(len(data[at : at + size]))


def _delete(data, at, rng, others):
    del data[at : at + int(rng.integers(1, 65))]


def _double(data, at, rng, others):
    data[at:at] = data[at : at + int(rng.integers(1, 65))]


def _insert(data, at, rng, others):
    data[at:at] = rng.bytes(int(rng.integers(1, 17)))


def _cut(data, at, rng, others):
    del data[at:]


def _move(data, at, rng, others):
    """Copy a run of bytes from elsewhere over this one."""
    source, size = _place(data, rng), int(rng.integers(1, 65))
    data[at : at + size] = data[source : source + size]


def _splice(data, at, rng, others):
    """Continue with the rest of another file."""
    if others:
        other = others[rng.integers(len(others))]
        data[at:] = other[min(at, len(other)) :]


_CHANGES = (_flip, _flip, _byte, _edge, _edge, _edge, _near, _noise, _hole, _delete, _double, _insert, _cut, _move)
_CHANGES += (_splice,)
_IN_PLACE = (_flip, _flip, _byte, _edge, _edge, _near, _noise, _hole)
