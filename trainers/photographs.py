"""Deblur the photographs in files and folders: what `trainers deblur` does."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from blurgen.maps import whole_prior
from blurgen.progress import ProgressLine
from blurgen.sources import BadImage
from blurgen.sources.full_depth import Pixels
from blurgen.sources.keys import encode_key
from blurgen.sources.maps import LabelMaps, PriorMaps, label_files, prior_files
from trainers.deblur_options import DeblurOptions
from trainers.infer import GIB, Means, TooLarge, check_dropout, deblur_colors, enlarge_alpha, explain
from trainers.method import Restorer
from trainers.noise import Noise
from trainers.pictures import (
    Input,
    find_inputs,
    name_outputs,
    read_photograph,
    refuse_inputs_as_outputs,
    write_png,
)
from trainers.processes import device_named
from trainers.weights import Weights, load_weights


class LeftOut(NamedTuple):
    """An input without a result, and why."""

    input: Path
    reason: str
    message: str


@dataclass
class Outcome:
    """What has been done, of a number of inputs.

    Attributes
    ----------
    total : int
        Inputs.
    written, kept : list of Path
        Results, new ones and those that were there already.
    bad : list of LeftOut
    done : float
        Inputs dealt with, and the part of the one that is being dealt with.
    """

    total: int
    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    bad: list[LeftOut] = field(default_factory=list)
    done: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Return what there is to tell, as plain values; bytes of file names that are no text become U+FFFD."""
        paths = {"written": self.written, "kept": self.kept}
        shown = {name: [_as_text(path) for path in some] for name, some in paths.items()}
        return shown | {"left_out": [bad._asdict() | {"input": _as_text(bad.input)} for bad in self.bad]}

    @property
    def note(self) -> str:
        """How many inputs were left out, if any were."""
        return f"{len(self.bad)} left out" if self.bad else ""


