"""The options that systems have in common, and what follows from them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from blurgen.options import option

SCHEDULES = ("linear", "exponential", "constant")


@dataclass(frozen=True)
class CommonConfig(ABC):
    """The options that every system has, with the same names; a system overrides the defaults and adds its own."""

    width: int = option(64, "Channels of the first layers; the others are multiples of it.")
    batch: int = option(8, "Images of each domain in a step, over all processes together.")
    crop: int = option(128, "Side of the training crops, px.")
    flips: bool = option(True, "Mirror crops left to right at random.")
    lr: float = option(2e-4, "Learning rate of Adam before it decays.")
    beta1: float = option(0.5, "First moment's decay of Adam.")
    beta2: float = option(0.999, "Second moment's decay of Adam.")
    weight_decay: float = option(0.0, "Weight decay of Adam (L2, added to the gradient).")
    clip_norm: float = option(0.0, "Largest gradient norm of a side; 0 leaves it alone.")
    ema: float = option(0.999, "Decay of the averaged weights that eval and deblur use.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        for name in ("width", "batch", "crop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name):g}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be above 0 and finite, got {self.lr:g}")
        require_weights(self, ("weight_decay", "clip_norm"))

    @property
    def fed_crop(self) -> int:
        """Side of the crops that a step is given, px; more than `crop` where the system cuts that out itself."""
        return self.crop

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Length of the whole schedule."""

    @property
    def features_normalised(self) -> bool:
        """Whether VGG-19, where a loss needs it, is given images normalised as those it was trained on."""
        return False


@dataclass(frozen=True)
class MethodConfig(CommonConfig):
    """The options of a system that sees many images, again and again: those of `CommonConfig`, and its epochs."""

    schedule: str = option("linear", "How the learning rate falls after the constant epochs.", choices=SCHEDULES)
    constant_epochs: int = option(100, "Epochs at the full learning rate.")
    decay_epochs: int = option(100, "Epochs in which the learning rate falls.")
    decay_rate: float = option(0.9, "Factor of the learning rate per epoch of an exponential decay.")

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        super().__post_init__()
        if not 0 < self.decay_rate <= 1:
            raise ValueError(f"decay_rate must be in (0, 1], got {self.decay_rate:g}")
        if min(self.constant_epochs, self.decay_epochs) < 0 or not self.epochs:
            raise ValueError("constant_epochs and decay_epochs must be at least 0, and not both 0")

    @property
    def epochs(self) -> int:
        """Length of the whole schedule."""
        return self.constant_epochs + self.decay_epochs


@dataclass(frozen=True)
class PerceptualConfig(MethodConfig):
    """The options of a system with losses on features of VGG-19."""

    feature_input: str = option(
        "raw",
        "What VGG-19 is given: images in [-1, 1] as they are, as the public codes do, or normalised as it was trained.",
        choices=("raw", "imagenet"),
    )

    @property
    def features_normalised(self) -> bool:
        """Whether VGG-19 is given images normalised as those it was trained on."""
        return self.feature_input == "imagenet"


def require_weights(config: Any, names: Iterable[str]) -> None:
    """Raise a ValueError unless the fields `names` of `config` are finite and not negative."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {getattr(config, name)}")


def learning_rate_factor(config: MethodConfig, epoch: int) -> float:
    """Return what the learning rate is multiplied with in `epoch`, counted from 0.

    Linear: 1 - max(0, e - constant) / (decay + 1), the formula of the public CycleGAN code. Exponential: rate to the
    power of the epochs since the constant ones. Beyond the schedule the last epoch's factor stays.
    """
    epoch = min(epoch, config.epochs - 1)
    decaying = max(0, epoch - config.constant_epochs)
    if config.schedule == "linear":
        return 1 - decaying / (config.decay_epochs + 1)
    return config.decay_rate**decaying if config.schedule == "exponential" else 1.0
