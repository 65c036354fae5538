"""The streams of random numbers: their bytes are fixed, and depend on the value of a key, not on its type."""

import enum

import numpy as np
import pytest

from blurgen.rng import stream


class Purpose(enum.StrEnum):
    KERNEL = "kernel"


def first_word(*keys):
    return int(stream(*keys).bit_generator.random_raw())


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ((0,), 0xBF92570F1B696738),
        ((3, "a/b.jpg", 2, "kernel"), 0x4FA715A793EDF902),
        ((-1, "l\u00e9vin \udcff", 2**70), 0x3B8DF30A1E784AA3),
    ],
)
def test_stream_keeps_its_bytes(keys, word):
    assert first_word(*keys) == word


@pytest.mark.parametrize(
    ("keys", "plain"),
    [
        ((np.int64(3), "a"), (3, "a")),
        ((np.uint8(3), np.int32(7)), (3, 7)),
        ((3, np.str_("a")), (3, "a")),
        ((3, Purpose.KERNEL), (3, "kernel")),
        ((np.array(3), True), (3, 1)),
    ],
)
def test_stream_knows_equal_keys_of_any_type(keys, plain):
    assert first_word(*keys) == first_word(*plain)


def test_stream_tells_keys_apart():
    keys = [(0,), (1,), (0, 1), (0, "1"), (0, ""), (0, 1, 1), (0, "1, 1"), (0, "1", "1")]
    assert len({first_word(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((1.0,), "the seed of a stream must be a whole number, got 1.0 of type float"),
        (("1",), "the seed of a stream must be a whole number, got '1' of type str"),
        ((None,), "got None of type NoneType"),
        ((0, 1.0), "a key of a stream must be a whole number or str, got 1.0 of type float"),
        ((0, ("a", 1)), "of type tuple; convert it first"),
        ((0, b"a"), "of type bytes"),
    ],
)
def test_stream_refuses(keys, message):
    with pytest.raises(TypeError, match=message):
        stream(*keys)
