"""Tables between integer codes and linear light: fast both ways, and exactly rounded."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from blurgen.jit import njit
from blurgen.simd import Vectors, unpacked

LEVELS = {np.dtype(np.uint8): 256, np.dtype(np.uint16): 65536}

Curve = Callable[[np.ndarray], np.ndarray]

# Floats that agree in exponent and the first 8 bits of the mantissa share a bin: 256 bins an octave, so that
# hardly any bin holds more than one threshold of an 8-bit code.
_SHIFT = 15
_WITHIN = (1 << _SHIFT) - 1
_LANES = 16


@dataclass(frozen=True)
class Codes:
    """A response curve at one bit depth: the light of each code, and the way back.

    Non-negative floats are ordered as their bits are, so light is looked up by its bits, in bins.

    Fields
    ------
    light : (levels,) float32
        The light of each code.
    thresholds : (levels + 1,) float32
        The least light that rounds to each code, then infinity.
    low, high : int32
        Float bits below and above which there is but one code.
    first : (bins + 1,) int64
        The code at the lower end of each bin.
    carry : (bins,) uint32 or None
        ``first`` in the upper half, and in the lower half what the position within the bin overflows by from the one
        threshold of the bin on. None where some bin has several.
    """

    light: np.ndarray
    thresholds: np.ndarray
    low: np.int32
    high: np.int32
    first: np.ndarray
    carry: np.ndarray | None

    @classmethod
    def of(cls, decode: Curve, encode: Curve, dtype: np.dtype) -> "Codes":
        """Return the tables of a curve: `decode` from encoded values in [0, 1] to light in [0, 1], `encode` back.

        Raises
        ------
        ValueError
            Neighbouring codes have the same light in float32.
        """
        levels = LEVELS[dtype]
        light = decode(np.arange(levels) / (levels - 1)).astype(np.float32)
        thresholds = _least_light(encode, levels)
        if not ((thresholds <= light).all() and (light[:-1] < thresholds[1:]).all()):
            raise ValueError(f"the response is too steep or too flat to tell its {levels} levels apart")
        bits = thresholds.view(np.int32)
        bins = np.arange((bits[1] >> _SHIFT) - 1, (bits[-1] >> _SHIFT) + 2, dtype=np.int32) << _SHIFT
        first = np.searchsorted(bits, bins, side="right") - 1
        return cls(
            light, np.append(thresholds, np.float32(np.inf)), bins[0], bits[-1], first, _carry(bits, bins, first)
        )

    def quantise(self, light: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return the code of each light as `dtype`, clipped to [0, 1] and rounded, halves up."""
        light = np.ascontiguousarray(light, np.float32)
        out = np.empty(light.shape, dtype)
        bits = light.reshape(-1).view(np.int32)
        if self.carry is not None and bits.size >= _LANES:
            _quantise(bits, self.low, self.high, self.carry, out.reshape(-1))
        else:
            _quantise_densely(bits, self.low, self.high, self.first, self.thresholds.view(np.int32), out.reshape(-1))
        return out


def _least_light(encode: Curve, levels: int) -> np.ndarray:
    """Return for each code the least float32 light that rounds to it, halves up: (levels,) float32, from 0 to ≤ 1."""
    codes = np.arange(levels)
    low = np.zeros(levels, np.int32)
    high = np.full(levels, np.float32(1).view(np.int32))
    while (low < high).any():
        middle = (low + high) // 2
        encoded = encode(middle.view(np.float32).astype(np.float64))
        reached = np.floor(encoded * (levels - 1) + 0.5) >= codes
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return low.view(np.float32)


def _carry(bits: np.ndarray, bins: np.ndarray, first: np.ndarray) -> np.ndarray | None:
    steps = np.diff(first)
    if steps.max() > 1:
        return None
    overflow = np.where(steps == 1, (1 << 16) - (bits[first[1:]] - bins[:-1]), 0)
    return ((first[:-1] << 16) + overflow).astype(np.uint32)


@njit(nogil=True)
def look_up(codes, table, out):
    """Write the entry of `table` for each of the rows `codes` (h, n) into the rows `out` (h, n)."""
    for y in range(codes.shape[0]):
        for x in range(codes.shape[1]):
            out[y, x] = table[codes[y, x]]


@njit(nogil=True)
def _quantise(bits, low, high, carry, out):
    """Write the codes of the floats with these `bits` (n,), n ≥ 16: one look-up and one addition each."""
    for start in range(0, bits.size, _LANES):
        _write_codes(bits, min(start, bits.size - _LANES), low, high, carry, out)  # the last ones overlap


def _write_codes(bits, at, low, high, carry, out):
    """Write 16 codes: the plain form of `_emit_codes`."""
    # Negative floats are negative integers, too, so that this clips the light at both ends.
    above = np.clip(bits[at : at + _LANES], low, high) - low
    out[at : at + _LANES] = (carry[above >> _SHIFT] + (above & _WITHIN)) >> 16


@overload(_write_codes, inline="always")
def _write_codes_fast(bits, at, low, high, carry, out):
    def write(bits, at, low, high, carry, out):
        _emit_codes(bits, at, low, high, carry, out)

    return write


@intrinsic
def _emit_codes(typing_context, bits, at, low, high, carry, out):
    def codegen(context, builder, signature, args):
        bits, at, low, high, carry, out = unpacked(context, builder, signature, args)
        vectors = Vectors(builder, _LANES)

        def constant(value):
            return vectors.constant(ir.IntType(32), value)

        low, high, light = vectors.broadcast(low), vectors.broadcast(high), vectors.load(bits, at)
        light = builder.select(builder.icmp_signed("<", light, low), low, light)
        light = builder.select(builder.icmp_signed(">", light, high), high, light)
        above = builder.sub(light, low)
        carried = vectors.gather(carry, builder.lshr(above, constant(_SHIFT)))
        codes = builder.lshr(builder.add(carried, builder.and_(above, constant(_WITHIN))), constant(16))
        vectors.store(builder.trunc(codes, ir.VectorType(out.type.pointee, _LANES)), out, at)
        return context.get_dummy_value()

    return types.void(bits, at, low, high, carry, out), codegen


@njit(nogil=True)
def _quantise_densely(bits, low, high, first, thresholds, out):
    """Write the codes of the floats with these `bits` (n,), where a bin has many: interpolate, then search on."""
    for i in range(bits.size):
        light = min(max(bits[i], low), high)
        at = (light - low) >> _SHIFT
        code = first[at] + ((first[at + 1] - first[at]) * ((light - low) & _WITHIN) >> _SHIFT)
        while light < thresholds[code]:
            code -= 1
        while light >= thresholds[code + 1]:
            code += 1
        out[i] = code
