"""The contract between a system and the loop: its Config, networks, optimisers, `step` and `update`."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed
from torch import Tensor, nn

from blurgen.options import Chosen
from trainers.method_config import (  # noqa: F401  the contract is imported from here, its options with it
    CommonConfig,
    MethodConfig,
    PerceptualConfig,
    learning_rate_factor,
    require_weights,
)
from trainers.noise import Noise
from trainers.vgg import CONV3_3


@dataclass(frozen=True)
class Batch:
    """What one step is given: this process' part of the batch, on the device.

    Attributes
    ----------
    sharp, blurred : Tensor
        (B, 3, fed_crop, fed_crop) float32 sRGB in [-1, 1]. Unpaired: of different images; paired: of the same.
    noise : Noise
        The random numbers of this step.
    sharp_guide, blurred_guide : Tensor or None
        (B, C, fed_crop, fed_crop) float32, the maps of these images where the system asks for some: ids of labels,
        C = 1, or probabilities of C classes, each for 4 x 4 px.
    """

    sharp: Tensor
    blurred: Tensor
    noise: Noise
    sharp_guide: Tensor | None = None
    blurred_guide: Tensor | None = None

    @property
    def step(self) -> int:
        """Number of the step, from 0."""
        return self.noise.step


@dataclass(frozen=True)
class Context:
    """What a system is built with beside its Config.

    Attributes
    ----------
    device : torch.device
    features : nn.Module, optional
        VGG-19, frozen; needed where the Config gives a perceptual loss a weight.
    """

    device: torch.device = torch.device("cpu")
    features: nn.Module | None = None


class Method(ABC):
    """A system: networks that are trained side by side (generators, critics), and the part that restores images.

    A subclass states its `Config` and its `Restorer`, builds the other networks around that, says which networks each
    side trains, and writes `step`.

    Attributes
    ----------
    pairing : str
        What it trains on: "unpaired" or "paired" images of shards, or a "single" image.
    keeps_best : bool
        Whether the weights that do best on validation images are kept apart. Where other networks are trained at each
        step, the last ones count.
    networks : nn.ModuleDict
        All that is trained, by name.
    optimizers : dict
        Side -> Adam over the parameters of its networks.
    restorer : Restorer
        The inference path; it shares its modules with `networks`.
    averaged : Restorer
        The same with averaged weights (EMA), for eval and deblur.
    grad_norms : dict
        Side -> norm of the gradient at its last update, a 0-d tensor.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Config: ClassVar[type[CommonConfig]]
    Restorer: ClassVar[type["Restorer"]]
    pairing: ClassVar[str] = "unpaired"
    keeps_best: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}

    def __init__(self, config: CommonConfig, context: Context | None = None):
        self.config = config
        self.context = context = context or Context()
        self.restorer = self.Restorer(config)
        self.networks = nn.ModuleDict(self.build()).to(context.device)
        self.averaged = copy.deepcopy(self.restorer).requires_grad_(False).eval()
        self.optimizers = {side: self._adam(side) for side in self.sides()}
        self.grad_norms: dict[str, Tensor] = {}

    @abstractmethod
    def build(self) -> dict[str, nn.Module]:
        """Return all networks by name, those of `self.restorer` among them, initialised from torch's random state."""

    @abstractmethod
    def sides(self) -> dict[str, tuple[str, ...]]:
        """Return side -> names of the networks that its optimiser trains."""

    @abstractmethod
    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update every side that is due; return the unweighted, detached losses by name, 0-d tensors."""

    @classmethod
    def fitted(cls, config: Any, height: int, width: int) -> Any:
        """Return `config` for an image to train on, of a size in px; only where `pairing` is "single"."""
        raise TypeError(f"{cls.name} trains on more than one image")

    @classmethod
    def milestones(cls, config: Any) -> tuple[int, ...]:
        """Return the steps from which on a step costs something else, the first included, equally far apart."""
        return (0,)

    def reconstruction(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return what the averaged weights begin from, what they make of it, and the image that it should be.

        Each is (1, 3, H, W). None where nothing but blurred images is restored.
        """
        return None

    @classmethod
    def arrays(cls, config: MethodConfig) -> tuple[str, ...]:
        """Return the names of the arrays of the shards that are the sharp and the blurred side.

        A third is "label" or "prior", the maps by which the system is guided.
        """
        return "sharp", "blurred"

    @classmethod
    def with_classes(cls, config: Any, classes: int) -> Any:
        """Return `config` for shards whose probability maps have so many classes, 0 without; as it is by default."""
        return config

    @classmethod
    def needs_features(cls, config: MethodConfig) -> bool:
        """Return whether `config` asks for a loss on features of VGG-19."""
        return False

    @classmethod
    def last_feature(cls, config: MethodConfig) -> int:
        """Return the index of the last layer of VGG-19 that a loss of `config` compares."""
        return CONV3_3

    def alarms(self, scalars: Mapping[str, float]) -> list[str]:
        """Return a sentence for each known failure that the averages of `step`'s scalars show: inverted colours."""
        correlation = scalars.get("color_correlation", 0.0)
        if correlation >= 0:
            return []
        return [
            f"the colours of the deblurred images are inverted (correlation {correlation:.2f} with the blurred ones): "
            "start again with another --seed, or with a higher --identity or other weight that holds colours"
        ]

    def extra_state(self) -> dict[str, Any]:
        """Return what else a resumed run needs, of tensors and plain values; such as a pool of images."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take back what `extra_state` returned."""

    def set_epoch(self, epoch: int) -> None:
        """Set the learning rates to those of `epoch`, counted from 0."""
        lr = self.config.lr * learning_rate_factor(self.config, epoch)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr

    def parameters(self, side: str) -> list[nn.Parameter]:
        """Return the parameters that a side trains, each once."""
        unique = {id(p): p for name in self.sides()[side] for p in self.networks[name].parameters()}
        return list(unique.values())

    def update(self, side: str, loss: Tensor) -> None:
        """Take one optimiser step of `side` down the gradient of `loss`, averaged over all processes."""
        optimizer, parameters = self.optimizers[side], [p for p in self.parameters(side) if p.requires_grad]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.context.device.type, enabled=False):
            loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        average_over_processes(gradients)
        self.grad_norms[side] = torch.nn.utils.get_total_norm(gradients)
        if self.config.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm, self.grad_norms[side])
        optimizer.step()
        # Autocast keeps what it has made of weights to its end, which is that of the step.
        torch.clear_autocast_cache()

    @torch.no_grad()
    def average_weights(self) -> None:
        """Move the averaged weights towards the current ones: a <- ema a + (1 - ema) w, fewer at the start.

        The decay of update t is min(ema, (1 + t) / (10 + t)), so that the first random weights are soon forgotten.
        """
        updates = self._updates = getattr(self, "_updates", 0) + 1
        decay = min(self.config.ema, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.restorer.parameters()), 1 - decay)

    def state(self) -> dict[str, Any]:
        """Return all that training goes on from, of tensors and plain values."""
        return {
            "networks": self.networks.state_dict(),
            "averaged": self.averaged.state_dict(),
            "updates": getattr(self, "_updates", 0),
            "optimizers": {side: optimizer.state_dict() for side, optimizer in self.optimizers.items()},
            "extra": self.extra_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.networks.load_state_dict(state["networks"])
        self.averaged.load_state_dict(state["averaged"])
        self._updates = state["updates"]
        for side, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][side])
        self.load_extra_state(state["extra"])

    def load_initial(self, networks: Mapping[str, Tensor]) -> None:
        """Start from the networks of another run, as in its ``state()["networks"]``, where it has the same ones.

        What only this system has stays as it was initialised.

        Raises
        ------
        ValueError
            A tensor that this system does not have, or has in another shape.
        """
        own = self.networks.state_dict()
        for name, tensor in networks.items():
            if name not in own or own[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} of the run to start from has no place here: give a run of {self.name} "
                    "whose networks differ from these only in what they lack"
                )
        self.networks.load_state_dict(own | dict(networks))
        self.averaged.load_state_dict(self.restorer.state_dict())

    def _adam(self, side: str) -> torch.optim.Adam:
        config = self.config
        return torch.optim.Adam(
            self.parameters(side),
            config.lr,
            (config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )


class Restorer(nn.Module):
    """The inference path of a system: (B, 3, H, W) blurred to (B, 3, scale H, scale W) sharp, both in [-1, 1].

    A subclass is made from the Config of its system alone.

    Attributes
    ----------
    multiple : int
        H and W must be multiples of it.
    scale : int
        How many times larger the output is.
    latent : int
        Size of the code of the blur, 0 where there is none.
    dropout : float
        Share of the values inside that training drops, 0 where it drops none.
    frugal : bool
        Whether it needs little memory for an image of any size, because it works in strips of rows itself.
    guide : str or None
        "label" or "prior": which map goes in behind the colours of the image, as in `Batch`.
    guide_channels : int
        How many channels that has.
    """

    multiple: int = 4
    scale: int = 1
    latent: int = 0
    dropout: float = 0.0
    frugal: bool = False
    guide: str | None = None
    guide_channels: int = 0

    @property
    def channels(self) -> int:
        """Channels of what goes in: three colours, and those of the guide."""
        return 3 + self.guide_channels

    @property
    def caveat(self) -> str | None:
        """What must be known of its results, a sentence without a stop, if there is anything."""
        return None

    @property
    def measured_size(self) -> Callable[[int, int], tuple[int, int]] | None:
        """Return what gives the size that images of a height and width in px are measured at; None is their own."""
        return None

    def choose(self, way: Chosen | None) -> None:
        """Restore in that way from now on, and None in the usual one.

        Raises
        ------
        ValueError
            A way that there is not, or settings that it has not.
        """
        if way is not None:
            raise ValueError(
                "--infer chooses between the ways in which a system trained on a single image restores, and this one "
                f"has a single way, got {way.name!r}: leave it out"
            )

    def encode(self, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, latent) of the code of the blur; only where `latent` is not 0."""
        raise TypeError(f"{type(self).__name__} has no code of the blur")

    def restore(self, blurred: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the sharp image, given the code `z` (B, latent) of the blur where there is one."""
        raise TypeError(f"{type(self).__name__} restores nothing")

    def restore_dropping(self, blurred: Tensor, noise: Noise) -> Tensor:
        """Return the sharp image with a dropout as in training; only where `dropout` is not 0."""
        raise TypeError(f"{type(self).__name__} has no dropout")

    def forward(self, blurred: Tensor, epsilon: Tensor | None = None) -> Tensor:
        """Return the sharp image; `epsilon` (B, latent) draws the code of the blur, else its mean is taken."""
        if not self.latent:
            return self.restore(blurred)
        mean, log_variance = self.encode(blurred)
        return self.restore(blurred, mean if epsilon is None else mean + epsilon * (log_variance / 2).exp())


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Context in which the parameters of `networks` get no gradient; what passes through them still does."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def average_over_processes(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over all processes of the run, in place."""
    if not torch.distributed.is_initialized() or not tensors:
        return
    joint = torch._utils._flatten_dense_tensors(tensors)
    torch.distributed.all_reduce(joint)
    joint /= torch.distributed.get_world_size()
    torch._foreach_copy_(tensors, torch._utils._unflatten_dense_tensors(joint, tensors))
