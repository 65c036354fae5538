"""The learned perceptual distance LPIPS with AlexNet, version 0.1, from the published weights.

References
----------
Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.pretrained import Published, cache_folder, check_name, file_sha256, load_named, read_tensors, write_kept

ALEXNET = Published(
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    244_408_911,
)
HEADS = Published(
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    6_009,
)
LEAST_PX = 31
KEPT = "lpips-alex-0.1.safetensors"
_CHANNELS = (64, 192, 384, 256, 256)
_COMPARED = (1, 4, 7, 9, 11)  # the layers of ``features`` after each ReLU
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """LPIPS with AlexNet, frozen: two (B, 3, H, W) float32 in [-1, 1], 31 px a side or more, to (B,) distances.

    Its weights are to be loaded, as `open_lpips` does; the names are those of the published files.
    """

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*_layers())
        for number, channels in enumerate(_CHANNELS):
            head = nn.utils.skip_init(nn.Conv2d, channels, 1, 1, bias=False)
            # The published heads begin with a dropout, which is off when distances are measured.
            self.add_module(f"lin{number}", nn.ModuleDict({"model": nn.Sequential(nn.Identity(), head)}))
        self.register_buffer("shift", torch.tensor(_SHIFT).reshape(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).reshape(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, sharp: Tensor) -> Tensor:
        """Return the distances."""
        pairs = zip(self._directions(images), self._directions(sharp), strict=True)
        heads = [getattr(self, f"lin{number}")["model"] for number in range(len(_CHANNELS))]
        parts = [head((one - other).square()).mean((1, 2, 3)) for head, (one, other) in zip(heads, pairs, strict=True)]
        return torch.stack(parts).sum(0)

    def _directions(self, images: Tensor) -> Iterator[Tensor]:
        values = (images - self.shift) / self.scale
        for index, layer in enumerate(self.features):
            values = layer(values)
            if index in _COMPARED:
                yield values / (values.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _layers() -> Iterator[nn.Module]:
    shapes = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))  # side, stride, padding
    before = 3
    for number, (channels, (side, stride, padding)) in enumerate(zip(_CHANNELS, shapes, strict=True)):
        yield nn.utils.skip_init(nn.Conv2d, before, channels, side, stride=stride, padding=padding)
        yield nn.ReLU()
        before = channels
        if number < 2:
            yield nn.MaxPool2d(3, 2)


def open_lpips(alexnet: Path | None = None, heads: Path | None = None) -> tuple[Lpips, str]:
    """Return LPIPS on the CPU, and a sentence on its weights.

    Parameters
    ----------
    alexnet, heads : path, optional
        The published state dict of AlexNet, and that of the linear heads. Without both, what an earlier call that was
        given the published files kept in the cache of the user.

    Raises
    ------
    FileNotFoundError
        A file is not there, or none was given and nothing is cached; the message says where to get them.
    ValueError
        A file holds something else, or is damaged.
    """
    model = Lpips()
    kept = cache_folder() / KEPT
    if alexnet is None and heads is None:
        if not kept.is_file():
            raise FileNotFoundError(_ways_out("LPIPS needs two files of weights"))
        model.load_state_dict(_read(model, kept, ""))
        return model, "LPIPS-Alex 0.1"
    if alexnet is None or heads is None:
        raise FileNotFoundError(_ways_out("LPIPS needs both files of weights, not one"))
    tensors = _read(model, alexnet, "features") | _read(model, heads, "lin")
    model.load_state_dict(tensors)
    digests = [file_sha256(path) for path in (alexnet, heads)]
    check_name(alexnet, digests[0])
    if digests != [ALEXNET.sha256, HEADS.sha256]:
        return model, f"LPIPS of {alexnet.name} (sha256 {digests[0]}) and {heads.name} (sha256 {digests[1]})"
    # A cache that can't be written costs the next call its short way, not this one its weights.
    with contextlib.suppress(OSError):
        write_kept(kept, tensors, f"{ALEXNET.url} {HEADS.url}")
    return model, "LPIPS-Alex 0.1"


def _read(model: Lpips, path: Path, prefix: str) -> dict[str, Tensor]:
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if name.startswith(prefix)}
    return load_named(path, read_tensors(path), wanted, "AlexNet" if prefix == "features" else "LPIPS")


def _ways_out(problem: str) -> str:
    return f"{problem}: download {ALEXNET.url} for --alexnet-weights and {HEADS.url} for --lpips-weights"
