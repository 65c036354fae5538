"""Maps that lie beside images as files: ids of classes in PNG files, and their probabilities as NumPy writes them."""

import io
import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blurgen.sources import BadImage, Entry, Picture, Source
from blurgen.sources.decode import check_size, named_faults
from blurgen.sources.files import MAX_FILE_BYTES, read_whole, with_regular_file
from blurgen.sources.globs import leads_inside
from blurgen.sources.header import read_header
from blurgen.sources.keys import decode_key, decode_member
from blurgen.sources.whole import check_png_data

# What --labels alone means: the maps that the recipe of a dataset tells of.
OF_DATASET = "dataset"
MAX_CLASSES = 256
LABEL_SUFFIXES, PRIOR_SUFFIXES = (".png",), (".npy", ".npz")
# Probabilities come rounded to float16, and from networks that round on the way.
SUM_TOLERANCE = 0.01
_GRAY, _PALETTE, _BYTE = 0, 3, 8
_DECODED_BYTES = 4
_NPY, _ZIP = b"\x93NUMPY", b"PK"
_LONGEST_NPY_HEADER = 10_000
# The path of an image without its suffix.
_STEM = r"(?s)(.*?)(?:\.[^./]*)?"


@dataclass(frozen=True)
class Beside:
    """Where the files lie that go with images.

    Parameters
    ----------
    root : str
        The folder.
    rules : tuple of (pattern, path)
        A regular expression of the whole path of an image, relative to its source, and the path of its file relative
        to `root`, with what the groups matched; of the files named so, the first that exists is taken.
    """

    root: str
    rules: tuple[tuple[str, str], ...]

    def find(self, key: str, what: str) -> str:
        """Return the path of the file that goes with the image `key`; raises `BadImage` where there is none.

        `what` the file holds is said in messages, in which paths are relative to the root.
        """
        image = decode_member(key) or decode_key(key)
        named = [match.expand(path) for rule, path in self.rules if (match := re.fullmatch(rule, image))]
        if not named:
            raise BadImage(f"no-{what}", f"the dataset has no {what} map for it")
        for relative in named:
            path = os.path.join(self.root, relative)
            if os.path.lexists(path):
                if not leads_inside(self.root, path):
                    raise BadImage("outside-root", f"the path of its {what} map, {relative}, leads out of its folder")
                return path
        raise BadImage(f"no-{what}", f"its {what} map is missing: there is no {' nor '.join(named)}")


def label_files(place: str) -> Beside:
    """Return where the PNG files lie that a user names.

    Parameters
    ----------
    place : str
        A folder, in which they have the same paths as the images in their source but for the suffix; or a path in which
        ``*`` stands for that of the image without its suffix.

    Raises
    ------
    ValueError
        Several stars, or another suffix.
    FileNotFoundError
        There is no such folder.
    """
    return _beside(place, "--labels", LABEL_SUFFIXES)


def prior_files(place: str) -> Beside:
    """Return where the .npy or .npz files lie that a user names, as `label_files` does."""
    return _beside(place, "--priors", PRIOR_SUFFIXES)


def _beside(place: str, option: str, suffixes: tuple[str, ...]) -> Beside:
    before, star, after = place.partition("*")
    endings = (after,) if star else suffixes
    if "*" in after or not endings[0].endswith(suffixes):
        raise ValueError(
            f"{option} must be a folder, or a path with one * for that of the image, which ends in "
            f"{' or '.join(suffixes)}, got {place!r}"
        )
    root, prefix = os.path.split(before) if star else (place, "")
    if not os.path.isdir(root or "."):
        raise FileNotFoundError(f"{option} {place}: there is no folder {root or '.'}")
    literal = prefix.replace("\\", r"\\")
    return Beside(root or ".", tuple((_STEM, rf"{literal}\g<1>" + end.replace("\\", r"\\")) for end in endings))


