"""Random numbers that depend on what they are for, never on when they are drawn."""

import operator
from hashlib import blake2b

import numpy as np


class _Words(np.random.bit_generator.ISeedSequence):
    """Seed material that is hashed already, handed to a bit generator as it is."""

    def __init__(self, words: np.ndarray):
        self._words = words

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        return self._words.view(dtype)[:n_words]


def stream(seed: int, *keys: int | str) -> np.random.Generator:
    """Return an independent generator for one purpose of one sample.

    Parameters
    ----------
    seed : int
        The seed of the whole run.
    keys : int or str
        What the numbers are for, such as ``("a/b.jpg", 3, "kernel")``. Equal keys give equal numbers, whether
        they are Python's or NumPy's; ``1`` and ``"1"`` are different keys.

    Raises
    ------
    TypeError
        If the seed is no whole number, or a key neither that nor a string.

    Notes
    -----
    The bit generator is SFC64, numpy's fastest, seeded with BLAKE2b of the seed and the keys.

    Examples
    --------
    >>> float(stream(0, "example").random()) == float(stream(0, "example").random())
    True
    """
    if type(seed) is not int:
        seed = _index(seed, "the seed of a stream must be a whole number")
    keys = tuple([key if type(key) is str or type(key) is int else _plain(key) for key in keys])
    digest = blake2b(repr((seed, keys)).encode("utf-8", "surrogateescape"), digest_size=64).digest()
    return np.random.Generator(np.random.SFC64(_Words(np.frombuffer(digest, np.uint64))))


def _plain(key: object) -> int | str:
    """Return a key whose repr is the same for every version of NumPy."""
    return str.__str__(key) if isinstance(key, str) else _index(key, "a key of a stream must be a whole number or str")


def _index(number: object, rule: str) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{rule}, got {number!r} of type {type(number).__name__}; convert it first") from None
