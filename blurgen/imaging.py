"""The camera: response curves, quantisation, saturated highlights and noise, on light that is linear in [0, 1]."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from numbers import Real
from typing import Any

import numpy as np

from blurgen.codes import LEVELS, Codes, look_up
from blurgen.options import build, nearest

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# What is white in 16 bits of linear light. It is 128 roundings of float32 below 1, and a convolution of white with
# 1,600 taps is off by 14.
_SATURATED = 1 - 2**-17
# NumPy draws no Poisson numbers beyond 2^63.
_MOST_PHOTONS = 1e12


class Response(ABC):
    """A camera's response curve: how light in [0, 1] becomes the encoded values of an image.

    Subclasses give the curve and its inverse in float64; both rise from 0 to 1. Images of integers go through tables
    that are exact: ``from_linear`` equals rounding the curve to the nearest code, halves up, for every float32.
    """

    @abstractmethod
    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return the light, float64 ≥ 0, of encoded values, float64 ≥ 0."""

    @abstractmethod
    def encode(self, light: np.ndarray) -> np.ndarray:
        """Return the encoded values, float64 in [0, 1], of light, float64 in [0, 1]."""

    def to_linear(self, image: np.ndarray) -> np.ndarray:
        """Return the light of an image, float32 of the same shape.

        Parameters
        ----------
        image : (H, W) or (H, W, C), uint8, uint16, float32 or float64
            Encoded values: 0 to 255, 0 to 65535, or 0 to 1. Floats above 1 keep their light, those below 0 have none.

        Raises
        ------
        ValueError
            The image has another dtype.
        """
        light = np.empty(image.shape, np.float32)
        rows = (len(image), -1) if image.ndim > 1 else (1, -1)
        self.write_light(image.reshape(rows), light.reshape(rows))
        return light

    def write_light(self, image: np.ndarray, light: np.ndarray) -> None:
        """Write the light of rows of values (h, n) into rows (h, n) float32; see `to_linear`."""
        if image.dtype in LEVELS:
            look_up(image, _codes(self, image.dtype).light, light)
        elif image.dtype in _FLOATS:
            light[:] = self.decode(np.maximum(image, 0).astype(np.float64))
        else:
            raise ValueError(f"an image must be uint8, uint16, float32 or float64, got {image.dtype}")

    def from_linear(self, linear: np.ndarray, dtype: Any) -> np.ndarray:
        """Return the image of `linear` light, of the same shape, with values of `dtype`.

        Parameters
        ----------
        linear : float32, any shape
            Light; it is clipped to [0, 1], as a sensor does.
        dtype : uint8, uint16, float32 or float64
            Codes are rounded to the nearest; floats are in [0, 1].

        Raises
        ------
        ValueError
            `dtype` is another one.
        """
        dtype = np.dtype(dtype)
        if dtype in LEVELS:
            return _codes(self, dtype).quantise(linear, dtype)
        if dtype in _FLOATS:
            return self.encode(np.clip(linear, 0, 1).astype(np.float64)).astype(dtype)
        raise ValueError(f"an image must be uint8, uint16, float32 or float64, got {dtype}")


@lru_cache(maxsize=32)
def _codes(curve: Response, dtype: np.dtype) -> Codes:
    return Codes.of(curve.decode, curve.encode, dtype)


@dataclass(frozen=True)
class SRGB(Response):
    """The transfer function of sRGB (IEC 61966-2-1)."""

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return the light of encoded values."""
        return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)

    def encode(self, light: np.ndarray) -> np.ndarray:
        """Return the encoded values of light."""
        return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@dataclass(frozen=True)
class Gamma(Response):
    """The power law light = encoded ** gamma; gamma 1 is a linear response."""

    gamma: float

    def __post_init__(self) -> None:
        """Check the exponent."""
        if not 0.1 <= self.gamma <= 10:
            raise ValueError(f"gamma must be between 0.1 and 10, got {self.gamma}")

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return the light of encoded values."""
        return encoded**self.gamma

    def encode(self, light: np.ndarray) -> np.ndarray:
        """Return the encoded values of light."""
        return light ** (1 / self.gamma)


@dataclass(frozen=True)
class Measured(Response):
    """A measured curve: encoded values at equal steps of light from 0 to 1, joined by straight lines."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that the curve has an inverse."""
        values = np.asarray(self.values, np.float64)
        if values.size < 2 or values[0] != 0 or values[-1] != 1 or not np.all(np.diff(values) > 0):
            raise ValueError(
                "a table of response values must rise strictly from 0 to 1, one value for each of at least 2 equal "
                f"steps of light; got {values.size} values from {values[:1]} to {values[-1:]}"
            )

    @cached_property
    def _light(self) -> np.ndarray:
        return np.linspace(0, 1, len(self.values))

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return the light of encoded values; the curve ends at 1."""
        return np.interp(encoded, self.values, self._light)

    def encode(self, light: np.ndarray) -> np.ndarray:
        """Return the encoded values of light."""
        return np.interp(light, self._light, self.values)


def response(spec: "str | float | Sequence[float] | np.ndarray | Response") -> Response:
    """Return the response curve that `spec` names.

    Parameters
    ----------
    spec : str, float, sequence or Response
        ``"srgb"``, ``"linear"``, ``"gamma2.2"`` and the like, an exponent such as 2.2, or a table of encoded values at
        equal steps of light, rising strictly from 0 to 1. A `Response` comes back as it is.

    Raises
    ------
    ValueError
        The name is unknown, the exponent is out of range, or the table does not rise from 0 to 1.

    Examples
    --------
    >>> response("srgb").to_linear(np.array([[0, 188, 255]], np.uint8)).round(3)
    array([[0.   , 0.503, 1.   ]], dtype=float32)
    """
    if isinstance(spec, Response):
        return spec
    if isinstance(spec, str | Real):
        return _named(spec)
    return Measured(tuple(np.asarray(spec, np.float64).ravel().tolist()))


@lru_cache(maxsize=32)
def _named(spec: str | float) -> Response:
    if spec == "srgb":
        return SRGB()
    if spec == "linear":
        return Gamma(1.0)
    try:
        return Gamma(float(spec.removeprefix("gamma") if isinstance(spec, str) else spec))
    except ValueError as error:
        raise ValueError(f"a response must be srgb, linear, or gamma2.2 and the like, got {spec!r} ({error})") from None


class Noise(ABC):
    """What a sensor adds to light."""

    @abstractmethod
    def apply(
        self, light: np.ndarray, exposure: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Return noisy light, float32 of the same shape, not clipped, and the parameters drawn.

        Parameters
        ----------
        light : float32, any shape
            Linear light, 1 at white, of an exposure that is normalised to full brightness.
        exposure : float
            Share T in (0, 1] of the full exposure time: the shorter, the fewer photons.
        rng : Generator
        """


