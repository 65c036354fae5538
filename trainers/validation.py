"""How good the averaged weights are on validation pairs, while they are trained."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainers.data import PairSet
from trainers.method import Restorer
from trainers.metrics import psnr
from trainers.padding import PaddedImage, RestoredImage
from trainers.resizing import enlarged

MOST_PAIRS, SHEET_ROWS = 64, 4


@dataclass(frozen=True)
class Measured:
    """Means over the validation pairs.

    Attributes
    ----------
    psnr_db, input_psnr_db : float
        PSNR of the restored images, and of the blurred ones as they are, bicubically enlarged where systems enlarge.
    rows : list
        (input, output, target) of the first few pairs, each (H, W, 3) uint8.
    """

    psnr_db: float
    input_psnr_db: float
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    def facts(self) -> dict[str, Any]:
        """Return the figures by the names that metrics.jsonl has for them."""
        return {"validation_psnr_db": self.psnr_db, "validation_input_psnr_db": self.input_psnr_db}


def measure(restorer: Restorer, pairs: PairSet, device: torch.device) -> Measured | None:
    """Return how well `restorer` restores at most 64 of `pairs`; None where there is nothing to restore.

    Pairs of equal images, such as blank pages, are left out: the PSNR of their input is infinite.
    """
    values, rows = [], []
    for pair in pairs.limited(MOST_PAIRS):
        blurred, sharp = pair.blurred, pair.sharp
        shown = enlarged(blurred, restorer.scale)
        if np.array_equal(shown, sharp):
            continue
        restored = restore(restorer, blurred, device, pair.guide)
        values.append((psnr(restored, sharp), psnr(shown, sharp)))
        if len(rows) < SHEET_ROWS:
            rows.append((shown, restored, sharp))
    return Measured(*np.mean(values, axis=0).tolist(), rows) if values else None


@torch.inference_mode()
def restore(
    restorer: Restorer, blurred: np.ndarray, device: torch.device, guide: np.ndarray | None = None
) -> np.ndarray:
    """Return the restored (scale H, scale W, 3) uint8 image of a blurred (H, W, 3) uint8 one, and what guides there."""
    restored = RestoredImage(blurred, restorer.scale)
    restored.fill(0, restorer(PaddedImage(blurred, restorer.multiple, device, guide).whole()))
    return restored.pixels
