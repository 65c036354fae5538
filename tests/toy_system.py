"""A system that trains in milliseconds, shards that it trains on, and processes of their own to train it in."""

import json
import multiprocessing
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import nn

from blurgen.options import option, resolve_together
from blurgen.shards import META, SOURCE, Layout, source_row, write_shard
from trainers.data import DataOptions
from trainers.loop import Job, train
from trainers.method import Method, MethodConfig, Restorer
from trainers.models import MODELS, method_class
from trainers.run_options import RunOptions

MODELS["toy"] = "toy_system:Toy"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["toy_system", "torch._dynamo", "trainers.models.cyclegan", "trainers.models.disentangled"]
)


@dataclass(frozen=True)
class ToyConfig(MethodConfig):
    """Options of `Toy`."""

    batch: int = option(2, "Images of each domain in a step.")
    crop: int = option(8, "Side of the training crops, px.")
    constant_epochs: int = option(1, "Epochs at the full learning rate.")
    decay_epochs: int = option(9, "Epochs in which it falls.")
    generator_every: int = option(3, "Steps per update of the generator.")
    held: int = option(5, "Past fakes that are kept.")
    ballast: int = option(1, "Numbers that are carried along, to make states larger.")
    broken_step: int = option(-1, "Step whose loss is multiplied by `factor`.")
    factor: float = option(1.0, "See there.")
    alarming: bool = option(False, "Alarm at every line.")


class ToyRestorer(Restorer):
    """One convolution."""

    multiple = 1

    def __init__(self, config):
        super().__init__()
        self.generator = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.register_buffer("ballast", torch.zeros(config.ballast))

    def restore(self, blurred, z=None):
        """Return the sharp image."""
        return torch.tanh(self.generator(blurred))


class Toy(Method):
    """A generator that is updated now and then, a critic, and fakes that are remembered."""

    name = "toy"
    paper = "nobody, never"
    Config = ToyConfig
    Restorer = ToyRestorer
    presets = {"default": {}, "gentle": {"lr": 1e-5, "held": 3}}  # noqa: RUF012

    def build(self):
        """Return the networks."""
        self.fakes = []
        return {"generator": self.restorer.generator, "critic": nn.Conv2d(3, 1, 3)}

    def sides(self):
        """Return what each optimiser trains."""
        return {"generators": ("generator",), "critics": ("critic",)}

    def step(self, batch):
        """Update the critic, and the generator when it is due."""
        fake = self.restorer.restore(batch.blurred + 0.1 * batch.noise.normal("toy", 3, 1, 1))
        self.fakes = [*self.fakes, fake.detach()][-self.config.held :]
        judge = self.networks["critic"]
        loss = (judge(batch.sharp) - 1).square().mean() + judge(self.fakes[0]).square().mean()
        if batch.step == self.config.broken_step:
            loss = loss * self.config.factor
        self.update("critics", loss)
        scalars = {"critic": loss.detach()}
        if (batch.step + 1) % self.config.generator_every == 0:
            distance = (fake - batch.blurred).abs().mean()
            self.update("generators", distance + (judge(fake) - 1).square().mean())
            scalars["distance"] = distance.detach()
        return scalars

    def alarms(self, scalars):
        """Return a sentence if asked for."""
        return [f"the critic is at {scalars['critic']:.3f}"] if self.config.alarming else []

    def extra_state(self):
        """Return the fakes."""
        return {"fakes": self.fakes}

    def load_extra_state(self, state):
        """Take them back."""
        self.fakes = list(state["fakes"])


def write_shards(
    path: Path, count: int = 24, crop: int = 16, seed: int = 0, lowres: tuple[int, ...] = (), classes: int = 0
) -> Path:
    """Write `count` samples of as many sources: smooth noise, and averaged over 3 px; `lowres` ones, and maps, too."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, crop // 4, crop // 4, 3))
    sharp = coarse.repeat(4, axis=1).repeat(4, axis=2)
    blurred = (sharp + np.roll(sharp, 1, 2) + np.roll(sharp, -1, 2)) // 3
    meta = np.zeros(count, META)
    meta["id"] = meta["source"] = np.arange(count)
    rows = [source_row(f"{seed}-{i}.png", sha256(f"{seed} {i}".encode()).digest(), crop, crop) for i in range(count)]
    arrays = {"sharp": sharp.astype(np.uint8), "blurred": blurred.astype(np.uint8)}
    for factor in lowres:
        for side in ("sharp", "blurred"):
            cells = arrays[side].reshape(count, crop // factor, factor, crop // factor, factor, 3)
            arrays[f"{side}_x{factor}"] = cells.mean((2, 4)).astype(np.uint8)
    if classes:
        arrays["label"] = (sharp[..., 0] % classes).astype(np.uint8)
        arrays["prior"] = np.moveaxis(np.eye(classes, dtype=np.float16)[coarse[..., 1] % classes], -1, 1)
    layout = Layout(crop, lowres=lowres, label=classes > 0, prior=classes)
    write_shard(path, layout, arrays, meta, np.array(rows, SOURCE), {"plan": {}, "licence": {}})
    return path


def job(name: str = "toy", **values) -> Job:
    """Return the job that the options `values` describe."""
    system = method_class(name)
    config, data, options = resolve_together((system.Config, DataOptions, RunOptions), values)
    return Job(system, config, data, options)


def train_here(name: str = "toy", **values):
    """Train without progress and return the summary."""
    return train(job(name, **values), quiet=True)


def lines(folder="run"):
    """Return what a run has logged."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def states(folder="run"):
    """Return the names of the states that a run keeps."""
    return sorted(path.name for path in Path(folder).glob("states/*"))


def read_state(name, folder="run"):
    """Return one of them."""
    return torch.load(Path(folder) / "states" / name, weights_only=True)


def start(function, *arguments, **values) -> multiprocessing.Process:
    """Start a function in a process of its own."""
    # A test that fails does not wait for what it has started.
    process = PROCESSES.Process(target=function, args=arguments, kwargs=values, daemon=True)
    process.start()
    return process


def finish(*processes: multiprocessing.Process) -> None:
    """Wait for processes, and fail with those that fail."""
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def start_together(world: int, port: int, name: str, **values) -> list[multiprocessing.Process]:
    """Start the processes of one run."""
    return [start(_join, rank, world, port, name, values) for rank in range(world)]


def _join(rank, world, port, name, values):
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
    os.environ.update({key: str(value) for key, value in places.items()})
    summary = train_here(name, **values)
    assert bool(summary) == (rank == 0), "what came of a run is told once"
