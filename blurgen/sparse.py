"""Convolution with a kernel of few non-zeros, near the peak of the core's multiply-adds.

The pixels of 8 rows times 16 columns stay in registers while all taps pass by. Taps that lie below each other in the
kernel read the same pixels for neighbouring rows, so a run of n of them costs n + 7 loads for 8 n multiply-adds; a
camera's trajectory is a connected curve, so its kernel falls into runs of 2 to 4. All pixels see the same
operations in the same order, wherever they lie and however large the image is.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from blurgen.jit import njit
from blurgen.simd import Vectors, unpacked

_ROWS = 8  # of a block: as many accumulators as hide the latency of a multiply-add
_LANES = 16  # float32 of an accumulator: one AVX-512 register, two of AVX2
_LONGEST_RUN = 4
_TILE = 48 * _LANES  # columns of a strip whose rows stay in the L2 cache while the kernel slides over them


def correlate_sparse(source: np.ndarray, origin: int, taps: np.ndarray, channels: int, out: np.ndarray) -> None:
    """Write into `out` the sums of `taps` times the source, taps not flipped.

    Parameters
    ----------
    source : (rows, stride) float32, C-contiguous
        Interleaved rows of pixels.
    origin : int
        Offset in the flattened source of the pixel under the first tap of the first output pixel.
    taps : (a, b) float32
        Mostly zeros.
    channels : int
        Samples per pixel.
    out : (height, width * channels) float32, C-contiguous
        The source must reach a - 1 rows and b - 1 pixels further.
    """
    height, width = out.shape
    if height < _ROWS or width < _LANES:
        return _correlate_small(source, origin, taps, channels, out)
    _correlate(source.reshape(-1), origin, source.shape[1], taps, channels, out.reshape(-1), height, width)


def _correlate_small(source, origin, taps, channels, out):
    """Widen an output that is smaller than a block by pixels that nobody looks at."""
    height, width = out.shape
    rows, columns = taps.shape[0] - 1 + height, (taps.shape[1] - 1) * channels + width
    y, x = divmod(origin, source.shape[1])
    more_rows, more_columns = max(_ROWS - height, 0), max(_LANES - width, 0)
    widened = np.pad(source[y : y + rows, x : x + columns], ((0, more_rows), (0, more_columns)))
    block = np.empty((height + more_rows, width + more_columns), np.float32)
    correlate_sparse(widened, 0, taps, channels, block)
    out[:] = block[:height, :width]


@njit(nogil=True)
def _correlate(source, origin, stride, taps, channels, out, height, width):
    starts, weights, ends = _runs(taps, stride, channels)
    # The last block of a row or column overlaps the one before it: the same pixels come out the same twice.
    for strip in range(0, width, _TILE):
        for top in range(0, height, _ROWS):
            y = min(top, height - _ROWS)
            for left in range(strip, min(strip + _TILE, width), _LANES):
                x = min(left, width - _LANES)
                at, out_at = origin + y * stride + x, y * width + x
                _write_block(source, at, stride, starts, weights, ends, out, out_at, width)


@njit(nogil=True)
def _runs(taps, stride, channels):
    """Return a kernel as vertical runs of non-zeros, the long ones cut into nearly equal parts, sorted by length.

    They are the offsets (m,) int64 of the first taps in the flattened source, the values (nnz,) float32 of the taps,
    run after run, and how many runs have no more than 0, 1, … 4 taps (5,) int64.
    """
    most = np.count_nonzero(taps)
    starts = np.empty((_LONGEST_RUN + 1, most), np.int64)
    weights = np.empty((_LONGEST_RUN + 1, most), np.float32)
    count = np.zeros(_LONGEST_RUN + 1, np.int64)
    for x in range(taps.shape[1]):
        end = 0
        for y in range(taps.shape[0]):
            if y < end or taps[y, x] == 0:
                continue
            end = y + 1
            while end < taps.shape[0] and taps[end, x] != 0:
                end += 1
            first = y
            while first < end:
                length = (end - first) // -(-(end - first) // _LONGEST_RUN)
                i = count[length]
                starts[length, i] = first * stride + x * channels
                weights[length, i * length : (i + 1) * length] = taps[first : first + length, x]
                count[length] += 1
                first += length
    return _joined(starts, weights, count)


@njit(nogil=True)
def _joined(starts, weights, count):
    """Return the filled parts of the rows of `starts` and `weights` behind each other."""
    ends = np.cumsum(count)
    all_starts = np.empty(ends[-1], np.int64)
    all_weights = np.empty(weights.shape[1], np.float32)
    tap = 0
    for length in range(1, count.size):
        n = count[length]
        all_starts[ends[length] - n : ends[length]] = starts[length, :n]
        all_weights[tap : tap + n * length] = weights[length, : n * length]
        tap += n * length
    return all_starts, all_weights, ends


def _write_block(source, at, stride, starts, weights, ends, out, out_at, out_stride):
    """Write one block of the output: the plain form of what `_emit_block` compiles to vector instructions."""
    sums = np.zeros((_ROWS, _LANES), np.float32)
    tap = 0
    for length in range(1, _LONGEST_RUN + 1):
        for start in starts[ends[length - 1] : ends[length]]:
            for t in range(length):
                for row in range(_ROWS):
                    pixel = at + start + (t + row) * stride
                    sums[row] += weights[tap + t] * source[pixel : pixel + _LANES]
            tap += length
    for row in range(_ROWS):
        pixel = out_at + row * out_stride
        out[pixel : pixel + _LANES] = sums[row]


@overload(_write_block, inline="always")
def _write_block_fast(source, at, stride, starts, weights, ends, out, out_at, out_stride):
    def write(source, at, stride, starts, weights, ends, out, out_at, out_stride):
        _emit_block(source, at, stride, starts, weights, ends, out, out_at, out_stride)

    return write


@intrinsic
def _emit_block(typing_context, source, at, stride, starts, weights, ends, out, out_at, out_stride):
    signature = types.void(source, at, stride, starts, weights, ends, out, out_at, out_stride)

    def codegen(context, builder, signature, args):
        source, at, stride, starts, weights, ends, out, out_at, out_stride = unpacked(context, builder, signature, args)
        block = _Block(builder, builder.gep(source, [at]), stride)
        block.add_runs(starts, weights, ends)
        block.store(builder.gep(out, [out_at]), out_stride)
        return context.get_dummy_value()

    return signature, codegen


class _Block:
    """Emits the instructions for one block: its accumulators, and what is added to them."""

    def __init__(self, builder: ir.IRBuilder, source: ir.Value, stride: ir.Value):
        self.builder, self.source = builder, source
        self.vectors = Vectors(builder, _LANES)
        self.index = stride.type
        self.row_offsets = [builder.mul(stride, self.index(row)) for row in range(_ROWS + _LONGEST_RUN - 1)]
        zeros = self.vectors.constant(ir.FloatType(), 0.0)
        self.sums = [cgutils.alloca_once_value(builder, zeros) for _ in range(_ROWS)]

    def add_runs(self, starts: ir.Value, weights: ir.Value, ends: ir.Value) -> None:
        builder = self.builder
        for length in range(1, _LONGEST_RUN + 1):
            first, end = (builder.load(builder.gep(ends, [self.index(i)])) for i in (length - 1, length))
            with cgutils.for_range_slice(builder, first, end, self.index(1), self.index) as (run, nth):
                pixel = builder.gep(self.source, [builder.load(builder.gep(starts, [run]))])
                self._add_run(pixel, builder.gep(weights, [builder.mul(nth, self.index(length))]), length)
            weights = builder.gep(weights, [builder.mul(builder.sub(end, first), self.index(length))])

    def _add_run(self, pixel: ir.Value, weights: ir.Value, length: int) -> None:
        builder = self.builder
        factors = [builder.load(builder.gep(weights, [self.index(t)])) for t in range(length)]
        factors = [self.vectors.broadcast(factor) for factor in factors]
        sums = [builder.load(total) for total in self.sums]
        for source_row in range(_ROWS + length - 1):
            pixels = self.vectors.load(pixel, self.row_offsets[source_row])
            for t in range(max(0, source_row - _ROWS + 1), min(length, source_row + 1)):
                # "contract" allows to fuse the two; all pixels go through these same instructions.
                product = builder.fmul(pixels, factors[t], flags=("contract",))
                sums[source_row - t] = builder.fadd(product, sums[source_row - t], flags=("contract",))
        for total, slot in zip(sums, self.sums, strict=True):
            builder.store(total, slot)

    def store(self, out: ir.Value, stride: ir.Value) -> None:
        for row, total in enumerate(self.sums):
            self.vectors.store(self.builder.load(total), out, self.builder.mul(stride, self.index(row)))