def _as_text(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


class Job(NamedTuple):
    """An input and its results: one, or one per code that is drawn."""

    input: Input
    outputs: tuple[Path, ...]


def plan_jobs(options: DeblurOptions, paths: Iterable[Path]) -> list[Job]:
    """Return what is to be done; raises ValueError where a result would overwrite an input."""
    inputs = find_inputs(paths, options.out)
    endings = [""] if options.z_samples is None else [f"_z{number}" for number in range(options.z_samples)]
    jobs = [
        Job(one, tuple(options.out / _with_ending(name, ending) for ending in endings))
        for one, name in zip(inputs, name_outputs([one.name for one in inputs]), strict=True)
    ]
    refuse_inputs_as_outputs(inputs, (path for job in jobs for path in job.outputs))
    return jobs


def open_maps(options: DeblurOptions, weights: Weights) -> LabelMaps | PriorMaps | None:
    """Return where the maps of the inputs are that guide the system, None where nothing does.

    Raises
    ------
    ValueError
        Maps that are missing, or not asked for.
    FileNotFoundError
        There is no such folder.
    """
    guide, name = weights.restorer.guide, weights.method.name
    for kind, place in {"label": options.labels, "prior": options.priors}.items():
        if kind == guide and place is None:
            raise ValueError(f"this {name} was trained with {kind} maps: say with --{kind}s where the inputs' are")
        if kind != guide and place is not None:
            raise ValueError(f"this {name} was trained without {kind} maps: leave out --{kind}s")
    if guide is None:
        return None
    if guide == "label":
        return LabelMaps(label_files(os.fspath(options.labels)))
    return PriorMaps(prior_files(os.fspath(options.priors)), weights.restorer.guide_channels)


def _with_ending(name: PurePath, ending: str) -> PurePath:
    return name.with_name(f"{name.name}{ending}.png")


def deblur_photographs(
    options: DeblurOptions,
    model: Path,
    paths: Iterable[Path],
    quiet: bool = False,
    tell: Callable[[Path], None] | None = None,
) -> Outcome:
    """Write the deblurred photographs of `paths`, files and folders, and return what came of them.

    An input that cannot be read whole is left out, and so is one that memory or disk are too small for; the others go
    on. A result that is there already is left as it is, so that the same call continues one that was stopped.

    Parameters
    ----------
    model : Path
        A run, or its weights.
    quiet : bool
        Show no progress; inputs left out are named on stderr all the same.
    tell : callable, optional
        Is told each result when it is written.

    Raises
    ------
    ValueError
        No weights, no inputs, a result in the place of an input, or codes asked for where there are none.
    """
    weights = load_weights(model)
    jobs = plan_jobs(options, paths)
    if options.z_samples is not None and not weights.restorer.latent:
        raise ValueError(f"--z-samples draws codes of the blur, and {weights.method.name} has none: leave it out")
    weights.restorer.choose(options.infer)
    maps = open_maps(options, weights)
    device = device_named(options.device)
    memory = None if options.memory_gib is None else int(options.memory_gib * GIB)
    dropout_seed = options.seed if options.mc_dropout else None
    means = Means(device, options.precision, options.tiles, memory, options.scratch or options.out, dropout_seed)
    check_dropout(weights.restorer, means)
    outcome = Outcome(len(jobs))
    if weights.restorer.caveat:
        print(f"{weights.path}: {weights.restorer.caveat}", file=sys.stderr)
    with ProgressLine(quiet, "images") as line:
        run = _Run(options, weights.restorer.to(device), means, outcome, None if quiet else line, maps)
        for job in jobs:
            try:
                for path in run.results(job):
                    if tell:
                        tell(path)
            except (BadImage, TooLarge, MemoryError, torch.OutOfMemoryError) as error:
                run.leave_out(job, error)
            run.finish_input()
    return outcome


@dataclass
class _Run:
    """What does not change from input to input."""

    options: DeblurOptions
    restorer: Restorer
    means: Means
    outcome: Outcome
    line: ProgressLine | None
    maps: LabelMaps | PriorMaps | None
    finished: int = 0

    def results(self, job: Job) -> Iterator[Path]:
        """Write the results of one input; yield each."""
        missing = [path for path in job.outputs if self.options.overwrite or not path.exists()]
        self.outcome.kept += [path for path in job.outputs if path not in missing]
        if not missing:
            return
        pixels, digest = read_photograph(job.input.path)
        alpha = None if pixels.alpha is None else enlarge_alpha(pixels.alpha, self.restorer.scale)
        if self.line and (how := explain(self.restorer, pixels.colors, self.means)):
            _say(job, f"is computed {how}")
        guide = self._read_guide(job, pixels.colors.shape[:2])
        codes = self._draw_codes(digest)
        for number, path in enumerate(missing):
            epsilon = None if codes is None else codes[job.outputs.index(path)][None]

            def show(done: float, number: int = number) -> None:
                self._show((number + done) / len(missing))

            colors = deblur_colors(self.restorer, pixels.colors, self.means, epsilon, show, guide)
            write_png(path, Pixels(colors, alpha, pixels.profile))
            self.outcome.written.append(path)
            yield path

    def leave_out(self, job: Job, error: Exception) -> None:
        """Note and say that an input has no result."""
        reason = error.reason if isinstance(error, BadImage) else "too-large"
        message = str(error).partition("\n")[0] or "there is not enough memory: give --memory-gib, or --tiles exact"
        self.outcome.bad.append(LeftOut(job.input.path, reason, message))
        _say(job, f"is left out: {message}")

    def finish_input(self) -> None:
        """Count one input as dealt with."""
        self.finished += 1
        self.outcome.done = self.finished
        if self.line:
            self.line.show(self.outcome)

    def _show(self, done: float) -> None:
        # The last part of an input is that its result is written.
        self.outcome.done = round(self.finished + min(done, 0.99), 2)
        if self.line:
            self.line.show(self.outcome)

    def _read_guide(self, job: Job, size: tuple[int, int]) -> np.ndarray | None:
        """Return the map of an input of `size` (H, W), as the restorer takes it; raises `BadImage` without one."""
        if self.maps is None:
            return None
        found = self.maps.read(encode_key(os.fspath(job.input.name)), size)
        return whole_prior(found, size) if self.restorer.guide == "prior" else found

    def _draw_codes(self, digest: bytes) -> Tensor | None:
        """Return (n, latent) numbers from N(0, 1), the same for the same image whatever its name and the device."""
        if self.options.z_samples is None:
            return None
        noise = Noise(self.options.seed, 0, range(self.options.z_samples), torch.device("cpu"))
        return noise.normal(f"code of {digest.hex()}", self.restorer.latent)


def _say(job: Job, words: str) -> None:
    # Where a bar is shown, it is drawn anew below.
    tqdm.write(f"{_as_text(job.input.path)} {words}", file=sys.stderr)
