"""Scenes of occluding things whose sizes follow an inverse cube law, from the nearest back to sky and ground."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from blurgen.rng import stream
from blurgen.sources.scenes.materials import BLOB, BRICKS, LENS, MATERIALS, POLYGON, SETTINGS, STRIPES, TWIG, Material
from blurgen.sources.scenes.paint import LEAF, paint_leaves

_LEAST_RADIUS_PX = 2.6
_LAYERS = 7  # things over an average pixel, if none hid another
_TILE_PX = 512
_OUTLINE_PARTS = 6


def draw_scene(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return a scene, (height, width, 3) uint8 sRGB.

    Parameters
    ----------
    rng : np.random.Generator
        Where all choices come from.
    width, height : int
        Size in pixels. The smallest things stay a few pixels large; a larger scene shows more of them.

    References
    ----------
    A. B. Lee, D. Mumford and J. Huang, "Occlusion models for natural images", IJCV 41 (2001): objects whose radii
    follow r^-3 and that hide one another have the scale-invariant statistics of photographs.
    """
    angle = rng.uniform(0.15, 0.85) * np.pi
    sun = np.array([np.cos(angle), np.sin(angle)])  # from above, so that shadows fall downwards
    skyline = _draw_skyline(rng)
    leaves = _draw_leaves(rng, width, height, skyline)
    linear = np.zeros((height, width, 3), np.float32)
    clear, lit = np.ones((height, width), np.float32), np.ones((height, width), np.float32)
    paint_leaves(linear, clear, lit, leaves, _draw_outlines(rng, leaves), surface_tiles(), sun)
    linear += clear[..., None] * _draw_backdrop(rng, lit, skyline)
    return _develop(rng, linear)


@cache
def surface_tiles() -> np.ndarray:
    """Return two periodic textures, smooth and rough, (2, 512, 512) float32 in [-1, 1]: noise of a power law."""
    rng = stream(0, "leaves", "surface tiles")
    fy, fx = np.fft.fftfreq(_TILE_PX)[:, None], np.fft.rfftfreq(_TILE_PX)[None]
    f = np.hypot(fx, fy)
    f[0, 0] = np.inf
    tiles = []
    for exponent in (1.6, 1.0):
        noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(_TILE_PX, _TILE_PX))) * f**-exponent)
        tiles.append(np.clip(noise / (2 * noise.std()), -1, 1))
    return np.array(tiles, np.float32)


def _draw_leaves(rng: np.random.Generator, width: int, height: int, skyline: Callable) -> np.ndarray:
    """Return the things of a scene below its skyline, nearest first."""
    radius = _draw_radii(rng, width, height)
    leaves = np.zeros(len(radius), LEAF)
    leaves["radius"] = radius
    leaves["x"] = rng.uniform(-radius, width + radius)
    leaves["y"] = rng.uniform(-radius, height + radius)
    leaves = leaves[leaves["y"] - 0.3 * radius > skyline(leaves["x"] / width) * height]
    materials = [MATERIALS[name] for name in _draw_materials(rng)]
    chosen = _assign_materials(rng, leaves, materials, max(width, height))
    for i, material in enumerate(materials):
        leaves[chosen == i] = _made_of(rng, leaves[chosen == i], material)
    _fade_with_distance(rng, leaves)
    return leaves


