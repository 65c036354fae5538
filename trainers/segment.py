"""Mean intersection over union: whether a segmentation network sees in restored images what it sees in sharp ones."""

import math
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

MAPILLARY = "facebook/mask2former-swin-large-mapillary-vistas-semantic"
NO_TRANSFORMERS = '--segmenter needs transformers, which is not installed: run `pip install "blurgen[segment]"`'
# Networks that answer with masks and a class for each, which their processors join into one map.
MASK_CLASSIFIERS = frozenset({"mask2former", "maskformer"})
# What damaged files of weights raise.
_UNREADABLE = (SafetensorError, pickle.UnpicklingError, EOFError)


def confusion(predicted: np.ndarray, reference: np.ndarray, classes: int) -> np.ndarray:
    """Return how many pixels of class i in `reference` have class j in `predicted`, as C[i, j], int64.

    Parameters
    ----------
    predicted, reference : (H, W) integers in [0, classes)
    classes : int
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"maps must be of one size, got {predicted.shape} and {reference.shape}")
    for name, labels in (("predicted", predicted), ("reference", reference)):
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"{name} must hold classes from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    pairs = reference.astype(np.int64).ravel() * classes + predicted.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(confused: np.ndarray) -> float:
    """Return the mean over classes of C_ii / (sum_j C_ij + sum_j C_ji - C_ii), 0 to 1, from C as of `confusion`.

    Classes in neither map are left out; NaN where there is none at all.

    References
    ----------
    Everingham et al., The PASCAL visual object classes challenge: a retrospective, IJCV 2015, section 3.3.
    """
    common = np.diagonal(confused)
    union = confused.sum(0) + confused.sum(1) - common
    there = union > 0
    return float((common[there] / union[there]).mean()) if there.any() else math.nan


class SegmentationScore:
    """The mean IoU of a data set: one confusion matrix for each kind of image, over all pixels of all images.

    Parameters
    ----------
    segment : callable
        (H, W, 3) uint8 RGB -> (H, W) int64 map of classes; the same network for sharp and for other images.
    classes : int
    """

    def __init__(self, segment: Callable[[np.ndarray], np.ndarray], classes: int):
        self._segment, self._classes = segment, classes
        self._confused: dict[tuple[str, bool], np.ndarray] = {}
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, row: str, image: np.ndarray, sharp: np.ndarray, counts: bool = True) -> float:
        """Take in an image of a kind, and return the mean IoU over this image alone.

        Parameters
        ----------
        row : str
            The kind, such as "input".
        image, sharp : (H, W, 3) uint8 RGB
        counts : bool
            False for images that are to count only where none counts.
        """
        found = confusion(self._segment(image), self._map_of(sharp), self._classes)
        self._confused[row, counts] = self._confused.get((row, counts), 0) + found
        return mean_iou(found)

    def anew(self) -> "SegmentationScore":
        """Return one for another data set."""
        return SegmentationScore(self._segment, self._classes)

    def totals(self) -> dict[str, float]:
        """Return the mean IoU over all images for each kind."""
        counted = any(counts for _, counts in self._confused)
        return {row: mean_iou(found) for (row, counts), found in self._confused.items() if counts == counted}

    def _map_of(self, sharp: np.ndarray) -> np.ndarray:
        """Return the map of a sharp image, which comes once for every kind of its pair."""
        if self._last is None or not np.array_equal(self._last[0], sharp):
            self._last = sharp, self._segment(sharp)
        return self._last[1]


class Segmenter:
    """A semantic-segmentation network of Hugging Face's: (H, W, 3) uint8 RGB -> (H, W) int64 map of its classes.

    Parameters
    ----------
    name : str
        Folder that holds the network and its image processor, or name on the Hugging Face Hub.
    device : torch.device

    Raises
    ------
    RuntimeError
        transformers is not installed.
    ValueError
        There is no such network, it is none for semantic segmentation, or some of its weights are missing.
    """

    def __init__(self, name: str, device: torch.device):
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise RuntimeError(NO_TRANSFORMERS) from error
        with _quiet(transformers):
            self._processor, model, missing = _load(transformers, name)
        if missing:
            raise ValueError(
                f"--segmenter {name} lacks {len(missing)} of its weights, such as {min(missing)}: "
                f"name one that was trained to segment, such as {MAPILLARY}"
            )
        self._model, self._device = model.to(device).eval(), device
        self._joins_masks = model.config.model_type in MASK_CLASSIFIERS
        self.classes = int(model.config.num_labels)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the map of an image, at its own size."""
        inputs = self._processor(images=image, return_tensors="pt", input_data_format="channels_last")
        outputs = self._model(**inputs.to(self._device))
        if self._joins_masks:
            labels = self._processor.post_process_semantic_segmentation(outputs, target_sizes=[image.shape[:2]])[0]
        else:
            full = torch.nn.functional.interpolate(outputs.logits, image.shape[:2], mode="bilinear")
            labels = full[0].argmax(0)
        return labels.cpu().numpy().astype(np.int64)


def _load(transformers: Any, name: str) -> tuple[Any, torch.nn.Module, set[str]]:
    """Return the image processor, the network, and the names of the weights that its files lack."""
    is_folder = Path(name).is_dir()
    place = str(Path(name).resolve()) if is_folder else name
    if not is_folder and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(
            f"--segmenter {name} is no folder, and no name on the Hugging Face Hub: that is OWNER/NAME, as {MAPILLARY}"
        )
    try:
        kind = transformers.AutoConfig.from_pretrained(place).model_type
        processor = transformers.AutoImageProcessor.from_pretrained(place)
        auto = (
            transformers.AutoModelForUniversalSegmentation
            if kind in MASK_CLASSIFIERS
            else transformers.AutoModelForSemanticSegmentation
        )
        model, told = auto.from_pretrained(place, output_loading_info=True, dtype=torch.float32)
    except (*_UNREADABLE, OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"--segmenter {name} can't be had, {said.rstrip('.')}: name a semantic-segmentation network of the "
            f"Hugging Face Hub, such as {MAPILLARY}, or a folder with one"
        ) from error
    return processor, model, set(told["missing_keys"])


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep the library from telling about its own ways of loading."""
    logging = transformers.utils.logging
    before, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if shows_bars:
            logging.enable_progress_bar()
