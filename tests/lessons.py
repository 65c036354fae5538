"""What each loss of a system is for, as a number that falls where it is learned, and how each could be spoilt.

The numbers are written out from the images that the networks make, without the losses of `trainers`.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from trainer_data import batch_of, rescaled, tiny

from trainers.method import Batch, Method

DISENTANGLED = {"crop": 16, "scales": 1, "generator_every": 1, "weight_decay": 0.0, "code_noise": 0.0}
CYCLEGAN = {"crop": 32, "pool": 0}
DEBLURGAN = {"crop": 32, "dropout": 0.0, "critic_updates": 1}


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
        Function of the system's module, or ``"module:function"`` -> what exchanges its arguments or its target, given
        that function and a batch.
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


def negated(loss: Callable, batch: Batch) -> Callable:
    return lambda fake: -loss(fake)


def in_module(name: str, swapped: Mapping[str, Callable]) -> dict[str, Callable]:
    """Return the same for the functions of the module of another system."""
    return {f"trainers.models.{name}:{function}": swap for function, swap in swapped.items()}


def exchanged(loss: Callable, batch: Batch) -> Callable:
    return lambda real, fake: loss(fake, real)


def other_image(loss: Callable, batch: Batch) -> Callable:
    """Compare with the image of the other domain."""

    def spoilt(image: Tensor, target: Tensor, *settings: Any) -> Tensor:
        return loss(image, batch.blurred if torch.equal(target, batch.sharp) else batch.sharp, *settings)

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


def unlike(method: Method, batch: Batch) -> float:
    """Return how far the logits of both kinds of fakes are from one above those of the real images."""
    net, missing = method.networks, 0.0
    for domain, image in (("sharp", batch.blurred), ("blurred", batch.sharp)):
        critic, fake = net[f"critic_{domain}"], net[f"generator_{domain}"](image)
        missing += (critic(fake).mean() - critic(getattr(batch, domain)).mean() - 1).abs().item()
    return missing


def features_there_and_back(method: Method, batch: Batch) -> float:
    to_sharp, to_blurred = method.networks["generator_sharp"], method.networks["generator_blurred"]
    features = method.context.features
    return sum(
        (features(image) - features(target)).square().mean().item()
        for image, target in (
            (to_sharp(to_blurred(batch.sharp)), batch.sharp),
            (to_blurred(to_sharp(batch.blurred)), batch.blurred),
        )
    )


def other_target(loss: Callable, batch: Batch) -> Callable:
    """Compare the features with those of the image of the other domain."""

    def spoilt(features: Callable, image: Tensor, target: Tensor) -> Tensor:
        return loss(features, image, batch.blurred if torch.equal(target, batch.sharp) else batch.sharp)

    return spoilt


AS_CYCLEGAN_LESSONS = (
    Lesson("adversarial", unlike, 0.5, {"relativistic_generator": exchanged}),
    Lesson("cycle", features_there_and_back, 0.18, {"perceptual_distance": other_target}),
    Lesson("cycle_pixel", there_and_back, 0.7, {"l1": other_image}),
    Lesson("identity", kept, 0.6, {"trainers.models.cyclegan:l1": other_image}),
    Lesson("critic_sharp", indistinct("sharp", "blurred"), 0.5, {"relativistic_critic": exchanged}, ("adversarial",)),
    Lesson("critic_blurred", indistinct("blurred", "sharp"), 0.5, {"relativistic_critic": exchanged}, ("adversarial",)),
)


def rejected(method: Method, batch: Batch) -> float:
    """Return a number that falls from 1 to 0 as the logits of restored images rise."""
    return method.networks["critic"](method.restorer(batch.blurred)).mean().neg().sigmoid().item()


def confused(method: Method, batch: Batch) -> float:
    """Return a number that falls from 1 to 0 as the logits of real images rise above those of restored ones."""
    critic = method.networks["critic"]
    return (critic(method.restorer(batch.blurred)).mean() - critic(batch.sharp).mean()).sigmoid().item()


def steepness(method: Method, batch: Batch) -> float:
    """Return how far the norms of the critic's gradient are from 1, halfway between real and restored images."""
    between = (batch.sharp + method.restorer(batch.blurred)) / 2
    with torch.enable_grad():
        between.requires_grad_()
        logits = method.networks["critic"](between)
        (gradient,) = torch.autograd.grad(logits.mean((1, 2, 3)).sum(), between)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean().item()


def features_from_sharp(method: Method, batch: Batch) -> float:
    features = method.context.features
    return (features(method.restorer(batch.blurred)) - features(batch.sharp)).square().mean().item()


def roughness(method: Method, batch: Batch) -> float:
    image = method.restorer(batch.blurred)
    return (image.diff(dim=2).abs().mean() + image.diff(dim=3).abs().mean()).item()


def guide_for_image(loss: Callable, batch: Batch) -> Callable:
    return lambda image, guide, edge: loss(guide, image, edge)


DEBLURGAN_LESSONS = (
    Lesson("adversarial", rejected, 0.95, {"wasserstein_generator": negated}),
    Lesson("content", features_from_sharp, 0.5, {"perceptual_distance": other_target}),
    Lesson("critic", confused, 0.7, {"wasserstein_critic": exchanged}, ("adversarial",)),
    Lesson("gradient_penalty", steepness, 0.7, {}, ("adversarial",)),
)
VEGAN_LESSONS = (
    *(replace(one, swapped=in_module("deblurgan", one.swapped)) for one in DEBLURGAN_LESSONS),
    Lesson("smoothness", roughness, 0.7, {"smoothness": guide_for_image}),
)

LESSONS = {
    "disentangled": (DISENTANGLED, DISENTANGLED_LESSONS),
    "cyclegan": (CYCLEGAN, CYCLEGAN_LESSONS),
    "as-cyclegan": (CYCLEGAN | {"dropout": 0.0}, AS_CYCLEGAN_LESSONS),
    "deblurgan": (DEBLURGAN, DEBLURGAN_LESSONS),
    "vegan": (DEBLURGAN | {"smooth": True}, VEGAN_LESSONS),
}
# Weights without which a system does not have all of its losses.
ALL_LOSSES = {"disentangled": {"identity": 1.0}, "as-cyclegan": {"cycle_pixel": 1.0}, "vegan": {"smooth": True}}
SPOILT = ("negated", "detached", "swapped")


def taught(name: str, lesson: Lesson, spoilt: str | None, seed: int, steps: int, monkeypatch: Any) -> float:
    """Return the share of its first value that what `lesson` observes has after training on that loss alone."""
    settings, _ = LESSONS[name]
    method = rescaled(student(name, lesson, settings, seed))
    lesson.prepare(method)
    batch = tinted(batch_of(method.config, seed=seed, paired=method.pairing == "paired"))
    if spoilt == "swapped":
        for path, swap in lesson.swapped.items():
            place, _, function = path.rpartition(":")
            module = importlib.import_module(place or type(method).__module__)
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
    of_critics = name.startswith("critic") or name == "gradient_penalty"
    side, of_side = ("critics", "critic_losses") if of_critics else ("generators", "generator_losses")
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
