"""The only training loop: it steps, logs, measures, saves and resumes any system, and knows no formula."""

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from blurgen.lock import FolderLock
from blurgen.options import as_values, to_toml
from blurgen.progress import ProgressLine
from blurgen.shards import remove_drafts
from trainers.arithmetic import autocast, begin_step, compile_networks, set_precision
from trainers.checkpoints import STATES, States, differences, parse_state
from trainers.data import Data, DataOptions, open_data
from trainers.feed import Feed
from trainers.logs import SHEETS, Averages, Log, Rate, write_sheet
from trainers.method import Batch, CommonConfig, Context, Method
from trainers.processes import Processes, Stop, joined, peak_memory_mib
from trainers.rebuilding import rebuilt
from trainers.run_options import RunOptions
from trainers.single import SINGLE, SingleData, SingleFeed, SingleOptions, open_single
from trainers.splits import SPLIT_TABLE
from trainers.transfer import begin, images_behind, require_origins, resumed
from trainers.validation import measure
from trainers.vgg import open_features
from trainers.weights import BEST, LAST, save_weights

EXPLODED = 1e6
# Networks that have learned nothing yet make any colours.
SETTLING_STEPS = 500
FORMAT = 1


@dataclass(frozen=True)
class Job:
    """What is to be trained, on what, and how."""

    system: type[Method]
    config: CommonConfig
    data: DataOptions | SingleOptions
    options: RunOptions

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return self.options.out or Path("runs") / self.system.name


@dataclass
class Progress:
    """How far a run is, in steps."""

    total: int
    done: int
    note: str = ""


def train(job: Job, quiet: bool = False) -> dict[str, Any]:
    """Train `job` to its end, from where an earlier call stopped; return what came of it, in the first process.

    Raises
    ------
    ValueError
        What can't be trained, or an `out` that was begun with other settings.
    RuntimeError
        The run diverged, or another process is writing to `out`.
    """
    with joined(job.options.device) as processes:
        training = Training(job, processes)
        # What is wrong with the data shall be known before there is a folder.
        with training.feed() as feed, _held(job.out) if processes.is_first else nullcontext():
            try:
                training.resume()
                training.run(feed, quiet)
            finally:
                training.close()
    return training.summary() if processes.is_first else {}


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder):
        yield


