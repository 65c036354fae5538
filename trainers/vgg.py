"""The features of VGG-19 that perceptual losses and distances compare, with the official ImageNet weights.

The indices are those of the public model's ``features``: 14 is conv3_3 before its ReLU, 36 is pool5.

References
----------
Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.pretrained import (
    Published,
    cache_folder,
    check_name,
    downloaded,
    file_sha256,
    load_named,
    one_at_a_time,
    read_tensors,
    write_kept,
)

CONV3_3, POOL5 = 14, 36
OFFICIAL = Published(
    "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    574_673_361,
)
_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions before each pooling
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG19(nn.Module):
    """VGG-19 from its first layer to `last`, frozen; (B, 3, H, W) float32 in [-1, 1] to the values of that layer.

    Its weights are to be loaded, as `open_features` does.

    Parameters
    ----------
    last : int
        Index of the last layer, 0 to 36.
    normalised : bool
        Give the network its images as in its training, less the mean of ImageNet over the standard deviation; else as
        they are, in [-1, 1].

    Examples
    --------
    >>> sum(p.numel() for p in VGG19().parameters())
    1735488
    """

    def __init__(self, last: int = CONV3_3, normalised: bool = False):
        super().__init__()
        self.features = nn.Sequential(*itertools.islice(_layers(), last + 1))
        self.normalised = normalised
        # The mean and deviation of ImageNet are stated for images in [0, 1].
        self.register_buffer("mean", torch.tensor(_MEAN).mul(2).sub(1).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).mul(2).reshape(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the values of the last layer."""
        return self.features(self._prepared(images))

    def at(self, images: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Return the values of the layers `indices`, in ascending order."""
        values, taken = self._prepared(images), []
        for index, layer in enumerate(self.features[: max(indices) + 1]):
            values = layer(values)
            if index in indices:
                taken.append(values)
        return taken

    def train(self, mode: bool = True) -> "VGG19":
        """Stay as it is: there is nothing to train."""
        return super().train(False)

    def _prepared(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std if self.normalised else images


def _layers() -> Iterator[nn.Module]:
    before = 3
    for channels, convolutions in _STAGES:
        for _ in range(convolutions):
            # Initialising what is overwritten would move torch's random state.
            yield nn.utils.skip_init(nn.Conv2d, before, channels, 3, padding=1)
            # In place, a ReLU would change the values before it, which `at` may have returned.
            yield nn.ReLU()
            before = channels
        yield nn.MaxPool2d(2, 2)


def open_features(
    weights: Path | str | None = None, last: int = CONV3_3, normalised: bool = False, seed: int = 0
) -> tuple[VGG19, str]:
    """Return VGG-19 up to layer `last` on the CPU, and a sentence on its weights for the run to record.

    Parameters
    ----------
    weights : path or "random", optional
        A file with the official state dict, or one kept by an earlier call. Without it, what an earlier call kept in
        the cache of the user, else a download of 548 MB of which only the layers needed are kept. ``random`` is for
        tests and dry runs.
    last : int
        Index of the last layer, 0 to 36.
    normalised : bool
        As in `VGG19`.
    seed : int
        Of random weights.

    Raises
    ------
    ValueError
        `weights` does not hold the layers needed.
    OSError
        `weights` can't be read, or nothing is cached and the download failed; the message says both ways out.
    """
    if not 0 <= last <= POOL5:
        raise ValueError(f"last must be a layer of VGG-19, 0 to {POOL5}, got {last}")
    model = VGG19(last, normalised)
    if weights == "random":
        tensors, origin = _random(model, seed), f"random (seed {seed})"
    elif weights is not None:
        tensors, origin = _from_file(model, Path(weights))
    else:
        tensors, origin = _from_cache(model) or _fetched(model)
    model.load_state_dict(tensors)
    return model, f"{origin}, layers 0 to {last}, {'normalised' if normalised else 'raw'} input"


def cached(last: int) -> bool:
    """Return whether `open_features` has the official weights up to layer `last` without a download."""
    return _from_cache(VGG19(last)) is not None


def _random(model: VGG19, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in model.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        # He's scale keeps the variance through the ReLUs.
        tensors[name] = drawn * math.sqrt(2 / tensor[0].numel()) if name.endswith("weight") else drawn * 0
    return tensors


def _from_file(model: VGG19, path: Path) -> tuple[dict[str, Tensor], str]:
    tensors, sha256 = _read(model, path), file_sha256(path)
    check_name(path, sha256)
    if sha256 != OFFICIAL.sha256:
        return tensors, f"{path.name} (sha256 {sha256})"
    _keep(tensors, model)
    return tensors, OFFICIAL.name


def _read(model: VGG19, path: Path) -> dict[str, Tensor]:
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return load_named(path, read_tensors(path), wanted, "VGG-19")


def _kept(last: int) -> Path:
    return cache_folder() / f"{Path(OFFICIAL.name).stem}-0-{last}.safetensors"


def _keep(tensors: dict[str, Tensor], model: VGG19) -> None:
    # A cache that can't be written costs the next run a download, not this one its weights.
    with contextlib.suppress(OSError):
        write_kept(_kept(len(model.features) - 1), tensors, OFFICIAL.url)


def _from_cache(model: VGG19) -> tuple[dict[str, Tensor], str] | None:
    for last in range(len(model.features) - 1, POOL5 + 1):
        # What is damaged is fetched again.
        with contextlib.suppress(OSError, ValueError):
            return _read(model, _kept(last)), OFFICIAL.name
    return None


def _fetched(model: VGG19) -> tuple[dict[str, Tensor], str]:
    try:
        with one_at_a_time():
            # Another process of the run may have been first.
            found = _from_cache(model)
            if found is not None:
                return found
            with downloaded(OFFICIAL) as path:
                tensors = _read(model, path)
            _keep(tensors, model)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise OSError(
            f"the weights of VGG-19 could not be had ({reason}): download {OFFICIAL.url} elsewhere and pass it with "
            f"--vgg-weights FILE, try again where that address can be reached, or train without the losses that need it"
        ) from error
    return tensors, OFFICIAL.name
