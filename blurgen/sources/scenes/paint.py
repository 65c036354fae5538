"""Painting leaves from front to back: coverage, surface, light and shadow of each, in compiled code."""

import numpy as np

from blurgen.jit import njit
from blurgen.sources.scenes.materials import (
    BLOB,
    BOX,
    BRICKS,
    ELLIPSE,
    LENS,
    PLAIN,
    POLYGON,
    SMOOTH,
    STRIPES,
    TWIG,
)

# One leaf. Lengths are in pixels; colours are linear light.
LEAF = np.dtype(
    [
        ("x", "f4"),  # centre
        ("y", "f4"),
        ("radius", "f4"),  # along its own axis
        ("aspect", "f4"),  # radius across, relative to that
        ("cos", "f4"),  # direction of its axis
        ("sin", "f4"),
        ("shape", "i4"),
        ("softness", "f4"),  # width of its edge
        ("surface", "i4"),
        ("contrast", "f4"),
        ("grain", "f4"),  # wavelength of stripes, height of bricks, texels per pixel of noise
        ("u", "f4"),  # where its surface begins
        ("v", "f4"),
        ("roundness", "f4"),
        ("shadow", "f4"),  # share of light that its shadow takes
        ("drop", "f4"),  # distance of its shadow
        ("colour", "f4", (3,)),
        ("other", "f4", (3,)),  # the second colour of its surface
    ]
)
_HARMONICS = 4  # that give a blob its outline
_LEAST_LIGHT = 0.12  # reaches even the deepest shadow
_OPAQUE = 1 / 512  # clearness at which a pixel needs no more paint


@njit
def _distance(leaf, outline, u, v):
    """Return how far (u, v) is from the edge, negative inside, to first order; all in radii along the axes."""
    shape, across = leaf["shape"], leaf["aspect"]
    if shape == ELLIPSE:
        stretch = 1 / across
        w = v * stretch
        k = np.sqrt(u * u + w * w) + 1e-6
        return (k - 1) * k / np.sqrt(u * u + (w * stretch) ** 2 + 1e-12)
    if shape in (BOX, TWIG):
        corner = 0.25 * across
        du, dv = abs(u) - 1 + corner, abs(v) - across + corner
        if du < 0 or dv < 0:
            return max(du, dv) - corner
        return np.sqrt(du * du + dv * dv) - corner
    if shape == LENS:
        return (abs(v) - across * (1 - u * u)) / np.sqrt(1 + (2 * across * u) ** 2)
    rho = np.sqrt(u * u + v * v) + 1e-6
    if shape == POLYGON:
        d = rho - 1
        for edge in range(outline.shape[0]):
            d = max(d, outline[edge, 0] * u + outline[edge, 1] * v - outline[edge, 2])
        return d
    inverse = 1 / rho
    c, s = u * inverse, v * inverse
    ck, sk, bulge = c, s, 0.0
    for harmonic in range(_HARMONICS):
        ck, sk = ck * c - sk * s, sk * c + ck * s
        bulge += outline[harmonic, 0] * ck + outline[harmonic, 1] * sk
    return rho - 0.8 - bulge


@njit
def _texel(tile, u, v):
    """Return a periodic tile (n, n), n a power of two, at a fractional place."""
    n = tile.shape[0] - 1
    fu, fv = np.floor(u), np.floor(v)
    i, j, a, b = int(fv), int(fu), v - fv, u - fu
    upper = tile[i & n, j & n] * (1 - b) + tile[i & n, (j + 1) & n] * b
    lower = tile[(i + 1) & n, j & n] * (1 - b) + tile[(i + 1) & n, (j + 1) & n] * b
    return upper * (1 - a) + lower * a


@njit
def _surface(leaf, tiles, u, v):
    """Return where between its two colours a leaf is at (u, v): -1 to 1."""
    kind, grain = leaf["surface"], leaf["grain"]
    if kind == PLAIN:
        return 0.25 * u / leaf["radius"]
    if kind == STRIPES:
        wobble = 2 * _texel(tiles[0], u * 0.3 + leaf["u"], v * 0.3 + leaf["v"])
        wave = np.sin(2 * np.pi * (v + wobble) / grain)
        return min(1.0, max(-1.0, wave * max(1.0, 0.25 * grain)))
    if kind == BRICKS:
        course = np.floor(v / grain)
        along = u / (2.4 * grain) + 0.5 * (int(course) & 1)
        stone = np.floor(along)
        to_joint = grain * min(0.5 - abs(v / grain - course - 0.5), 2.4 * (0.5 - abs(along - stone - 0.5)))
        tint = _texel(tiles[1], stone * 7.3 + leaf["u"], course * 11.7 + leaf["v"])
        return tint + (1 - tint) * min(1.0, max(0.0, 1.5 - to_joint))
    return _texel(tiles[0 if kind == SMOOTH else 1], u * grain + leaf["u"], v * grain + leaf["v"])