class Training:
    """A run in memory: the networks, the data, and how far it is.

    Parameters
    ----------
    job : Job
    processes : Processes
    """

    def __init__(self, job: Job, processes: Processes):
        options = job.options
        processes.share(job.config.batch)
        set_precision(options.precision, processes.device)
        self.data, config = _open(job)
        self.job, self.processes = replace(job, config=config), processes
        self.epoch_steps = self.data.steps_per_epoch(config.batch)
        self.total = options.total_steps(self.epoch_steps, config.epochs)
        self.states = States(job.out, options.keep)
        # All processes of a new run take the networks of the first.
        new = processes.is_first and not self.states.paths()
        if new:
            # Before weights are sought that take minutes to download.
            require_origins(options)
        self.method, self.features = build_method(self.job, processes.device)
        compile_networks(self.method.networks.values(), options.compile, processes.device)
        self.begun_with = begin(self.method, options) if new else {}
        self.step, self.best_db = 0, -math.inf
        self.measured: dict[str, Any] = {}
        self.averages, self.rate = Averages(), Rate()
        self.alarmed: set[str] = set()
        self.log: Log | None = None

    def identity(self) -> dict[str, Any]:
        """Return what a run must keep to be the same run."""
        fixed = {"seed": self.job.options.seed, "data": _fingerprint(self.data), "vgg": self.features}
        return {"system": self.method.name, **as_values(self.job.config), **fixed, **self.begun_with}

    def resume(self) -> None:
        """Take the newest state of the run's folder, if it has one; write down what the run is made of."""
        first, out = self.processes.is_first, self.job.out
        data = self.processes.spread(self.states.read_newest() if first else None)
        offset = 0
        if data is None:
            if first and (out / LAST).exists():
                raise ValueError(
                    f"{out} holds the weights of a run, but no state to continue it from: name another --out"
                )
            self.processes.spread_tensors(self.method.networks.state_dict().values())
            self.processes.spread_tensors(self.method.averaged.state_dict().values())
        else:
            offset = self.take(parse_state(data))
        if first:
            self.describe()
            self.log = Log(out, offset, self.step)

    def take(self, state: dict[str, Any]) -> int:
        """Go on from `state`, and return where metrics.jsonl ended then; refuse one of another run."""
        if state.get("format") != FORMAT:
            raise ValueError(f"{self.job.out} was begun by another version of trainers: name another --out")
        self.begun_with = resumed(state["identity"], self.job.options)
        lines = differences(state["identity"], self.identity())
        if lines:
            raise ValueError(
                f"{self.job.out} was begun with other settings ({'; '.join(lines)}): "
                "repeat the first command to continue it, or name another --out"
            )
        self.method.load_state(state["method"])
        self.step, self.best_db = state["step"], state["best_db"]
        return state["metrics_offset"]

    def describe(self) -> None:
        """Write down what the run is made of, and remove what a killed one was writing."""
        out, job = self.job.out, self.job
        for folder in (out, out / STATES, out / SHEETS):
            remove_drafts(folder)
        (out / "config.toml").write_text(to_toml(job.config), encoding="utf-8")
        (out / "run.toml").write_text(to_toml(job.options) + to_toml(job.data), encoding="utf-8")
        rows = ["\t".join(row) for row in self.data.roles()] + images_behind(out, job.options)
        text = "\n".join(["role\tsha256\tkey", *rows, ""])
        (out / SPLIT_TABLE).write_text(text, encoding="utf-8", errors="surrogateescape")

    def close(self) -> None:
        """Close the files of the run."""
        if self.log:
            self.log.close()

    def feed(self) -> Feed | SingleFeed:
        """Return the batches of this process."""
        options, processes = self.job.options, self.processes
        return self.data.feed(
            self.job.config,
            device=processes.device,
            workers=options.workers,
            resident=options.resident,
            rank=processes.rank,
            world=processes.world,
        )

    def run(self, feed: Feed | SingleFeed, quiet: bool) -> None:
        """Train on the batches of `feed` to the end; Ctrl-C and SIGTERM end it after the step, once all is saved."""
        if self.step >= self.total:
            return
        quiet = quiet or not self.processes.is_first
        if self.method.keeps_best and not (len(self.data.validation) or quiet):
            tqdm.write("there are no validation pairs: no sheets, and the last weights count as the best", sys.stderr)
        with Stop(self.processes) as stop, ProgressLine(quiet, "steps") as line:
            batches = feed.steps(self.step)
            self.rate.start()
            while self.step < self.total:
                self.averages.add(self.advance(next(batches)))
                stopping = stop.agreed()
                self.attend(stopping)
                line.show(Progress(self.total, self.step, self.rate.note))
                if stopping:
                    stop.obey()

    def advance(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step and return its scalars, the gradient norms of the sides that were due among them."""
        options, method = self.job.options, self.method
        begin_step(options.compile)
        method.set_epoch(self.step // self.epoch_steps)
        method.grad_norms.clear()
        with autocast(options.precision, self.processes.device):
            scalars = method.step(batch)
        method.average_weights()
        self.step += 1
        self.rate.count(self.job.config.batch)
        return {**scalars, **{f"grad_norm_{side}": norm for side, norm in method.grad_norms.items()}}

    def attend(self, stopping: bool) -> None:
        """Log, measure and save what is due after a step."""
        options = self.job.options
        ended = self.step == self.total
        measuring = ended or not self.step % options.validate_every
        saving = measuring or stopping or not self.step % options.save_every
        if saving or not self.step % options.log_every:
            self.report()
        if measuring and self.processes.is_first:
            self.measure()
        if saving and self.processes.is_first:
            self.save()
        if saving:
            self.rate.start()

    def report(self) -> None:
        """Write a line of averages; stop a run that has diverged."""
        scalars = self.averages.take()
        for name, value in scalars.items():
            if not math.isfinite(value) or (abs(value) > EXPLODED and not name.startswith("grad_norm_")):
                raise RuntimeError(
                    f"the run has diverged: {name} is {value:g} at step {self.step}; {self.states.last_good()}"
                )
        if not self.log:
            return
        self.rate.stop()
        for sentence in self.method.alarms(scalars) if self.step > SETTLING_STEPS else ():
            self.alarm(sentence)
        facts = {"epoch": self.step / self.epoch_steps, "images_per_second": self.rate.value, "lr": _lr(self.method)}
        self.log.write(self.step, facts | scalars)

    def alarm(self, sentence: str) -> None:
        """Say what has gone wrong, once."""
        kind = re.sub(r"[-\d.]+", "", sentence)
        if kind not in self.alarmed:
            tqdm.write(f"alarm at step {self.step}: {sentence}", file=sys.stderr)
            self.alarmed.add(kind)
            self.log.write(self.step, {"alarm": sentence})

    def measure(self) -> None:
        """Measure the averaged weights on validation pairs; keep them where they are the best yet."""
        measured = measure(self.method.averaged, self.data.validation, self.processes.device)
        found = [one for one in (rebuilt(self.method), measured) if one]
        if not found:
            return
        sheet = write_sheet(self.job.out, self.step, [row for one in found for row in one.rows])
        self.log.picture(self.step, sheet)
        self.measured = {name: value for one in found for name, value in one.facts().items()}
        if measured and self.data.protocol:
            self.measured["protocol"] = self.data.protocol
        self.log.write(self.step, self.measured)
        if measured and self.method.keeps_best and measured.psnr_db > self.best_db:
            self.best_db = measured.psnr_db
            save_weights(self.job.out / BEST, self.method, self.facts() | {"validation": measured.facts()})

    def save(self) -> None:
        """Write the state that the same command goes on from, and the weights as they are."""
        state = {
            "format": FORMAT,
            "method": self.method.state(),
            "step": self.step,
            "identity": self.identity(),
            "best_db": self.best_db,
            "metrics_offset": self.log.offset(),
        }
        self.states.save(self.step, state)
        save_weights(self.job.out / LAST, self.method, self.facts())

    def facts(self) -> dict[str, Any]:
        """Return what is said of weights."""
        return {"step": self.step, "seed": self.job.options.seed, "vgg": self.features, **self.begun_with}

    def summary(self) -> dict[str, Any]:
        """Return what came of the run."""
        best = {"best_validation_psnr_db": round(self.best_db, 2)} if math.isfinite(self.best_db) else {}
        if not self.method.keeps_best:
            best = {name: round(x, 2) if isinstance(x, float) else x for name, x in self.measured.items()}
        epochs = round(self.step / self.epoch_steps, 2)
        memory = {"peak_memory_mib": peak_memory_mib(self.processes.device)}
        return {"out": str(self.job.out), "steps": self.step, "epochs": epochs, **best, **memory}


def _open(job: Job) -> tuple[Data | SingleData, CommonConfig]:
    """Return the data of a job, and its Config, which knows their classes, or the size of a single image."""
    system, config, seed = job.system, job.config, job.options.seed
    if system.pairing != SINGLE:
        shards = open_data(job.data, system.pairing, seed, system.arrays(config))
        return shards, system.with_classes(config, shards.classes)
    data = open_single(job.data, config, seed)
    return data, system.fitted(config, *data.image.pixels.shape[:2])


def _fingerprint(data: Data | SingleData) -> str:
    """Return a hash of all images and of what each is used for, wherever the files lie."""
    digest = blake2b(digest_size=16)
    for shards, _ in data.dealt:
        for column in (shards.meta["source"], shards.meta["crc32"], shards.sources["sha256"]):
            digest.update(np.ascontiguousarray(column))
    for row in data.roles():
        digest.update("\t".join(row).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _lr(method: Method) -> float:
    return next(iter(method.optimizers.values())).param_groups[0]["lr"]


def build_method(job: Job, device: torch.device) -> tuple[Method, str]:
    """Return the system with its first weights, and a sentence on the perceptual features it has."""
    features, words = None, "none"
    if job.system.needs_features(job.config):
        last, normalised = job.system.last_feature(job.config), job.config.features_normalised
        features, words = open_features(job.options.features, last, normalised)
        features = features.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.options.seed)
        return job.system(job.config, Context(device, features)), words
