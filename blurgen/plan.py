"""What `blurgen make` is asked for, and the plan that fixes every sample of it.

A plan names all that decides the bytes of the output and nothing else: no workers, no shard size, no absolute path, no
time. Sample i of a plan is one crop of one image at one exposure, always the same, however many samples there are.
"""

import dataclasses
import hashlib
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blurgen.imaging import NOISES, noise_model, response
from blurgen.kernels import kernel_model
from blurgen.kernels.model import KernelModel
from blurgen.options import Chosen, as_values, option
from blurgen.recipes import open_source
from blurgen.sample import CropRule, Look
from blurgen.shards import Layout
from blurgen.sources import Entry, Source

SAMPLES_OF_ENDLESS_SOURCE = 1000


@dataclass(frozen=True)
class MakeOptions:
    """The options of `blurgen make`."""

    source: Chosen = option(
        MISSING, "Dataset name, folder, glob, list.txt, .zip/.tar, recipe.toml, text or leaves.", flag="--src"
    )
    root: Path | None = option(None, "Where the dataset lies, else $BLURGEN_DATA/NAME, else ./data/NAME.")
    out: Path = option(Path("shards.h5"), "The file to write.")
    kernel: Chosen = option(Chosen("deblurgan"), "Kernel preset or model; its fields by --set kernel.FIELD=VALUE.")
    exposure: tuple[float, ...] = option((1.0,), "Fraction of the trajectory; given several times, a sample for each.")
    noise: Chosen = option(Chosen("none"), f"Noise model: {', '.join(NOISES)}; its fields by --set noise.FIELD=VALUE.")
    saturation: bool = option(False, "Recover light beyond white in saturated pixels before blurring.")
    response: str = option("srgb", "Camera response: srgb, linear, or gamma2.2 and the like.")
    crop: int = option(256, "Side of a sample, px.")
    scale_mean: float | None = option(None, "Random-scale crop: mean side cut out, px (256 in VEGAN).")
    scale_std: float = option(0.0, "Random-scale crop: standard deviation of that side, px (100 in VEGAN).")
    resize_short: int | None = option(None, "First reduce the image until its shorter side is this, px.")
    small: str = option("skip", "Images with a shorter side from crop/2 to crop.", choices=("skip", "scale"))
    per_image: int = option(1, "Crops from each image.")
    count: int | None = option(None, "Samples in all, else one crop per image, 1,000 from a built-in source.")
    lowres: tuple[int, ...] = option((), "Also store variants reduced by this factor; may be repeated.")
    split: tuple[str, ...] = option((), "Only this split of the data; may be repeated.")
    real: bool = option(False, "Store existing blurred and sharp images, without blurring.")
    seed: int = option(0, "Seed of all random draws.")
    codec: str = option("none", "Compression of images in the file.", choices=("none", "gzip"))

    def __post_init__(self) -> None:
        """Refuse values that no sample can have."""
        for name in ("crop", "per_image", "count", "resize_short", "scale_mean"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.scale_std < 0 or (self.scale_std and self.scale_mean is None):
            raise ValueError(f"scale_std must be at least 0 and needs --scale-mean, got {self.scale_std:g}")
        for exposure in self.exposure:
            if not 0 < exposure <= 1:
                raise ValueError(f"exposure must be in (0, 1], a fraction of the trajectory, got {exposure:g}")
        for factor in self.lowres:
            if factor < 2 or self.crop % factor:
                raise ValueError(f"lowres must be at least 2 and divide the crop of {self.crop} px, got {factor}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


class Crop(NamedTuple):
    """One crop of one image: the entry, which crop of it, and the first sample made from it."""

    entry: Entry
    index: int
    first_sample: int


@dataclass(frozen=True)
class Plan:
    """The samples of one run: what they are made from, how they look, and how many there are."""

    source: Source
    entries: tuple[Entry, ...]
    look: Look
    seed: int
    per_image: int
    count: int
    document: dict[str, Any]

    @property
    def samples_per_crop(self) -> int:
        """How many samples share a crop: one per exposure."""
        return len(self.look.exposures) if self.look.model else 1

    def crop(self, number: int) -> Crop:
        """Return crop `number` of the plan; after the last image it goes on with further crops of the first."""
        lap, place = divmod(number, len(self.entries) * self.per_image)
        entry, index = divmod(place, self.per_image)
        return Crop(self.entries[entry], lap * self.per_image + index, number * self.samples_per_crop)

    def crops(self, first_sample: int, last_sample: int) -> list[Crop]:
        """Return the crops behind the samples from `first_sample` up to, not including, `last_sample`."""
        first, last = first_sample // self.samples_per_crop, -(-last_sample // self.samples_per_crop)
        return [self.crop(number) for number in range(first, last)]

    @property
    def layout(self) -> Layout:
        """The datasets of the output."""
        sides = getattr(self.source, "sides", "both") if self.look.model is None else "both"
        params = self.look.model.PARAMS if self.look.model else ()
        return Layout(self.look.rule.crop, self.look.kernel_side, self.look.lowres, sides, params)


def make_plan(options: MakeOptions) -> Plan:
    """Return the plan for these options: opens the source, lists its images, fixes the side of the kernels.

    Raises
    ------
    ValueError
        An option that does not fit the others or the source.
    OSError
        A dataset that is not there.
    """
    place = options.source
    source = open_source(place.name, options.root, options.split, place.settings, options.real, options.seed)
    endless = getattr(source, "endless", False)
    model = None if options.real else kernel_model(options.kernel.name, **options.kernel.settings)
    exposures = options.exposure if model else (1.0,)
    count = options.count or (SAMPLES_OF_ENDLESS_SOURCE if endless else None)
    crops = -(-count // len(exposures)) if count else None
    entries = tuple(source.entries(-(-crops // options.per_image) if crops else None))
    if not entries:
        raise ValueError(f"the source {source.name!r} holds no image: see `blurgen sources` for the layout it expects")
    count = count or len(entries) * options.per_image * len(exposures)
    rule = CropRule(options.crop, options.scale_mean, options.scale_std, options.resize_short, options.small)
    look = Look(
        rule,
        model,
        _kernel_side(model, rule, source, entries) if model else 0,
        exposures,
        response(options.response),
        noise_model(options.noise.name, **options.noise.settings),
        options.saturation,
        tuple(sorted(set(options.lowres))),
    )
    return Plan(
        source, entries, look, options.seed, options.per_image, count, _document(options, source, entries, look, count)
    )


def plan_difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what differs between two plan documents, a line for each field; a grown count is no difference."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{name}.{line}" for line in plan_difference(old, new)]
        elif old != new and not (name == "count" and old is not None and new is not None and new > old):
            lines.append(f"{name}: {old!r} -> {new!r}")
    return lines


def _kernel_side(model: KernelModel, rule: CropRule, source: Source, entries: tuple[Entry, ...]) -> int:
    """Return the odd side, px, that holds every kernel of the plan: the largest extent, and a pixel's splat around it."""
    reduction = 1.0
    if rule.resize_short:
        reduction = max(_reduction(rule, source, entry) for entry in entries)
    return 2 * int((model.reach_px() * rule.largest_scale(reduction) + 3) // 2) + 1


def _reduction(rule: CropRule, source: Source, entry: Entry) -> float:
    try:
        width, height = source.size(entry.key)
    except ValueError:  # a bad image makes no sample; it is reported when its turn comes
        return 0.0
    return rule.reduction(height, width)


def _document(
    options: MakeOptions, source: Source, entries: tuple[Entry, ...], look: Look, count: int
) -> dict[str, Any]:
    """Return the plan as JSON: what anyone needs to render a sample again from the sources."""
    plain = as_values(options)
    for elsewhere in ("out", "root", "source", "kernel"):
        plain.pop(elsewhere, None)
    described = {"name": source.name, "settings": dict(options.source.settings)}
    if not getattr(source, "endless", False):
        digest = hashlib.sha256()
        for entry in entries:
            digest.update(f"{entry.key}\n{entry.group}\n{entry.split}\n".encode())
        described |= {"images": len(entries), "list_sha256": digest.hexdigest()}
    document = {"format": 1, **plain, "count": count, "source": described, "kernel_side": look.kernel_side}
    if look.model:
        fields = dataclasses.asdict(look.model)
        document["kernel"] = {"name": options.kernel.name, "settings": dict(options.kernel.settings), "fields": fields}
    return document
