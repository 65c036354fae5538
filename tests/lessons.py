"""What each loss of a system is for, as a number that falls where it is learned, and how each could be spoilt.

The numbers are written out from the images that the networks make, without the losses of `trainers`.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from trainer_data import batch_of, rescaled, tiny

from trainers.method import Batch, Method

DISENTANGLED = {"crop": 16, "scales": 1, "generator_every": 1, "weight_decay": 0.0, "code_noise": 0.0}
CYCLEGAN = {"crop": 32, "pool": 0}


@dataclass(frozen=True)
class Lesson:
    """What one loss alone brings about.

    Attributes
    ----------
    loss : str
        Its name.
    observe : callable
        Of a system and a batch, the number that falls.
    share : float
        Below this share of its first value where the loss is learned, and not where it is spoilt.
    swapped : dict
        Function of the system's module -> what exchanges its arguments or its target, given that function and a batch.
    weights : tuple of str
        Weights of the Config that the loss needs beside its own.
    prepare : callable, optional
        Brings the system where there is something to learn.
    """

    loss: str
    observe: Callable[[Method, Batch], float]
    share: float
    swapped: Mapping[str, Callable[[Callable, Batch], Callable]]
    weights: tuple[str, ...] = ()
    prepare: Callable[[Method], None] = field(default=lambda method: None)


def distance(image: Tensor, target: Tensor) -> float:
    return (image - target).abs().mean().item()


def judged_fake(logits: list[Tensor]) -> float:
    """Return the probability with which a critic takes images for fakes."""
    return torch.cat([scale.flatten() for scale in logits]).sigmoid().neg().add(1).mean().item()


def translated(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Return the images that disentangled deblurring makes of a sharp and a blurred one, and what it reads of them."""
    net, made = method.networks, method.translate(batch)
    c_s, c_b, z, z_r = made.content_sharp, made.content_blurred, made.z, made.z_random
    images = {
        "s_b": net["generator_sharp"](c_b, z),
        "b_s": net["generator_blurred"](c_s, z),
        "s_s": net["generator_sharp"](c_s, z),
        "b_b": net["generator_blurred"](c_b, z),
        "s_r": net["generator_sharp"](c_b, z_r),
        "b_r": net["generator_blurred"](c_s, z_r),
    }
    z_again = net["blur_encoder"](images["b_s"])[0]
    images["s_again"] = net["generator_sharp"](net["content_blurred"](images["b_s"]), z_again)
    images["b_again"] = net["generator_blurred"](net["content_sharp"](images["s_b"]), z_again)
    return images | {"z_r": z_r, "z_r_read": net["blur_encoder"](images["b_r"])[0]}


def of_images(observed: Callable[[Method, Batch, Mapping[str, Tensor]], float]) -> Callable[[Method, Batch], float]:
    return lambda method, batch: observed(method, batch, translated(method, batch))


def fooled(suffix: str, sharp: str, blurred: str) -> Callable[[Method, Batch], float]:
    def observe(method: Method, batch: Batch, images: Mapping[str, Tensor]) -> float:
        net = method.networks
        return judged_fake(net[f"critic_sharp{suffix}"](images[sharp])) + judged_fake(
            net[f"critic_blurred{suffix}"](images[blurred])
        )

    return of_images(observe)


def mistaken(critic: str, real: str, fake: str) -> Callable[[Method, Batch], float]:
    """Return the probability with which a critic takes the real for a fake and the reverse."""

    def observe(method: Method, batch: Batch, images: Mapping[str, Tensor]) -> float:
        judge = method.networks[critic]
        return judged_fake(judge(getattr(batch, real))) + 1 - judged_fake(judge(images[fake]))

    return of_images(observe)


