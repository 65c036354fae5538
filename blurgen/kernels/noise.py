"""Random numbers by counting: number i of a key is a hash of (key, i), computed alone and in any order.

A loop over i has no state to wait for, so the compiler turns it into vector instructions. Only exactly rounded
operations are used, so that every machine computes the same bits; the logarithm and the sine are therefore here.
"""

import numpy as np

from blurgen.jit import njit

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31, _52 = (np.uint64(shift) for shift in (11, 27, 30, 31, 52))
_SQRT_HALF_BITS = np.uint64(0x3FE6A09E667F3BCD)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


@njit
def key_word(fraction):
    """Return 53 bits of a key as uint64 from a uniform number in [0, 1)."""
    return np.uint64(fraction * 9007199254740992.0)


@njit
def uniform(key_1, key_2, index):
    """Return number `index` of the key, a float64 multiple of 2**-53 in [0, 1).

    The two words of the key and the index are uint64. The hash is the finaliser of SplitMix64 on a Weyl sequence
    that starts at `key_1`; `key_2` enters half-way, so that keys whose sequences overlap still differ.

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014, fig. 14 and variant 13 of
    Stafford's mixers.
    """
    z = key_1 + _GAMMA * index
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27) ^ key_2) * _MIX_2
    return np.float64((z ^ (z >> _31)) >> _11) * 2.0**-53


@njit(error_model="numpy")
def log(x):
    """Return the natural logarithm of a positive, normal x within 1 ulp.

    x = 2**e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), and log(1 + f) = 2 atanh(s) with s = f / (2 + f).

    References
    ----------
    The polynomial is that of fdlibm's e_log.c (Sun Microsystems, 1993).
    """
    bits = np.float64(x).view(np.uint64)
    e = np.int64(bits - _SQRT_HALF_BITS) >> 52
    f = np.uint64(bits - (np.uint64(e) << _52)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    tail = 1.818357216161805012e-01 + z * (1.531383769920937332e-01 + z * 1.479819860511658591e-01)
    tail = 2.857142874366239149e-01 + z * (2.222219843214978396e-01 + z * tail)
    tail = z * (6.666666666666735130e-01 + z * (3.999999999940941908e-01 + z * tail))
    half_square = 0.5 * f * f
    return e * _LN2_HIGH - ((half_square - (s * (half_square + tail) + e * _LN2_LOW)) - f)


@njit
def cos_sin(turns):
    """Return the cosine and the sine of 2 pi `turns` within 1e-15, for any turns that are small beside 2**50.

    References
    ----------
    The polynomials on [-pi/4, pi/4] are those of fdlibm's k_cos.c and k_sin.c (Sun Microsystems, 1993).
    """
    quarter = np.floor(4.0 * turns + 0.5)
    angle = (4.0 * turns - quarter) * 1.5707963267948966
    z = angle * angle
    tail = 2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
    tail = -1.66666666666666324348e-01 + z * (8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * tail))
    sine = angle + angle * z * tail
    tail = -2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
    tail = -1.38888888888741095749e-03 + z * (2.48015872894767294178e-05 + z * tail)
    cosine = 1.0 - 0.5 * z + z * z * (4.16666666666666019037e-02 + z * tail)
    k = np.int64(quarter)
    along, across = (sine, cosine) if k & 1 else (cosine, sine)
    return (-along if (k + 1) & 2 else along), (-across if k & 2 else across)


@njit(error_model="numpy")
def fill_normals(key_1, key_2, scale, pairs):
    """Fill `pairs` (n, 2) with independent N(0, scale**2), pair t from the numbers 2t and 2t + 1 of the key.

    References
    ----------
    Box and Muller, Annals of Mathematical Statistics 29(2), 1958.
    """
    for t in range(pairs.shape[0]):
        index = np.uint64(2) * np.uint64(t)
        radius = scale * np.sqrt(-2.0 * log(uniform(key_1, key_2, index) + 2.0**-53))
        cosine, sine = cos_sin(uniform(key_1, key_2, index + np.uint64(1)))
        pairs[t, 0] = radius * cosine
        pairs[t, 1] = radius * sine
