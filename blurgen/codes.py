"""Tables between integer codes and linear light: fast both ways, and exactly rounded."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from blurgen.jit import njit

LEVELS = {np.dtype(np.uint8): 256, np.dtype(np.uint16): 65536}

Curve = Callable[[np.ndarray], np.ndarray]

# Floats that agree in exponent and the first 8 bits of the mantissa share a bin: 256 bins an octave, so that
# hardly any bin holds more than one step of an 8-bit code.
_BIN_SHIFT = 15


@dataclass(frozen=True)
class Codes:
    """A response curve at one bit depth: the light of each code, and the way back.

    `light` (levels,) float32 is the light of each code. `thresholds` is the least light that rounds to each code,
    then infinities. `guess` is a code not above the right one for each bin of float bits, from `lowest_bin` up;
    greedy steps by `strides` do the rest.
    """

    light: np.ndarray
    thresholds: np.ndarray
    guess: np.ndarray
    lowest_bin: int
    strides: np.ndarray

    @classmethod
    def of(cls, decode: Curve, encode: Curve, dtype: np.dtype) -> "Codes":
        """Return the tables of a curve: `decode` from encoded values in [0, 1] to light in [0, 1], `encode` back.

        Raises
        ------
        ValueError
            Neighbouring codes have the same light in float32.
        """
        levels = LEVELS[dtype]
        thresholds = _least_light(encode, levels)
        lowest, highest = (thresholds[[1, -1]].view(np.int32) >> _BIN_SHIFT).tolist()
        edges = (np.arange(lowest, highest + 1, dtype=np.int32) << _BIN_SHIFT).view(np.float32)
        guess = np.searchsorted(thresholds, edges, side="right") - 1
        most_in_bin = int(np.diff(guess, append=levels - 1).max())
        strides = 1 << np.arange(most_in_bin.bit_length())[::-1]
        padded = np.append(thresholds, np.full(strides.sum(), np.inf, np.float32))
        light = decode(np.arange(levels) / (levels - 1)).astype(np.float32)
        codes = cls(light, padded, guess.astype(dtype), lowest, strides)
        if not np.array_equal(codes.quantise(light), np.arange(levels)):
            raise ValueError(f"the response is too steep to tell its {levels} levels apart in float32")
        return codes

    def quantise(self, light: np.ndarray) -> np.ndarray:
        """Return the code of each light, clipped to [0, 1] and rounded, halves up, in the dtype of the table."""
        light = np.ascontiguousarray(light, np.float32)
        out = np.empty(light.shape, self.guess.dtype)
        flat = light.reshape(-1)
        bits = flat.view(np.int32)
        _quantise(flat, bits, self.thresholds, self.guess, self.lowest_bin, self.strides, out.reshape(-1))
        return out


def _least_light(encode: Curve, levels: int) -> np.ndarray:
    """Return for each code the least float32 light that rounds to it, halves up: (levels,) float32, from 0 to ≤ 1."""
    codes = np.arange(levels)
    low = np.zeros(levels, np.int32)
    high = np.full(levels, np.float32(1).view(np.int32))
    while (low < high).any():  # non-negative floats are ordered as their bits are
        middle = (low + high) // 2
        encoded = encode(middle.view(np.float32).astype(np.float64))
        reached = np.floor(encoded * (levels - 1) + 0.5) >= codes
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return low.view(np.float32)


@njit(nogil=True)
def look_up(codes, table, out):
    """Write the entry of `table` for each of the rows `codes` (h, n) into the rows `out` (h, n)."""
    for y in range(codes.shape[0]):
        for x in range(codes.shape[1]):
            out[y, x] = table[codes[y, x]]


@njit(nogil=True)
def _quantise(light, bits, thresholds, guess, lowest_bin, strides, out):
    """Write into `out` (n,) the largest code whose threshold `light` (n,) reaches; `bits` is its int32 view."""
    last_bin = guess.size - 1
    for i in range(light.size):
        # Negative floats are negative integers, too, so that this clips the light at both ends.
        code = np.int64(guess[min(max((bits[i] >> _BIN_SHIFT) - lowest_bin, 0), last_bin)])
        for stride in strides:
            code += stride * (light[i] >= thresholds[code + stride])
        out[i] = code
