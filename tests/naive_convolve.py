"""Slow and obvious forms of what `blurgen.convolve` and `blurgen.imaging` do, sharing no code with them."""

import numpy as np


def convolve(image, kernel, border="reflect"):
    """Return the convolution of (H, W[, C]) with a kernel, in float64, by its definition."""
    k, m = kernel.shape
    image = np.asarray(image, np.float64)
    if border != "valid":
        margin = [(k // 2, k // 2), (m // 2, m // 2)] + [(0, 0)] * (image.ndim - 2)
        image = np.pad(image, margin, mode=border)
    height, width = image.shape[0] - k + 1, image.shape[1] - m + 1
    total = np.zeros((height, width, *image.shape[2:]))
    for i in range(k):
        for j in range(m):
            # The kernel's first row weighs what lies below: a convolution looks back.
            total += float(kernel[i, j]) * image[k - 1 - i : k - 1 - i + height, m - 1 - j : m - 1 - j + width]
    return total


def srgb_light(value):
    """Return the light of one encoded sRGB value in [0, 1] (IEC 61966-2-1)."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def srgb_value(light):
    """Return the encoded sRGB value of one light in [0, 1] (IEC 61966-2-1)."""
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def blur_srgb(image, kernel, border="reflect"):
    """Return a uint8 image blurred in linear light, and the distance of each sample from the next rounding edge."""
    table = np.array([srgb_light(code / 255) for code in range(256)])
    light = np.clip(convolve(table[image], kernel, border), 0, 1)
    exact = np.vectorize(srgb_value)(light) * 255
    return np.floor(exact + 0.5).astype(np.uint8), np.abs(exact % 1 - 0.5)
