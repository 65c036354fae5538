"""How well a system that learns one image makes that image anew, while it is trained."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.method import Method
from trainers.metrics import psnr


@dataclass(frozen=True)
class Rebuilt:
    """The image, made anew.

    Attributes
    ----------
    psnr_db : float
        Of what was made, at the scale in training.
    rows : list
        One row (what it was made from, what was made, the image), each (H, W, 3) uint8.
    """

    psnr_db: float
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    def facts(self) -> dict[str, Any]:
        """Return the figure by the name that metrics.jsonl has for it."""
        return {"reconstruction_psnr_db": self.psnr_db}


@torch.inference_mode()
def rebuilt(method: Method) -> Rebuilt | None:
    """Return the image that `method` is trained on, made anew; None where it trains on more than one."""
    images = method.reconstruction()
    if images is None:
        return None
    row = tuple(_as_colors(image) for image in images)
    return Rebuilt(psnr(row[1], row[2]), [row])


def _as_colors(image: Tensor) -> np.ndarray:
    levels = ((image[0].float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy())
