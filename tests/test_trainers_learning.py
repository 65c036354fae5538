"""Systems learn: all of them a few images by heart, and from each loss what it is for, unless it is spoilt."""

import pytest
import torch
from lessons import ALL_LOSSES, LESSONS, SPOILT, distance, taught
from trainer_data import SYSTEMS, _quick_convolutions, batch_of, noise, rescaled, tiny  # noqa: F401

from trainers.method import Batch

IMAGES, OVERFIT_STEPS = 4, 60
# Settings with which a system is learned within seconds, and the share of the first error that is left at the end; an
# image of mean colours leaves 0.8. What stands in for VGG-19 here tells too little of pixels for cycles in it alone.
OVERFIT = {
    "disentangled": ({"width": 8, "crop": 16, "scales": 1, "generator_every": 1}, 0.5),
    "disentangled-sr": ({"width": 8, "scales": 1, "generator_every": 1}, 0.5),
    "cyclegan": ({}, 0.35),
    "as-cyclegan": ({"cycle_pixel": 10.0}, 0.35),
}
OTHERWISE = ({}, 0.65)
LESSON_STEPS = 12


def reconstruction_error(method, batch):
    """Return the mean absolute difference between images and what a system remakes of them, without any noise."""
    net, sharp, blurred = method.networks, batch.sharp, batch.blurred
    if method.pairing == "paired":
        return distance(method.restorer(blurred), sharp)
    if "content_sharp" not in net:
        to_sharp, to_blurred = net["generator_sharp"], net["generator_blurred"]
        return distance(to_sharp(to_blurred(sharp)), sharp) + distance(to_blurred(to_sharp(blurred)), blurred)
    content_sharp, content_blurred = net["content_sharp"](sharp), net["content_blurred"](blurred)
    z = net["blur_encoder"](blurred)[0]
    reblurred, deblurred = net["generator_blurred"](content_sharp, z), net["generator_sharp"](content_blurred, z)
    z_again = net["blur_encoder"](reblurred)[0]
    return (
        distance(net["generator_sharp"](content_sharp, z), sharp)
        + distance(net["generator_blurred"](content_blurred, z), blurred)
        + distance(net["generator_sharp"](net["content_blurred"](reblurred), z_again), sharp)
        + distance(net["generator_blurred"](net["content_sharp"](deblurred), z_again), blurred)
    )


def error_left(name, steps=OVERFIT_STEPS, seed=0):
    """Return the share of its first reconstruction error that a system has left after `steps` on the same images."""
    settings, _ = OVERFIT.get(name, OTHERWISE)
    method = rescaled(tiny(name, seed, batch=IMAGES, lr=5e-3, **settings))
    batch = batch_of(method.config, paired=method.pairing == "paired")
    with torch.no_grad():
        before = reconstruction_error(method, batch)
    for step in range(steps):
        method.step(Batch(batch.sharp, batch.blurred, noise(step, range(IMAGES))))
    with torch.no_grad():
        return reconstruction_error(method, batch) / before


@pytest.mark.parametrize(
    "name", [name if name == "cyclegan" else pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS]
)
def test_every_system_learns_a_few_images_by_heart(name):
    _, share = OVERFIT.get(name, OTHERWISE)
    assert error_left(name) < share


CASES = {f"{name}-{lesson.loss}": (name, lesson) for name, (_, lessons) in LESSONS.items() for lesson in lessons}
QUICK = ("cyclegan-cycle", "cyclegan-critic_sharp")


def assert_learned_unless_spoilt(name, lesson, seed, monkeypatch):
    assert taught(name, lesson, None, seed, LESSON_STEPS, monkeypatch) < lesson.share
    for spoilt in SPOILT:
        if spoilt == "swapped" and not lesson.swapped:
            continue
        left = taught(name, lesson, spoilt, seed, LESSON_STEPS, monkeypatch)
        assert not left < lesson.share, f"{spoilt}: {left:.2f} of the error is left"


@pytest.mark.parametrize("case", QUICK)
def test_a_loss_teaches_what_it_is_for_unless_spoilt(case, monkeypatch):
    assert_learned_unless_spoilt(*CASES[case], 0, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_loss_teaches_what_it_is_for_unless_spoilt(case, monkeypatch):
    for seed in range(3):
        assert_learned_unless_spoilt(*CASES[case], seed, monkeypatch)


@pytest.mark.parametrize("name", LESSONS)
def test_there_is_a_lesson_for_every_loss(name):
    method = tiny(name, **ALL_LOSSES.get(name, {}))
    batch = batch_of(method.config, paired=method.pairing == "paired")
    if method.pairing == "paired":
        made = method.restorer(batch.blurred)
        losses = method.generator_losses(batch, made) | method.critic_losses(batch, made.detach(), 0)
    else:
        made = method.translate(batch)
        losses = method.generator_losses(batch, made) | method.critic_losses(batch, made)
    assert {lesson.loss for lesson in LESSONS[name][1]} == set(losses)
