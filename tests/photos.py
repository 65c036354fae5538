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


def write_png(path: Path, image: np.ndarray) -> Path:
    """Write an RGB image, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def write_pairs(folder: Path) -> tuple[Path, Path]:
    """Write three pairs of different sizes, and an image without a partner on each side; return blurred and sharp."""
    blurred, sharp = folder / "blur", folder / "sharp"
    for number, (height, width) in enumerate([(40, 50), (36, 36), (41, 33)]):
        image = photo(number, height, width)
        write_png(sharp / f"deep/{number}.png", image)
        write_png(blurred / f"deep/{number}.png", cv2.GaussianBlur(image, (0, 0), 1 + number))
    write_png(blurred / "alone.png", photo(8))
    write_png(sharp / "lonely.png", photo(9))
    return blurred, sharp
