"""Random numbers by counting: number i of a key is a hash of (key, i), computed alone and in any order.

A loop over i has no state to wait for, so the compiler turns it into vector instructions. Only exactly rounded
operations are used, so that every machine computes the same bits; the logarithm and the sine are therefore here.
"""

import numpy as np

from blurgen.jit import njit

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31, _32, _52 = (np.uint64(shift) for shift in (11, 27, 30, 31, 32, 52))
_LOW_HALF = np.uint64(0xFFFFFFFF)
_SQRT_HALF_BITS = np.uint64(0x3FE6A09E667F3BCD)


@njit
def key_of(word_1, word_2):
    """Return a key of 64 bits from two uniform numbers in [0, 1), multiples of 2**-53."""
    return (np.uint64(word_1 * 2.0**53) << _11) ^ np.uint64(word_2 * 2.0**53)


@njit
def word(key, index):
    """Return 64 random bits: number `index` of a key, all uint64.

    It is that output of SplitMix64 with the seed `key`. Two random keys among a million give sequences of 2,000
    words that overlap with a probability of 1e-4.

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014, section 3; the multipliers are
    variant 13 of Stafford's mixers.
    """
    z = key + _GAMMA * index
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


@njit
def uniform(key, index):
    """Return number `index` of a key as float64: a multiple of 2**-53 in [0, 1)."""
    return np.float64(word(key, index) >> _11) * 2.0**-53


@njit(error_model="numpy")
def log(x):
    """Return the natural logarithm of a positive, normal x within 1e-15 of its value.

    x = 2**e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), and log(1 + f) = 2 atanh(s), s = f / (2 + f). The polynomial
    in s**2 was interpolated at Chebyshev nodes.
    """
    bits = np.float64(x).view(np.uint64)
    e = np.int64(bits - _SQRT_HALF_BITS) >> 52
    f = np.uint64(bits - (np.uint64(e) << _52)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    tail = 0.18182889125261723 + z * (0.15331721600556042 + z * 0.14616449685043406)
    tail = 0.39999999999899505 + z * (0.28571428625975487 + z * (0.2222221113479508 + z * tail))
    tail = 0.666666666666667 + z * tail
    return e * 0.6931471805599453 + (2.0 * s + s * z * tail)


@njit
def cos_sin(turns):
    """Return the cosine and the sine of 2 pi `turns` within 1e-14 for turns in [-2, 2].

    They are doubled twice from those of a quarter of the angle, pi r / 2 with r in [-1/2, 1/2]. The polynomials in
    r**2 of sin(pi r / 2) / r and (cos(pi r / 2) - 1) / r**2 were interpolated at Chebyshev nodes.
    """
    r = turns - np.floor(turns + 0.5)
    z = r * r
    tail = 0.0001604411507421909 + z * (-3.59864335298231e-06 + z * 5.633933781537854e-08)
    tail = -0.6459640975062443 + z * (0.07969262624604301 + z * (-0.004681754132340976 + z * tail))
    sine = r * (1.5707963267948966 + z * tail)
    tail = -2.5202039028029178e-05 + z * (4.710678405505227e-07 + z * -6.329396344967424e-09)
    tail = 0.2536695079010478 + z * (-0.020863480763340773 + z * (0.0009192602745468447 + z * tail))
    cosine = 1.0 + z * (-1.2337005501361697 + z * tail)
    sine_2, cosine_2 = 2.0 * sine * cosine, 1.0 - 2.0 * sine * sine
    return 2.0 * cosine_2 * cosine_2 - 1.0, 2.0 * sine_2 * cosine_2


@njit(error_model="numpy")
def fill_normals(key, scale, first, second):
    """Fill `first` and `second` (n,) with independent N(0, scale**2), pair t from word t of the key.

    The upper half of the word gives the radius, at most 6.8 standard deviations, the lower half the angle.

    References
    ----------
    Box, Muller: A note on the generation of random normal deviates, Annals of Mathematical Statistics 29(2), 1958.
    """
    for t in range(first.shape[0]):
        bits = word(key, np.uint64(t))
        radius = scale * np.sqrt(-2.0 * log((np.float64(bits >> _32) + 0.5) * 2.0**-32))
        cosine, sine = cos_sin(np.float64(bits & _LOW_HALF) * 2.0**-32)
        first[t] = radius * cosine
        second[t] = radius * sine
