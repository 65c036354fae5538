"""Disentangled deblurring: which loss trains which part, and what they say of inverted colours."""

import itertools

import pytest
import torch
from torch import nn
from trainer_data import _quick_convolutions, batch_of, disentangled_parts, rescaled, tiny  # noqa: F401

from trainers.models import disentangled

NAME = "disentangled"
ALL_LOSSES = {"identity": 1.0}
ADVERSARIAL, DISTANCE = "over_scales", "l1"
CRITICS = ("critic_sharp", "critic_blurred", "critic_sharp_random", "critic_blurred_random")
SHARED = {"shared encoder blocks", "shared generator block"}
BLUR = {"blur encoder", "head of the mean", "head of the variance"}
DEBLURRING, BLURRING = {"stem of blurred", "branch of sharp"}, {"stem of sharp", "branch of blurred"}

# Loss -> what it trains, and nothing else. Deblurred images come from the stem of blurred images and the branch of
# sharp ones; a random code is none of the blur encoder's, which the regression of that code must not reach either.
TRAINS = {
    "adversarial": DEBLURRING | BLURRING | SHARED | BLUR,
    "random": DEBLURRING | BLURRING | SHARED,
    "kl": BLUR,
    "cycle": DEBLURRING | BLURRING | SHARED | BLUR,
    "perceptual": DEBLURRING | SHARED | BLUR,
    "perceptual_random": DEBLURRING | SHARED,
    "self_reconstruction": DEBLURRING | BLURRING | SHARED | BLUR,
    "identity": {"stem of sharp", "branch of sharp"} | SHARED | BLUR,
    "latent_regression": BLURRING | SHARED,
    "color": DEBLURRING | SHARED | BLUR,
}


def parts(method):
    """Return the modules that together hold every parameter once, by name."""
    critics = {
        f"{name} {scale}": critic
        for name in method.sides()["critics"]
        for scale, critic in enumerate(method.networks[name].scales)
    }
    return disentangled_parts(method.networks) | critics


def test_parts_hold_every_parameter_once():
    method = tiny(NAME)
    ids = [id(p) for part in parts(method).values() for p in part.parameters()]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in method.networks.parameters()}


def part_gradients(method, loss):
    """Return part -> the joint gradient of its parameters, None where autograd finds no way to any of them."""
    parameters = {name: list(part.parameters()) for name, part in parts(method).items()}
    flat = list(itertools.chain(*parameters.values()))
    found = iter(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True))
    gradients = {}
    for name, own in parameters.items():
        reached = [grad.flatten() for grad in itertools.islice(found, len(own)) if grad is not None]
        gradients[name] = torch.cat(reached) if reached else None
    return gradients


def is_none(gradient):
    return gradient is None or not gradient.any()


def losses_of(method):
    """Return the losses of one batch, and the gradient of their weighted sum on each side in each part."""
    batch = batch_of(method.config, step=1)
    made = method.translate(batch)
    generators = method.generator_losses(batch, made)
    weights = method.config.weights
    sums = {
        "generators": sum(weights[name] * loss for name, loss in generators.items()),
        "critics": sum(method.critic_losses(batch, made).values()),
    }
    terms = generators | method.critic_losses(batch, made)
    return terms, {side: part_gradients(method, loss) for side, loss in sums.items()}


@pytest.fixture(scope="module")
def narrow():
    """Return a narrow system with what `losses_of` says of it."""
    method = rescaled(tiny(NAME, **ALL_LOSSES))
    return method, *losses_of(method)


def assert_trains_its_parts_alone(name, method, terms, whole):
    if name in TRAINS:
        trained, side, weight = TRAINS[name], "generators", method.config.weights[name]
    else:
        trained, side, weight = {f"{name} {scale}" for scale in range(method.config.scales)}, "critics", 1
    for part, gradient in part_gradients(method, terms[name]).items():
        if part in trained:
            assert weight * gradient.norm() > 1e-4 * whole[side][part].norm(), (name, part)
        else:
            assert is_none(gradient), (name, part)


def test_losses_are_those_of_the_table(narrow):
    assert set(narrow[1]) == set(TRAINS) | set(CRITICS)


@pytest.mark.parametrize("name", [*TRAINS, *CRITICS])
def test_each_loss_trains_what_it_should_and_nothing_else(name, narrow):
    assert_trains_its_parts_alone(name, *narrow)


@pytest.mark.slow
def test_each_loss_trains_its_networks_at_full_width_from_the_first_step():
    method = tiny(NAME, width=64, crop=64, scales=3, batch=1, **ALL_LOSSES)
    terms, whole = losses_of(method)
    for name in (*TRAINS, *CRITICS):
        assert_trains_its_parts_alone(name, method, terms, whole)


# Loss -> the function that its two terms are values of, and what each of them trains.
TERMS = {
    "adversarial": (ADVERSARIAL, DEBLURRING | SHARED | BLUR, BLURRING | SHARED | BLUR),
    "random": (ADVERSARIAL, DEBLURRING | SHARED, BLURRING | SHARED),
    "cycle": (DISTANCE, TRAINS["cycle"], TRAINS["cycle"]),
    "self_reconstruction": (
        DISTANCE,
        {"stem of sharp", "branch of sharp"} | SHARED | BLUR,
        {"stem of blurred", "branch of blurred"} | SHARED | BLUR,
    ),
}