@dataclass(frozen=True)
class LabelMaps:
    """The class of each pixel of images, as single-channel or palette PNG files of 8-bit ids.

    A map shows the image upright, as EXIF says that it is to be seen; what is said of the map itself does not count.
    """

    files: Beside

    def read(self, key: str, size: tuple[int, int]) -> np.ndarray:
        """Return the ids (H, W) uint8 of an image of `size` (H, W); raises `BadImage`."""
        label = decode_label(with_regular_file(self.files.find(key, "label"), read_whole))
        if label.shape != size:
            given, wanted = (f"{width}x{height}" for height, width in (label.shape, size))
            raise BadImage("label-size", f"its label map has {given} px instead of {wanted}")
        return label


@dataclass(frozen=True)
class PriorMaps:
    """Probabilities of classes, (K, h, w) float16 or float32 in .npy files, or alone in .npz files.

    `classes` is K, 0 where any will do.
    """

    files: Beside
    classes: int = 0

    def read(self, key: str, size: tuple[int, int]) -> np.ndarray:
        """Return the probabilities (K, h, w) for an image of `size` (H, W), whose shape the map has; raises `BadImage`.

        The resolution of the map is free.
        """
        prior = self._decoded(key)
        height, width = prior.shape[1:]
        if abs(height - size[0] * width / size[1]) > 1 and abs(width - size[1] * height / size[0]) > 1:
            raise BadImage(
                "prior-shape",
                f"its prior map has {width}x{height} places, another shape than the image of {size[1]}x{size[0]} px",
            )
        sums = prior.sum(axis=0, dtype=np.float32)
        if not np.isfinite(sums).all() or prior.min() < 0:
            raise BadImage("prior-values", "its prior map holds a value that is no probability")
        if np.abs(sums - 1).max() > SUM_TOLERANCE:
            worst = sums.flat[np.abs(sums - 1).argmax()]
            raise BadImage("prior-values", f"the classes of its prior map must sum to 1 everywhere, got {worst:g}")
        return prior

    def _decoded(self, key: str) -> np.ndarray:
        prior = decode_prior(with_regular_file(self.files.find(key, "prior"), read_whole))
        if self.classes and len(prior) != self.classes:
            raise BadImage(
                "prior-classes", f"its prior map has {len(prior)} classes, where {self.classes} are expected"
            )
        return prior

    def of(self, entries: Iterable[Entry]) -> "PriorMaps":
        """Return the same for as many classes as the first map has that can be read, in the order of `entries`.

        Raises
        ------
        ValueError
            None can be read.
        """
        first = ""
        for entry in entries:
            try:
                return replace(self, classes=len(self._decoded(entry.key)))
            except BadImage as error:
                first = first or f"{entry.key}: {error}"
        raise ValueError(f"--priors must hold a map for at least one image ({first})")


def decode_label(data: bytes) -> np.ndarray:
    """Return the ids (H, W) uint8 of a PNG of 8-bit gray, or of the numbers of its palette; raises `BadImage`."""
    header = read_header(data)
    if header.kind != "PNG":
        raise BadImage("label-kind", f"its label map must be a PNG, got {header.kind}")
    depth, color = data[24], data[25]
    if color not in (_GRAY, _PALETTE) or (color == _GRAY and depth != _BYTE):
        shown = {2: "colours", 4: "gray with alpha", 6: "colours with alpha"}.get(color, f"{depth} bits of gray")
        raise BadImage("label-kind", f"its label map must be a PNG of 8-bit ids, gray or a palette, got {shown}")
    check_size(header.width, header.height, _DECODED_BYTES)
    with named_faults("PNG"):
        check_png_data(data)
        from PIL import Image

        # As numbers of the palette: through colours, two ids of one colour would be one.
        return np.array(Image.open(io.BytesIO(data), formats=["PNG"]), np.uint8)


