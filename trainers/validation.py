"""How good the averaged weights are on validation pairs, while they are trained."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from trainers.data import PairSet
from trainers.method import Restorer
from trainers.metrics import psnr

MOST_PAIRS, SHEET_ROWS = 64, 4


@dataclass(frozen=True)
class Measured:
    """Means over the validation pairs.

    Attributes
    ----------
    psnr_db, input_psnr_db : float
        PSNR of the restored images, and of the blurred ones as they are.
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
    """Return how well `restorer` restores at most 64 of `pairs`; None where there are none."""
    if not len(pairs):
        return None
    values, rows = [], []
    for blurred, sharp, _ in pairs.limited(MOST_PAIRS):
        restored = restore(restorer, blurred, device)
        values.append((psnr(restored, sharp), psnr(blurred, sharp) if blurred.shape == sharp.shape else np.nan))
        if len(rows) < SHEET_ROWS:
            rows.append((blurred, restored, sharp))
    means = np.mean(values, axis=0).tolist()
    return Measured(*means, rows)


@torch.inference_mode()
def restore(restorer: Restorer, blurred: np.ndarray, device: torch.device) -> np.ndarray:
    """Return the restored (scale H, scale W, 3) uint8 image of a blurred (H, W, 3) uint8 one."""
    height, width = blurred.shape[:2]
    levels = torch.from_numpy(np.ascontiguousarray(blurred)).to(device)
    image = levels.permute(2, 0, 1)[None].to(torch.float32) / 127.5 - 1
    restored = restorer(_padded(image, restorer.multiple))[0, :, : restorer.scale * height, : restorer.scale * width]
    levels = ((restored.float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().cpu().numpy()


def _padded(image: Tensor, multiple: int) -> Tensor:
    height, width = image.shape[-2:]
    return pad(image, (0, -width % multiple, 0, -height % multiple), mode="reflect")
