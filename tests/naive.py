"""Slow and obvious re-implementations of trajectories and kernels, in plain Python, sharing no code with blurgen."""

import cmath
import itertools
import math

import numpy as np

WORD = 2**64


def key_of(word_1, word_2):
    """Return a key from two uniform numbers."""
    return (int(word_1 * 2**53) * 2**11 % WORD) ^ int(word_2 * 2**53)


def word(key, index):
    """Return number `index` of a key: an output of SplitMix64."""
    z = (key + 0x9E3779B97F4A7C15 * index) % WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def uniform(key, index):
    return (word(key, index) >> 11) / 2**53


def normal_pair(key, step):
    """Return two independent standard normal numbers as one complex number."""
    upper, lower = divmod(word(key, step), 2**32)
    return cmath.rect(math.sqrt(-2 * math.log((upper + 0.5) / 2**32)), 2 * math.pi * lower / 2**32)


def shake_factors(key, rate, samples):
    """Return {step: factor on the velocity} of the abrupt shakes, one trial a step by its geometric waiting time."""
    factors, step, number = {}, 0, samples
    while rate > 0:
        chance = uniform(key, number)
        step += int(min(samples, math.log(1 - chance) / math.log(1 - rate))) if rate < 1 else 0
        if step >= samples - 1:
            break
        angle = uniform(key, number + 1) - 0.5
        factors[step] = 1 + 2 * cmath.exp(1j * (math.pi + angle))
        step, number = step + 1, number + 2
    return factors


def walk_path(rng, samples, length_px, anxiety=None, gaussian=None, centripetal=None, shake_rate=None):
    """Return the trajectory of Boracchi and Foi as complex numbers, from the recurrence in velocities."""
    of_a, of_c, of_g, of_p, of_theta, _, word_1, word_2 = (float(number) for number in rng.random(8))
    a = 0.1 * of_a if anxiety is None else anxiety
    c = 0.7 * of_c if centripetal is None else centripetal
    g = 10 * of_g if gaussian is None else gaussian
    p = 0.2 * of_p if shake_rate is None else shake_rate
    key = key_of(word_1, word_2)
    s = length_px / (samples - 1)
    shakes = shake_factors(key, p * a, samples)
    x, v = [0j], cmath.rect(a if a > 0 else s, 2 * math.pi * of_theta)
    for t in range(samples - 1):
        d = v * (shakes[t] - 1) if t in shakes else 0
        v = v + d + a * (g * normal_pair(key, t) - c * x[-1]) * s
        v *= s / abs(v)
        x.append(x[-1] + v)
    return x


def smooth_walk_path(rng, samples, length_px, persistence_px, shakes, pull):
    """Return the trajectory of the resolution-invariant model as complex numbers, from its unit heading."""
    *_, of_theta, word_1, word_2 = (float(number) for number in rng.random(7))
    key = key_of(word_1, word_2)
    s = length_px / (samples - 1)
    kick = math.sqrt(2 * (s / persistence_px) / (1 + 2 * s / persistence_px))
    factors = shake_factors(key, shakes / (samples - 1), samples)
    x, h = [0j], cmath.rect(1, 2 * math.pi * of_theta)
    for t in range(samples - 1):
        h = h * factors.get(t, 1) + kick * normal_pair(key, t) - pull * s * x[-1]
        h /= abs(h)
        x.append(x[-1] + s * h)
    return x


def triangle(d):
    return max(0.0, 1 - abs(d))


def kernel(path, weights, centre, half):
    """Return {(dy, dx): mass} of a path of (x, y): Simpson's rule, exact between crossings of the pixel grid."""
    mass, total = {}, sum(weights)
    for (x0, y0), (x1, y1), weight in zip(path[:-1], path[1:], weights, strict=True):
        x0, x1, y0, y1 = x0 - centre[0], x1 - centre[0], y0 - centre[1], y1 - centre[1]
        cuts = {0.0, 1.0}
        for start, end in ((x0, x1), (y0, y1)):
            if start != end:
                cuts |= {(line - start) / (end - start) for line in range(-half - 2, half + 3)}
        cuts = sorted(cut for cut in cuts if 0 <= cut <= 1)
        for t0, t1 in itertools.pairwise(cuts):
            middle = (t0 + t1) / 2
            column, row = math.floor(x0 + middle * (x1 - x0)), math.floor(y0 + middle * (y1 - y0))
            for i in (row, row + 1):
                for j in (column, column + 1):
                    values = [
                        triangle(x0 + t * (x1 - x0) - j) * triangle(y0 + t * (y1 - y0) - i) for t in (t0, middle, t1)
                    ]
                    simpson = (values[0] + 4 * values[1] + values[2]) / 6
                    mass[i, j] = mass.get((i, j), 0.0) + weight / total * (t1 - t0) * simpson
    return mass


def exposed(path, weights, start, end):
    """Return the path and the weights between two fractions of the whole time."""
    total, clock = sum(weights), 0.0
    points, spent = [], []
    for p, q, weight in zip(path[:-1], path[1:], weights, strict=True):
        t0, t1 = clock, clock + weight / total
        lo, hi = max(t0, start), min(t1, end)
        if hi > lo:
            for t in (lo, hi):
                part = (t - t0) / (t1 - t0)
                points.append((p[0] + part * (q[0] - p[0]), p[1] + part * (q[1] - p[1])))
            spent += [hi - lo, 0.0]
        clock = t1
    return points, spent[:-1]


def moments(kernel):
    """Return the sum, the barycentre (x, y) and the standard deviations (minor, major) of a kernel, in px."""
    half = len(kernel) // 2
    cells = [
        (float(value), column - half, row - half)
        for row, line in enumerate(kernel)
        for column, value in enumerate(line)
        if value
    ]
    total = math.fsum(value for value, _, _ in cells)
    x = math.fsum(value * column for value, column, _ in cells) / total
    y = math.fsum(value * row for value, _, row in cells) / total
    xx = math.fsum(value * (column - x) ** 2 for value, column, _ in cells) / total
    yy = math.fsum(value * (row - y) ** 2 for value, _, row in cells) / total
    xy = math.fsum(value * (column - x) * (row - y) for value, column, row in cells) / total
    root = math.hypot((xx - yy) / 2, xy)
    return total, (x, y), (math.sqrt(max((xx + yy) / 2 - root, 0)), math.sqrt((xx + yy) / 2 + root))


def matern(distance: np.ndarray, nu: float) -> np.ndarray:
    """Return the Matérn covariance, 1 at distance 0, of `distance` in units of the length scale; nu is 1.5 or 2.5."""
    r = math.sqrt(2 * nu) * np.abs(distance)
    return (1 + r) * np.exp(-r) if nu == 1.5 else (1 + r + r**2 / 3) * np.exp(-r)