@njit
def _paint_pixel(linear, clear, lit, leaf, tiles, y, x, u, v, coverage, facing):
    """Lay one leaf over one pixel, behind all that is there already; (u, v) is the pixel along its axes, in px."""
    share = 0.5 + 0.5 * leaf["contrast"] * _surface(leaf, tiles, u, v)
    light = coverage * clear[y, x] * max(lit[y, x], _LEAST_LIGHT) * max(facing, 0.1)
    for c in range(3):
        linear[y, x, c] += light * (leaf["colour"][c] * (1 - share) + leaf["other"][c] * share)
    clear[y, x] *= 1 - coverage


@njit
def _reach(leaf):
    """Return half the sides of the upright box around a leaf, in px."""
    along, across = leaf["radius"], leaf["radius"] * leaf["aspect"]
    c, s = abs(leaf["cos"]), abs(leaf["sin"])
    if leaf["shape"] in (BOX, TWIG):
        return c * along + s * across, s * along + c * across
    if leaf["shape"] == POLYGON:
        return along, along
    if leaf["shape"] == BLOB:  # whose harmonics are such that few reach further
        return 1.15 * along, 1.15 * along
    return np.hypot(c * along, s * across), np.hypot(s * along, c * across)


@njit
def paint_leaves(linear, clear, lit, leaves, outlines, tiles, sun):
    """Paint leaves in the order given, the first in front, until nothing is clear.

    Parameters
    ----------
    linear : (h, w, 3) float32
        Linear light, added to.
    clear : (h, w) float32
        Share of each pixel that is still clear, 0 to 1; updated.
    lit : (h, w) float32
        Share of the sun that reaches what comes next; updated.
    leaves : (n,) LEAF
        What to paint.
    outlines : (n, m, 3) float32
        Edges of polygons as (normal x, normal y, distance), or amplitudes of blobs' harmonics (cosine, sine, -);
        lengths in radii.
    tiles : (2, k, k) float32
        A smooth and a rough periodic texture, -1 to 1.
    sun : (2,) float64
        Unit vector (x, y) in which shadows fall.
    """
    height, width = clear.shape
    sun_x, sun_y = sun
    for i in range(leaves.shape[0]):
        leaf, outline, r = leaves[i], outlines[i], leaves[i]["radius"]
        reach_x, reach_y = _reach(leaf)
        edge, penumbra = 0.5 * leaf["softness"], 0.5 * (leaf["softness"] + leaf["drop"])
        drop_x, drop_y = leaf["drop"] * sun_x, leaf["drop"] * sun_y
        x0 = max(0, int(np.ceil(leaf["x"] - reach_x - max(edge, penumbra - drop_x))))
        x1 = min(width, int(leaf["x"] + reach_x + max(edge, penumbra + drop_x)) + 1)
        y0 = max(0, int(np.ceil(leaf["y"] - reach_y - max(edge, penumbra - drop_y))))
        y1 = min(height, int(leaf["y"] + reach_y + max(edge, penumbra + drop_y)) + 1)
        cos, sin = leaf["cos"] / r, leaf["sin"] / r
        drop_u, drop_v = cos * drop_x + sin * drop_y, cos * drop_y - sin * drop_x
        slope_x, slope_y = leaf["roundness"] * sun_x / r, leaf["roundness"] * sun_y / r
        edge_sharpness, shadow_sharpness = 0.5 * r / edge, 0.5 * r / penumbra
        for y in range(y0, y1):
            for x in range(x0, x1):
                if clear[y, x] > _OPAQUE:
                    dx, dy = x - leaf["x"], y - leaf["y"]
                    u, v = cos * dx + sin * dy, cos * dy - sin * dx
                    coverage = min(1.0, 0.5 - edge_sharpness * _distance(leaf, outline, u, v))
                    if coverage > 0:
                        facing = 1 - dx * slope_x - dy * slope_y
                        _paint_pixel(linear, clear, lit, leaf, tiles, y, x, u * r, v * r, coverage, facing)
                    if clear[y, x] > _OPAQUE:
                        umbra = 0.5 - shadow_sharpness * _distance(leaf, outline, u - drop_u, v - drop_v)
                        lit[y, x] *= 1 - leaf["shadow"] * min(1.0, max(0.0, umbra))
