"""Random numbers that depend on what they are for, never on when they are drawn."""

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
        What the numbers are for, such as ``("a/b.jpg", 3, "kernel")``. Equal keys give equal numbers;
        ``1`` and ``"1"`` are different keys.

    Notes
    -----
    The bit generator is SFC64, numpy's fastest, seeded with BLAKE2b of the seed and the keys.

    Examples
    --------
    >>> float(stream(0, "example").random()) == float(stream(0, "example").random())
    True
    """
    digest = blake2b(repr((seed, keys)).encode("utf-8", "surrogateescape"), digest_size=64).digest()
    return np.random.Generator(np.random.SFC64(_Words(np.frombuffer(digest, np.uint64))))