@dataclass(frozen=True)
class NoNoise(Noise):
    """A perfect sensor."""

    def apply(
        self, light: np.ndarray, exposure: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Return the light as it is."""
        return light, {}


@dataclass(frozen=True)
class PoissonGaussian(Noise):
    """Shot noise of counted photons and Gaussian read noise: raw = Poisson(λT·y) + σ·N(0, 1), returned as raw / λT.

    So E[raw] = λT·y and Var[raw] = λT·y + σ².

    Parameters
    ----------
    photons : float
        λ, photons counted at white in the full exposure time.
    read : float
        σ, standard deviation of the read noise, in photons.

    References
    ----------
    G. Boracchi and A. Foi, "Modeling the Performance of Image Restoration from Motion Blur", IEEE TIP 21(8), 2012.
    """

    photons: float = 2048.0
    read: float = 0.05

    def __post_init__(self) -> None:
        """Check the constants."""
        if not 0 < self.photons <= _MOST_PHOTONS or not 0 <= self.read <= _MOST_PHOTONS:
            given = f"{self.photons} and {self.read}"
            raise ValueError(f"photons must be in (0, {_MOST_PHOTONS:g}] and read not negative, got {given}")

    def apply(
        self, light: np.ndarray, exposure: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Return noisy light and the constants."""
        white = self.photons * exposure
        raw = rng.poisson(np.maximum(light, 0) * np.float64(white)).astype(np.float32)
        raw += np.float32(self.read) * rng.standard_normal(light.shape, np.float32)
        return raw / np.float32(white), {"photons": self.photons, "read": self.read}


@dataclass(frozen=True)
class CameraNoise(Noise):
    """The noise of a camera as RSBlur draws it; saturated pixels have none.

    A photon raises the light by k = U(0.5, 1.5)·`shot`, the read noise has the standard deviation U(0.5, 1.5)·`read`.

    Parameters
    ----------
    shot : float
        Light of one photon, 1 is white.
    read : float
        Standard deviation (not the variance) of the read noise, 1 is white.

    References
    ----------
    J. Rim et al., "Realistic Blur Synthesis for Learning Image Deblurring", ECCV 2022. The published code,
    github.com/rimchang/RSBlur, Uformer-RSBlur/ISP/utils.py, add_Poisson_noise_random, multiplies a standard normal
    by the second constant, and dataset/dataset_RealisticDeblur.py leaves pixels at 1 as they are.
    """

    shot: float
    read: float

    def __post_init__(self) -> None:
        """Check the constants."""
        if not self.shot > 0 or not self.read >= 0:
            raise ValueError(f"shot must be positive and read not negative, got {self.shot} and {self.read}")

    def apply(
        self, light: np.ndarray, exposure: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Return noisy light and the two constants drawn."""
        shot, read = (float(factor) for factor in rng.uniform(0.5, 1.5, 2) * (self.shot, self.read))
        noisy, _ = PoissonGaussian(1 / shot, read / shot).apply(light, exposure, rng)
        return np.where(light >= _SATURATED, light, noisy), {"shot": shot, "read": read}


# name -> class, fields. "realblur" and "bsd" are the cameras of the data sets of these names.
NOISES: dict[str, tuple[type[Noise], dict[str, float]]] = {
    "none": (NoNoise, {}),
    "poisson-gaussian": (PoissonGaussian, {}),
    "boracchi-foi": (PoissonGaussian, {"photons": 2048.0, "read": 0.05}),
    "realblur": (CameraNoise, {"shot": 8.8915e-5, "read": 2.9430e-5}),
    "bsd": (CameraNoise, {"shot": 2.3282e-5, "read": 1.9452e-4}),
}


def noise_model(name: str, **fields: Any) -> Noise:
    """Return the noise model `name` of `NOISES`, with some of its fields set.

    Raises
    ------
    ValueError
        The name or a field is unknown, or a value is out of range.

    Examples
    --------
    >>> noise_model("boracchi-foi", photons=512)
    PoissonGaussian(photons=512.0, read=0.05)
    """
    if name not in NOISES:
        raise ValueError(f"there is no noise model {name!r}: {nearest(name, NOISES)}")
    model, preset = NOISES[name]
    return build(model, {**preset, **fields}, "noise.")


def draw_saturation(rng: np.random.Generator) -> float:
    """Return α ~ U(0.25, 1.75), the light beyond white of a saturated pixel (RSBlur, ECCV 2022, section 5)."""
    return float(rng.uniform(0.25, 1.75))