def alone(name, monkeypatch):
    """Return a system with the loss `name` alone, and the list that the terms of its losses will be in."""
    function, *_ = TERMS[name]
    others = {other: 0.0 for other in TRAINS if other != name}
    method, terms = rescaled(tiny(NAME, **{**others, name: 1.0})), []
    computed = getattr(disentangled, function)

    def watched(*arguments):
        terms.append(computed(*arguments))
        return terms[-1]

    monkeypatch.setattr(disentangled, function, watched)
    return method, terms


@pytest.mark.parametrize("name", TERMS)
def test_each_term_of_a_loss_trains_what_it_should_and_nothing_else(name, monkeypatch):
    method, terms = alone(name, monkeypatch)
    batch = batch_of(method.config, step=1)
    method.generator_losses(batch, method.translate(batch))
    assert len(terms) == 2
    for term, trained in zip(terms, TERMS[name][1:], strict=True):
        reached = {part for part, gradient in part_gradients(method, term).items() if not is_none(gradient)}
        assert reached == trained


def test_cycles_return_by_the_content_and_by_the_blur_of_the_images_made(monkeypatch):
    method, terms = alone("cycle", monkeypatch)
    batch = batch_of(method.config, step=1)
    made = method.translate(batch)
    deblurred, reblurred = (image.detach().requires_grad_() for image in (made.sharp_of_blurred, made.blurred_of_sharp))
    method.generator_losses(batch, made._replace(sharp_of_blurred=deblurred, blurred_of_sharp=reblurred))
    # The sharp image has content and blur code of the reblurred one, the blurred image the same code.
    reached = [
        torch.autograd.grad(term, (deblurred, reblurred), retain_graph=True, allow_unused=True) for term in terms
    ]
    assert [[not is_none(gradient) for gradient in pair] for pair in reached] == [[False, True], [True, True]]


def test_generators_take_the_sum_of_all_gradients():
    """The public code's circulating repair lost all but those of the random branch."""
    method = tiny(NAME, **ALL_LOSSES)
    method.optimizers["generators"].step = lambda: None
    method.optimizers["critics"].step = lambda: None
    batch = batch_of(method.config, step=1)
    method.step(batch)
    losses = method.generator_losses(batch, method.translate(batch))
    generators = method.parameters("generators")
    expected = [torch.zeros_like(p) for p in generators]
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, generators, retain_graph=True, allow_unused=True)
        for total, grad in zip(expected, found, strict=True):
            total += 0 if grad is None else method.config.weights[name] * grad
    for p, total in zip(generators, expected, strict=True):
        torch.testing.assert_close(p.grad, total, rtol=1e-3, atol=1e-4 * total.abs().max().item() + 1e-5)


def test_the_generators_update_leaves_no_gradient_in_critics_or_features():
    method, seen = tiny(NAME), {}
    update = method.update

    def watched(side, loss):
        if side == "generators":
            seen.update({name: p.grad.clone() for name, p in method.networks.named_parameters() if "critic" in name})
        update(side, loss)

    method.update = watched
    method.step(batch_of(method.config, step=1))
    after = {name: p.grad for name, p in method.networks.named_parameters() if "critic" in name}
    assert seen.keys() == after.keys()
    assert all(torch.equal(seen[name], grad) for name, grad in after.items())
    assert all(p.requires_grad for p in method.networks.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in method.context.features.parameters())


class Painter(nn.Module):
    """In the place of the generator of sharp images: the blurred image itself, or its negative."""

    def __init__(self, blurred, sign):
        super().__init__()
        self.image = sign * blurred

    def forward(self, content, z):
        return self.image + 0 * content.mean() + 0 * z.mean()


@pytest.mark.parametrize(("sign", "alarms"), [(1, 0), (-1, 1)])
def test_inverted_colours_raise_the_alarm(sign, alarms):
    method = tiny(NAME)
    batch = batch_of(method.config, step=1)
    method.networks["generator_sharp"] = Painter(batch.blurred, sign)
    scalars = {name: value.item() for name, value in method.step(batch).items()}
    assert scalars["color_correlation"] == pytest.approx(sign, abs=1e-5)
    sentences = method.alarms(scalars)
    assert len(sentences) == alarms
    assert all("colours of the deblurred images are inverted" in sentence for sentence in sentences)


def test_colour_and_perceptual_losses_know_an_inverted_image_from_an_honest_one():
    method = tiny(NAME)
    batch, found = batch_of(method.config, step=1), {}
    for sign in (1, -1):
        method.networks["generator_sharp"] = Painter(batch.blurred, sign)
        found[sign] = method.generator_losses(batch, method.translate(batch))
    for name, reference in itertools.product(("color", "perceptual", "perceptual_random"), (0.0,)):
        assert found[1][name].item() == pytest.approx(reference, abs=1e-6)
        assert found[-1][name].item() > 1e-3, name
