"""What a system weighs, before a run: parameters, memory, time of a step."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from trainers.feed import Feed
from trainers.loop import Job, Training
from trainers.method import Batch, Context, Method
from trainers.models import MODELS, method_class
from trainers.processes import device_name, joined, peak_memory_mib
from trainers.single import SingleFeed

LONGEST_CYCLE = 1000


def list_systems() -> list[dict[str, Any]]:
    """Return a row for every system at its default Config: name, paper, what it needs, parameters."""
    return [_row(method_class(name)) for name in MODELS]


def _row(system: type[Method]) -> dict[str, Any]:
    config, nowhere = system.Config(), torch.device("meta")
    with nowhere, torch.random.fork_rng(devices=[]):
        method = system(config, Context(nowhere))
    return {
        "name": system.name,
        "paper": system.paper,
        "data": system.pairing,
        "vgg": system.needs_features(config),
        "presets": list(system.presets),
        "parameters": count(method.networks),
        "parameters_of_inference": count(method.restorer),
    }


def count(network: nn.Module) -> int:
    """Return how many numbers a network trains, those that are shared once."""
    return sum(parameter.numel() for parameter in network.parameters())


def dry_run(job: Job) -> dict[str, Any]:
    """Train `job` until every side was updated, twice, and return sizes and times; write nothing.

    Raises
    ------
    ValueError
        What can't be trained.
    RuntimeError
        A loss that is not finite.
    """
    with joined(job.options.device) as processes:
        training = Training(job, processes)
        with training.feed() as feed:
            timed = [_time_from(start, training, feed) for start in job.system.milestones(training.job.config)]
    steps, seconds = timed[0][0], sum(seconds for _, seconds in timed) / len(timed)
    method, total = training.method, training.total
    return {
        "system": method.name,
        "device": device_name(processes.device),
        "data": training.data.counts,
        "parameters": {name: count(network) for name, network in method.networks.items()},
        "parameters_in_all": count(method.networks),
        "parameters_of_inference": count(method.restorer),
        "vgg": training.features,
        "steps_of_an_update_cycle": steps,
        "seconds_a_step": round(seconds, 4),
        "images_a_second": round(job.config.batch / seconds, 2),
        "peak_memory_mib": peak_memory_mib(processes.device),
        "steps": total,
        "hours_in_all": round(total * seconds / 3600, 2),
    }


def _time_from(start: int, training: Training, feed: Feed | SingleFeed) -> tuple[int, float]:
    """Return the steps in which every side is updated, from `start` on, and the seconds that one takes."""
    training.step, batches = start, feed.steps(start)
    # The first cycle compiles, and lets the device choose its algorithms.
    _cycle(training, batches)
    started = time.perf_counter()
    steps = _cycle(training, batches)
    return steps, (time.perf_counter() - started) / steps


def _cycle(training: Training, batches: Iterator[Batch]) -> int:
    """Take steps until every side was updated, and return how many."""
    missing, steps = set(training.method.optimizers), 0
    while missing and steps < LONGEST_CYCLE:
        training.averages.add(training.advance(next(batches)))
        missing -= training.method.grad_norms.keys()
        steps += 1
    # To read the averages waits for the device.
    training.report()
    return steps
