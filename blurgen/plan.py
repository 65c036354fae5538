"""What `blurgen make` is asked for, and the plan that fixes every sample of it.

A plan names all that decides the bytes of the output and nothing else: no workers, no shard size, no absolute path, no
time. Sample i of a plan is one crop of one image at one exposure, always the same, however many samples there are.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blurgen.imaging import noise_model, response
from blurgen.kernels import kernel_model
from blurgen.make_options import MakeOptions
from blurgen.maps import PRIOR_FACTOR
from blurgen.options import as_values, assign, build
from blurgen.recipes import BUILT_IN, open_source
from blurgen.sample import CropRule, Look
from blurgen.shards import MAX_KERNEL, Layout
from blurgen.sources import Entry, Source
from blurgen.sources.maps import OF_DATASET, MappedSource, with_maps

SAMPLES_OF_BUILT_IN = 1000
# Maps that a folder of the user's holds: where it lies decides nothing, how files in it are named which are taken.
OWN_MAPS = "folder"


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
        maps = {}
        if isinstance(self.source, MappedSource):
            maps = {"label": self.source.labels is not None, "prior": self.source.classes}
        look, transcript = self.look, self.look.transcript_bytes
        return Layout(look.rule.crop, look.kernel_side, look.lowres, sides, params, transcript=transcript, **maps)


def make_plan(options: MakeOptions) -> Plan:
    """Return the plan for these options: opens the source, lists its images, fixes the side of the kernels.

    Raises
    ------
    ValueError
        An option that does not fit the others or the source.
    OSError
        A dataset that is not there.
    """
    source = open_images(options)
    exposures = 1 if options.real else len(options.exposure)
    count = options.count or (SAMPLES_OF_BUILT_IN if options.source.name in BUILT_IN else None)
    images = -(-count // (exposures * options.per_image)) if count else None
    entries = tuple(source.entries(images))
    if not entries:
        raise ValueError(
            f"the source {source.name!r} holds no image: `blurgen sources` shows the layout that it expects"
        )
    if options.priors:
        source = dataclasses.replace(source, priors=source.priors.of(entries))
    count = count or len(entries) * options.per_image * exposures
    look = make_look(options)
    if look.model:
        look = dataclasses.replace(look, kernel_side=_kernel_side(look, source, entries))
    document = _document(options, source, entries, look, count)
    return Plan(source, entries, look, options.seed, options.per_image, count, document)


def open_images(options: MakeOptions) -> Source:
    """Return the source that the options name, with the maps that they ask for."""
    place = options.source
    if (options.labels or options.priors) and place.name in BUILT_IN:
        raise ValueError(
            f"--src {place.name} draws its own images, which have no maps: leave out --labels and --priors"
        )
    if options.priors and options.crop % PRIOR_FACTOR:
        raise ValueError(f"--priors needs a crop that is a multiple of {PRIOR_FACTOR} px, got {options.crop}")
    source = open_source(place.name, options.root, options.split, place.settings, options.real, options.seed)
    if options.transcripts is not None and not getattr(source, "knows_words", False):
        raise ValueError(f"--transcripts needs a source that knows its words, --src text, got --src {place.name}")
    return with_maps(source, options.labels, options.priors and str(options.priors))


def make_look(options: MakeOptions, kernel_side: int = 0) -> Look:
    """Return how samples look under these options, with kernels of the given side."""
    model = None if options.real else kernel_model(options.kernel.name, **options.kernel.settings)
    return Look(
        CropRule(options.crop, options.scale_mean, options.scale_std, options.resize_short, options.small),
        model,
        kernel_side,
        options.exposure,
        response(options.response),
        noise_model(options.noise.name, **options.noise.settings),
        options.saturation,
        tuple(sorted(set(options.lowres))),
        options.transcript_bytes,
    )


def options_of(document: dict[str, Any], assignments: Iterable[str] = ()) -> MakeOptions:
    """Return the options that a plan document was made from, changed by assignments ``part.name=value``."""
    derived = ("format", "kernel_side", "prior_classes")
    values = {name: value for name, value in document.items() if name not in derived}
    for part in ("source", "kernel"):
        if part in values:
            values[part] = {"name": values[part]["name"], **values[part]["settings"]}
    for assignment in assignments:
        assign(values, assignment)
    return build(MakeOptions, values)


def plan_difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what differs between two plan documents, a line for each field; a grown count is no difference."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{name}.{line}" for line in plan_difference(old, new)]
        elif name == "list_sha256" and old != new:
            lines.append("images: other names, groups or splits")
        elif old != new and not (name == "count" and old is not None and new is not None and new > old):
            lines.append(f"{name}: {old!r} -> {new!r}")
    return lines


def _kernel_side(look: Look, source: Source, entries: tuple[Entry, ...]) -> int:
    """Return the odd side, px, that holds every kernel of a plan: the largest extent, and the splat around it."""
    reduction = 1.0
    if look.rule.resize_short:
        reduction = max(_reduction(look.rule, source, entry) for entry in entries)
    scale = look.rule.largest_scale(reduction)
    side = 2 * int(max(look.model.reach_px() * scale + 3, look.model.side_px * scale) // 2) + 1
    if side > MAX_KERNEL:
        raise ValueError(
            f"kernels would be {side} px wide, more than {MAX_KERNEL}: "
            "shorten kernel.length_px, or reduce the images by --resize-short"
        )
    return side


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
    for maps in ("labels", "priors"):
        if maps in plain and (maps, plain[maps]) != ("labels", OF_DATASET):
            plain[maps] = _names_of_own(str(plain[maps]))
    described = {"name": source.name, "settings": _without_folders(options.source.settings)}
    if options.source.name not in BUILT_IN:
        digest = hashlib.sha256()
        for entry in entries:
            digest.update(f"{entry.key}\n{entry.group}\n{entry.split}\n".encode())
        described |= {"images": len(entries), "list_sha256": digest.hexdigest()}
    document = {"format": 1, **plain, "count": count, "source": described, "kernel_side": look.kernel_side}
    if options.priors:
        document["prior_classes"] = source.classes
    if look.model:
        settings = _without_folders(options.kernel.settings)
        fields = _without_folders(as_values(look.model))
        document["kernel"] = {"name": options.kernel.name, "settings": settings, "fields": fields}
        if "file" in fields:
            document["kernel"]["file_sha256"] = _digest(Path(look.model.file))
    return json.loads(json.dumps(document))  # equal to what is read back from a file


def _names_of_own(place: str) -> str:
    """Return what a plan says of maps in a folder of the user's: how they are named, where there is a rule."""
    before, star, after = place.partition("*")
    return f"{OWN_MAPS}/{os.path.basename(before)}*{after}" if star else OWN_MAPS


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the files in a folder, by name."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which a path that exists is reduced to its last part: where it lies decides no pixel."""
    return {
        name: Path(value).name
        if isinstance(value, str) and Path(value).is_absolute() and Path(value).exists()
        else value
        for name, value in settings.items()
    }