def _draw_radii(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return radii in px with a density of r^-3 per area, as many as cover the scene several times over."""
    radii = np.geomspace(_LEAST_RADIUS_PX, 0.45 * min(width, height), 512)
    # a thing of radius r can be seen from an area that is wider than the scene by r on every side
    density = radii**-3 * (width + 2 * radii) * (height + 2 * radii)
    mass = np.concatenate([[0], np.cumsum(np.diff(radii) * (density[1:] + density[:-1]) / 2)])
    covered = np.pi * np.log(radii[-1] / radii[0])  # per unit of area and of density r^-3
    return np.interp(rng.uniform(0, mass[-1], rng.poisson(_LAYERS * mass[-1] / covered)), mass, radii)


def _draw_skyline(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return where the sky ends, as a function of x in widths: in heights from the top, below 0 where none is seen."""
    level = rng.uniform(0.1, 0.45) if rng.random() < 0.5 else -1.0
    waves = np.array([0.7, 2.1, 5.3])
    swing, phase = rng.uniform(0.02, 0.12, 3) / waves, rng.uniform(0, 2 * np.pi, 3)
    return lambda x: level + (swing * np.sin(2 * np.pi * waves * np.asarray(x)[..., None] + phase)).sum(-1)


def _draw_materials(rng: np.random.Generator) -> list[str]:
    together = SETTINGS[rng.integers(len(SETTINGS))]
    return list(rng.permutation(together)[: rng.integers(3, len(together) + 1)])


def _assign_materials(rng: np.random.Generator, leaves: np.ndarray, materials: list[Material], side: int) -> np.ndarray:
    """Return the index of each thing's material: like lies by like, and each has its usual sizes."""
    scores = rng.gumbel(0, 0.5, (len(materials), len(leaves)))
    for score, material in zip(scores, materials, strict=True):
        for waves in (0.5, 1.0, 2.0):
            turn, phase = rng.uniform(0, 2 * np.pi, 2)
            across = (np.cos(turn) * leaves["x"] + np.sin(turn) * leaves["y"]) / side
            score += 1.5 * np.sin(2 * np.pi * waves * across + phase)
        score -= 0.5 * (np.log(leaves["radius"] / material.size_px) / np.log(material.spread)) ** 2
    return scores.argmax(0)


def _made_of(rng: np.random.Generator, leaves: np.ndarray, material: Material) -> np.ndarray:
    """Return the things with the shape, surface and colours of a material."""
    n = len(leaves)
    leaves["shape"] = rng.choice(material.shapes, n)
    leaves["surface"] = rng.choice(material.surfaces, n)
    leaves["aspect"] = rng.uniform(0.45, 1, n)
    leaves["aspect"][leaves["shape"] == LENS] *= 0.5
    leaves["aspect"][leaves["shape"] == TWIG] *= 0.12
    upright = rng.integers(0, 2, n) * np.pi / 2 + rng.normal(0, 0.04, n)
    angle = np.where(np.isin(leaves["surface"], (BRICKS,)), upright, rng.uniform(0, 2 * np.pi, n))
    leaves["cos"], leaves["sin"] = np.cos(angle), np.sin(angle)
    leaves["softness"] = rng.uniform(1, 1.6, n)
    leaves["contrast"] = material.contrast * rng.uniform(0.5, 1.5, n)
    leaves["grain"] = rng.uniform(0.3, 1.0, n)
    periodic = np.isin(leaves["surface"], (STRIPES, BRICKS))
    leaves["grain"][periodic] = np.clip(leaves["radius"] * rng.uniform(0.1, 0.5, n), 4, 24)[periodic]
    leaves["u"], leaves["v"] = rng.uniform(0, _TILE_PX, (2, n))
    leaves["roundness"] = material.roundness * rng.uniform(0.4, 1.2, n)
    leaves["shadow"] = rng.uniform(0.2, 0.6, n)
    leaves["drop"] = np.minimum(0.35 * leaves["radius"], 12) * rng.uniform(0.3, 1, n)
    base = _to_linear(np.array(material.colours)[rng.integers(len(material.colours), size=n)])
    tone = np.exp(rng.normal(0, 0.25, (n, 1)) + rng.normal(0, 0.06, (n, 3)))
    turn = np.exp(rng.normal(0, 0.5, (n, 1)) + rng.normal(0, 0.05, (n, 3)))
    leaves["colour"], leaves["other"] = base * tone, base * tone * turn
    return leaves


def _fade_with_distance(rng: np.random.Generator, leaves: np.ndarray) -> None:
    """Mix haze into what lies far behind."""
    haze = rng.uniform(0.25, 0.5) * np.array([0.9, 1.0, 1.15])
    share = rng.uniform(0, 0.5) * np.linspace(0, 1, len(leaves))[:, None] ** 2
    for colour in ("colour", "other"):
        leaves[colour] += share * (haze - leaves[colour])


def _draw_outlines(rng: np.random.Generator, leaves: np.ndarray) -> np.ndarray:
    """Return the edges of polygons and the harmonics of blobs, (n, 6, 3) float32, as `paint_leaves` takes them."""
    n = len(leaves)
    outlines = np.zeros((n, _OUTLINE_PARTS, 3), np.float32)
    polygons = np.flatnonzero(leaves["shape"] == POLYGON)
    turns = (np.arange(_OUTLINE_PARTS) + rng.uniform(-0.35, 0.35, (len(polygons), _OUTLINE_PARTS))) / _OUTLINE_PARTS
    outlines[polygons, :, 0], outlines[polygons, :, 1] = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    outlines[polygons, :, 2] = rng.uniform(0.55, 1, turns.shape)
    blobs = np.flatnonzero(leaves["shape"] == BLOB)
    amplitude = 0.16 / np.arange(1, _OUTLINE_PARTS + 1)[:, None]
    outlines[blobs, :, :2] = amplitude * rng.normal(0, 0.6, (len(blobs), _OUTLINE_PARTS, 2)).clip(-1, 1)
    return outlines


def _draw_backdrop(rng: np.random.Generator, lit: np.ndarray, skyline: Callable) -> np.ndarray:
    """Return what lies behind everything, (h, w, 3) float32 linear light: sky with clouds, below it the shaded ground.

    `lit` is the share (h, w) of the sun that reaches the ground.
    """
    height, width = lit.shape
    zenith, horizon = np.float32(_to_linear(np.array([[86, 128, 186], [206, 218, 230]]) + rng.normal(0, 14, (2, 1))))
    above = np.linspace(1, 0, height, dtype=np.float32)[:, None, None] ** np.float32(rng.uniform(0.8, 2.5))
    clouds = np.roll(surface_tiles()[0], rng.integers(0, _TILE_PX, 2), (0, 1))[:, : _TILE_PX // 2]
    cover = cv2.resize(clouds, (width, height), interpolation=cv2.INTER_LINEAR) + np.float32(rng.uniform(-0.6, 0.4))
    ground = np.float32(_to_linear(rng.uniform(35, 75) * np.array([1, 0.95, 0.85])))
    below = np.arange(height)[:, None] > skyline(np.arange(width) / width) * height
    shaded = ground * np.maximum(lit, np.float32(0.3))[..., None]
    if below.all():
        return shaded
    sky = horizon + (zenith - horizon) * above
    sky = sky + (np.float32(0.85) - sky) * np.clip(cover, 0, 1)[..., None]
    return np.where(below[..., None], shaded, sky)


def _develop(rng: np.random.Generator, linear: np.ndarray) -> np.ndarray:
    """Return the photograph of a scene in linear light: white balance, exposure, the sRGB curve; uint8."""
    warmth = rng.normal(0, 0.08)
    exposure = rng.uniform(0.14, 0.26) / linear.mean()
    linear = linear * np.float32([exposure * (1 + warmth), exposure, exposure * (1 - warmth)])
    return _SRGB[np.minimum(linear * _STEPS, _STEPS).astype(np.uint16)]


def _to_linear(colour: np.ndarray) -> np.ndarray:
    """Return sRGB values of 0 to 255 as linear light."""
    encoded = np.clip(colour, 0, 255) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


_STEPS = 16383
_LIGHT = np.arange(_STEPS + 1) / _STEPS
_SRGB = np.rint(255 * np.where(_LIGHT <= 0.0031308, 12.92 * _LIGHT, 1.055 * _LIGHT ** (1 / 2.4) - 0.055)).astype(
    np.uint8
)
