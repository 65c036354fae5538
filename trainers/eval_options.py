"""The options of `trainers eval`."""

from dataclasses import dataclass
from pathlib import Path

from blurgen.options import Chosen, option
from trainers.run_options import DEVICES, PRECISIONS, RANDOM_FEATURES

SPLITS = ("test", "validation", "all")
DOWNLOAD = "download"
ORACLE, NEIGHBOUR = PROTOCOLS = ("oracle", "neighbour")
"""A system trained on the very image that is to be restored, or on another one of the scene."""


@dataclass(frozen=True)
class EvalOptions:
    """What is measured, and how."""

    data: tuple[Path, ...] = option(
        (), "Shards to measure on; may be repeated, for a table of each. [default: those of the run]"
    )
    split: str = option("test", "Which images of the run's shards: all is all it did not train on.", choices=SPLITS)
    match: str | None = option(None, "Regular expression of what tells the names of --pairs apart, such as _blur.")
    limit: int | None = option(None, "Measure at most so many pairs, spread evenly over all.")
    out: Path | None = option(None, "Folder of the results. [default: eval/NAME beside the weights]")
    align: int = option(0, "Shift every image by up to so many px to where it fits the sharp one best.")
    beside: Path | None = option(
        None, "Run or weights of a system that does not enlarge, to compare an enlarging one with, beside bicubic."
    )
    infer: Chosen | None = option(
        None,
        "How a system that was trained on one image restores: iterate or inject; --set infer.k=3 and infer.from_scale "
        "say how far, infer.size=finest at which size, infer.tau with how much noise. [default: iterate]",
    )
    protocol: str | None = option(
        None,
        "Of a system that was trained on one image: restore that image, or others of its scene. [default: others]",
        choices=PROTOCOLS,
    )
    blank: bool = option(False, "Measure a white page, and one of the sharp image's mean colour, too.")
    device: str = option("auto", "Where it runs; auto takes a GPU where there is one.", choices=DEVICES)
    mc_dropout: bool = option(False, "Drop values at random as in training, which the public code of DeblurGAN does.")
    seed: int = option(0, "Seed of the draws of --mc-dropout.")
    precision: str = option("fp32", "Arithmetic: tf32 and bf16 are faster on a GPU.", choices=PRECISIONS)
    vgg_weights: str | None = option(None, "File of VGG-19's weights for d_vgg, download, or random for trials.")
    alexnet_weights: Path | None = option(None, "File of AlexNet's weights for lpips.")
    lpips_weights: Path | None = option(None, "File of the linear weights of LPIPS-Alex 0.1 for lpips.")

    segmenter: str | None = option(
        None, "Segmentation network for iou: a folder, or a name on the Hugging Face Hub; needs transformers."
    )
    ocr: bool = option(False, "Read pages with Tesseract for cer, of shards of `blurgen make --transcripts`.")
    ocr_lang: str = option("eng", "Languages that Tesseract reads, by its names, such as eng+ell.")

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if self.ocr_lang != type(self).ocr_lang and not self.ocr:
            raise ValueError(f"ocr_lang {self.ocr_lang} says what Tesseract reads: give --ocr, too, or leave it out")
        if self.align < 0:
            raise ValueError(f"align must be at least 0, got {self.align}")

    @property
    def features(self) -> Path | str | None:
        """Where VGG-19's weights come from, as `trainers.vgg.open_features` takes it."""
        if self.vgg_weights in (None, DOWNLOAD):
            return None
        return self.vgg_weights if self.vgg_weights == RANDOM_FEATURES else Path(self.vgg_weights)
