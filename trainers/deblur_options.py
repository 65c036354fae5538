"""The options of `trainers deblur`."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from blurgen.options import Chosen, option
from trainers.run_options import DEVICES, PRECISIONS

TILES = ("auto", "whole", "exact", "fast")
MOST_SAMPLES = 1000


@dataclass(frozen=True)
class DeblurOptions:
    """Where the results go, and how they are computed."""

    out: Path = option(dataclasses.MISSING, "Folder of the results, PNG files named like the inputs.")
    overwrite: bool = option(False, "Make results anew that are there already, instead of leaving them as they are.")
    device: str = option("auto", "Where it runs; auto takes a GPU where there is one.", choices=DEVICES)
    precision: str = option("fp32", "Arithmetic: tf32 and bf16 are faster on a GPU.", choices=PRECISIONS)
    tiles: str = option(
        "auto",
        "auto is whole where it fits, else exact, the same in less memory; fast is near it, without temporary files.",
        choices=TILES,
    )
    memory_gib: float | None = option(
        None, "Memory to be used, GiB. [default: 0.8 of a GPU's free memory; on the CPU half of the free, at most 6]"
    )
    scratch: Path | None = option(None, "Folder for what does not fit in memory. [default: that of the results]")
    z_samples: int | None = option(None, "Write so many results per image, with codes of the blur drawn at random.")
    infer: Chosen | None = option(
        None,
        "How a system that was trained on one image restores: iterate or inject; --set infer.k=3 and infer.from_scale "
        "say how far, infer.size=finest at which size, infer.tau with how much noise. [default: iterate]",
    )
    labels: Path | None = option(
        None,
        "Label maps of the inputs, for a run trained with some: a folder of 8-bit PNG files of the same paths, "
        "or PATH/*_labels.png with * for those.",
    )
    priors: Path | None = option(
        None, "Likewise probability maps of classes, .npy or .npz files of shape (K, h, w) at any resolution."
    )
    mc_dropout: bool = option(
        False, "Drop values at random as in training, which the public code of DeblurGAN does; of whole images alone."
    )
    seed: int = option(0, "Seed of the draws of --z-samples and --mc-dropout.")

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if self.memory_gib is not None and not 0 < self.memory_gib < math.inf:
            raise ValueError(f"memory_gib must be above 0 and finite, got {self.memory_gib:g}")
        if self.z_samples is not None and not 1 <= self.z_samples <= MOST_SAMPLES:
            raise ValueError(f"z_samples must be 1 to {MOST_SAMPLES:,}, got {self.z_samples}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