def decode_prior(data: bytes) -> np.ndarray:
    """Return the probabilities (K, h, w) of a .npy file, or of a .npz file that holds them alone; raises `BadImage`."""
    if data[:2] == _ZIP:
        data = _only_member(data)
    if data[:6] != _NPY:
        raise BadImage("prior-kind", "its prior map must be a file as numpy.save or numpy.savez writes it")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, by_columns, dtype = read(stream, max_header_size=_LONGEST_NPY_HEADER)
    except Exception as error:  # NumPy has Python's own parser read it, which lets anything escape
        raise BadImage("corrupt", "the header of its prior map is damaged") from error
    counts = len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)
    if not counts or dtype not in (np.float16, np.float32) or shape[0] > MAX_CLASSES:
        raise BadImage(
            "prior-kind",
            f"its prior map must be float16 or float32 of shape (K, h, w) with at most {MAX_CLASSES} classes K, "
            f"got {dtype} of {shape}",
        )
    count = shape[0] * shape[1] * shape[2]
    if len(data) - stream.tell() != count * dtype.itemsize:
        raise BadImage("truncated", "its prior map has another number of bytes than its header says")
    values = np.frombuffer(data, dtype, count, stream.tell())
    return values.reshape(shape, order="F" if by_columns else "C")


def _only_member(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) != 1:
                raise BadImage("prior-kind", f"a .npz of a prior map must hold one array, got {len(infos)}")
            if infos[0].file_size > MAX_FILE_BYTES:
                raise BadImage("too-large", f"a prior map must have at most {MAX_FILE_BYTES} bytes")
            with archive.open(infos[0]) as member:
                return member.read(MAX_FILE_BYTES + 1)
    except BadImage:
        raise
    except Exception as error:  # zipfile lets anything escape from a malformed archive
        raise BadImage("corrupt", f"the .npz of its prior map cannot be read: {error}") from error


@dataclass(frozen=True)
class MappedSource:
    """A source whose pictures come with maps; one that lacks a map it should have is a `BadImage`.

    Parameters
    ----------
    images : Source
    labels : LabelMaps, optional
    priors : PriorMaps, optional
    """

    images: Source
    labels: LabelMaps | None = None
    priors: PriorMaps | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what the source of the images has; unpickling asks for names before there is one."""
        if name.startswith("__") or name == "images":
            raise AttributeError(name)
        return getattr(self.images, name)

    @property
    def classes(self) -> int:
        """Classes of the probability maps, 0 without."""
        return self.priors.classes if self.priors else 0

    def entries(self, count: int | None = None) -> list[Entry]:
        """Return the entries of the images."""
        return self.images.entries(count)

    def size(self, key: str) -> tuple[int, int]:
        """Return (width, height) of an image in px; raises `BadImage`."""
        return self.images.size(key)

    def read(self, key: str) -> Picture:
        """Return the picture with its maps; raises `BadImage`."""
        picture = self.images.read(key)
        size = (picture.blurred if picture.sharp is None else picture.sharp).shape[:2]
        readers = {"label": self.labels, "prior": self.priors}
        return replace(picture, maps={name: maps.read(key, size) for name, maps in readers.items() if maps})


def with_maps(images: Source, labels: str | None, priors: str | None) -> Source:
    """Return a source whose pictures come with the maps that ``--labels`` and ``--priors`` name, if any.

    Raises
    ------
    ValueError
        A source that has none, or a place of another form.
    FileNotFoundError
        A folder that is not there.
    """
    if labels is None and priors is None:
        return images
    of_labels = labels and (_of_dataset(images) if labels == OF_DATASET else label_files(labels))
    return MappedSource(images, of_labels and LabelMaps(of_labels), priors and PriorMaps(prior_files(priors)))


def _of_dataset(images: Source) -> Beside:
    rules = tuple((pattern, path) for pattern, paths in getattr(images, "labels", ()) for path in paths)
    if not rules:
        raise ValueError(
            f"--labels alone takes the label maps of a dataset, and nothing is known of any for {images.name!r} as it "
            "lies here: give their folder, --labels DIR"
        )
    return Beside(images.root, rules)