def divergence(method: Method, batch: Batch) -> float:
    mean, log_variance = method.networks["blur_encoder"](batch.blurred)
    # What grows beyond all bounds is an answer, too.
    code = Normal(mean, log_variance.exp().sqrt(), validate_args=False)
    return kl_divergence(code, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(1).mean().item()


def far_from_normal(method: Method) -> None:
    method.networks["blur_encoder"].mean.bias.data += 2
    method.networks["blur_encoder"].log_variance.bias.data -= 2


def feature_difference(name: str) -> Callable[[Method, Batch], float]:
    def observe(method: Method, batch: Batch, images: Mapping[str, Tensor]) -> float:
        features = method.context.features
        return (features(images[name]) - features(batch.blurred)).pow(2).mean().item()

    return of_images(observe)


def other_label(loss: Callable, batch: Batch) -> Callable:
    """Ask for the label of fakes instead of that of real images."""
    return lambda fake: loss(-fake)


def label_zero(loss: Callable, batch: Batch) -> Callable:
    return lambda fake: loss(fake + 1)


def exchanged(loss: Callable, batch: Batch) -> Callable:
    return lambda real, fake: loss(fake, real)


def other_image(loss: Callable, batch: Batch) -> Callable:
    """Compare with the image of the other domain."""

    def spoilt(image: Tensor, target: Tensor) -> Tensor:
        return loss(image, batch.blurred if torch.equal(target, batch.sharp) else batch.sharp)

    return spoilt


def other_code(loss: Callable, batch: Batch) -> Callable:
    """Ask for the code of the batch's other image."""
    return lambda code, target: loss(code, target.roll(1, 0))


def other_features(loss: Callable, batch: Batch) -> Callable:
    return lambda features, image, target: loss(features, image, features(batch.sharp))


DISENTANGLED_LESSONS = (
    Lesson("adversarial", fooled("", "s_b", "b_s"), 0.8, {"bce_generator": other_label}),
    Lesson("random", fooled("_random", "s_r", "b_r"), 0.9, {"bce_generator": other_label}),
    # Exchanging mean and variance moves the optimum nowhere; that the loss is the divergence is tested by its value.
    Lesson("kl", divergence, 0.5, {}, prepare=far_from_normal),
    Lesson(
        "cycle",
        of_images(lambda _, batch, x: distance(x["s_again"], batch.sharp) + distance(x["b_again"], batch.blurred)),
        0.85,
        {"l1": other_image},
    ),
    Lesson(
        "self_reconstruction",
        of_images(lambda _, batch, x: distance(x["s_s"], batch.sharp) + distance(x["b_b"], batch.blurred)),
        0.6,
        {"l1": other_image},
    ),
    Lesson("identity", of_images(lambda _, batch, x: distance(x["s_s"], batch.sharp)), 0.6, {"l1": other_image}),
    Lesson(
        "latent_regression",
        of_images(lambda _, __, x: distance(x["z_r_read"], x["z_r"])),
        0.9,
        {"l1": other_code},
        ("random",),
    ),
    Lesson("perceptual", feature_difference("s_b"), 0.2, {"feature_distance": other_features}),
    Lesson("perceptual_random", feature_difference("s_r"), 0.2, {"feature_distance": other_features}, ("random",)),
    Lesson("color", of_images(lambda _, batch, x: distance(x["s_b"].mean((2, 3)), batch.blurred.mean((2, 3)))),
           0.5, {"color_distance": other_image}),
    *(
        Lesson(name, mistaken(name, real, fake), 0.5, {"bce_critic": exchanged}, ("adversarial", "random"))
        for name, real, fake in (
            ("critic_sharp", "sharp", "s_b"),
            ("critic_blurred", "blurred", "b_s"),
            ("critic_sharp_random", "sharp", "s_r"),
            ("critic_blurred_random", "blurred", "b_r"),
        )
    ),
)  # fmt: skip


def unreal(method: Method, batch: Batch) -> float:
    """Return how far the logits of both kinds of fakes are below those of real images, which are 1."""
    net = method.networks
    sharp, blurred = net["generator_sharp"](batch.blurred), net["generator_blurred"](batch.sharp)
    return 2 - net["critic_sharp"](sharp).mean().item() - net["critic_blurred"](blurred).mean().item()


def there_and_back(method: Method, batch: Batch) -> float:
    to_sharp, to_blurred = method.networks["generator_sharp"], method.networks["generator_blurred"]
    return distance(to_sharp(to_blurred(batch.sharp)), batch.sharp) + distance(
        to_blurred(to_sharp(batch.blurred)), batch.blurred
    )


def kept(method: Method, batch: Batch) -> float:
    net = method.networks
    return distance(net["generator_sharp"](batch.sharp), batch.sharp) + distance(
        net["generator_blurred"](batch.blurred), batch.blurred
    )


def indistinct(domain: str, other: str) -> Callable[[Method, Batch], float]:
    """Return how much less than 1 the logits of real images are above those of fakes."""

    def observe(method: Method, batch: Batch) -> float:
        critic, fake = (
            method.networks[f"critic_{domain}"],
            method.networks[f"generator_{domain}"](getattr(batch, other)),
        )
        return 1 - (critic(getattr(batch, domain)).mean() - critic(fake).mean()).item()

    return observe


CYCLEGAN_LESSONS = (
    Lesson("adversarial", unreal, 0.5, {"least_squares_generator": label_zero}),
    Lesson("cycle", there_and_back, 0.7, {"l1": other_image}),
    Lesson("identity", kept, 0.6, {"l1": other_image}),
    Lesson("critic_sharp", indistinct("sharp", "blurred"), 0.5, {"least_squares_critic": exchanged}, ("adversarial",)),
    Lesson(
        "critic_blurred", indistinct("blurred", "sharp"), 0.5, {"least_squares_critic": exchanged}, ("adversarial",)
    ),
)

LESSONS = {"disentangled": (DISENTANGLED, DISENTANGLED_LESSONS), "cyclegan": (CYCLEGAN, CYCLEGAN_LESSONS)}
SPOILT = ("negated", "detached", "swapped")


def taught(name: str, lesson: Lesson, spoilt: str | None, seed: int, steps: int, monkeypatch: Any) -> float:
    """Return the share of its first value that what `lesson` observes has after training on that loss alone."""
    settings, _ = LESSONS[name]
    method = rescaled(student(name, lesson, settings, seed))
    lesson.prepare(method)
    batch = tinted(batch_of(method.config, seed=seed))
    if spoilt == "swapped":
        module = importlib.import_module(type(method).__module__)
        for function, swap in lesson.swapped.items():
            monkeypatch.setattr(module, function, swap(getattr(module, function), batch))
    learn_alone(method, lesson.loss, spoilt)
    with torch.no_grad():
        before = lesson.observe(method, batch)
    for _ in range(steps):
        method.step(batch)
    monkeypatch.undo()
    with torch.no_grad():
        return lesson.observe(method, batch) / before


def tinted(batch: Batch) -> Batch:
    """Return a batch whose sharp images are bright, and the blurred ones dark, so that none can stand for another."""
    return Batch(0.6 * batch.sharp + 0.35, 0.6 * batch.blurred - 0.35, batch.noise)


def student(name: str, lesson: Lesson, settings: Mapping[str, Any], seed: int) -> Method:
    """Return a system in which only the losses needed have a weight."""
    weighted = {other.loss for other in LESSONS[name][1] if not other.loss.startswith("critic")}
    needed = {*lesson.weights, lesson.loss} & weighted
    weights = {loss: float(loss in needed) for loss in weighted}
    return tiny(name, seed, lr=5e-3, **settings, **weights)


def learn_alone(method: Method, name: str, spoilt: str | None) -> None:
    """Let `method` learn from the loss `name` alone, with the networks of the other side as they are."""
    side, of_side = ("critics", "critic_losses") if name.startswith("critic") else ("generators", "generator_losses")
    anchor = method.parameters(side)[0]
    losses, update = getattr(method, of_side), method.update

    def alone(*arguments: Any) -> dict[str, Tensor]:
        found = {key: loss if key == name else 0 * loss.detach() for key, loss in losses(*arguments).items()}
        if spoilt == "negated":
            found[name] = -found[name]
        if spoilt == "detached":
            # A way to the parameters remains, or backward would refuse.
            found[name] = found[name].detach() + 0 * anchor.sum()
        return found

    setattr(method, of_side, alone)
    method.update = lambda which, loss: update(which, loss) if which == side else None
