"""Images that tests draw for themselves."""

from pathlib import Path

import cv2
import numpy as np


def photo(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Return a smooth colourful picture with hard edges and some white, (height, width, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        cv2.circle(image, centre, int(rng.integers(3, 20)), colour, -1)
    cv2.rectangle(image, (4, 4), (14, 12), (255, 255, 255), -1)
    return image


def write_photos(folder: Path, count: int, height: int = 96, width: int = 128) -> Path:
    """Write `count` JPEG photos into a new folder, and return it."""
    folder.mkdir(parents=True)
    for number in range(count):
        bgr = photo(number, height, width)[..., ::-1]
        cv2.imwrite(str(folder / f"photo{number:02d}.jpg"), bgr)
    return folder
