"""Images (H, W, 3) uint8 sRGB at other sizes, by whole factors."""

import numpy as np
from PIL import Image

from blurgen.imaging import response


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the bicubic enlargement (factor H, factor W, 3), of the encoded values, as papers compare with.

    Its kernel is that of Keys 1981 with a = -1/2, as in Pillow and MATLAB.
    """
    if factor == 1:
        return image
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((factor * width, factor * height), Image.Resampling.BICUBIC))


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the means over squares in linear light, as `blurgen make --lowres` stores them.

    Height and width must be multiples of `factor`.
    """
    # It loads numba, which training and deblurring do without.
    from blurgen.sample import reduce_area

    return reduce_area(image, factor, response("srgb"))
