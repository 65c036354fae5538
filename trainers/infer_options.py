"""The ways in which SinGAN restores an image: what `--infer` chooses between, and what `--set infer.X=Y` sets."""

from dataclasses import dataclass

from blurgen.options import Chosen, build, nearest, option

SIZES = ("native", "finest")


@dataclass(frozen=True)
class Inference:
    """What both ways have."""

    size: str = option(
        "native",
        "What the image is restored at: its own size, or that of the finest scale, from which it is enlarged again.",
        choices=SIZES,
    )
    tau: float = option(0.0, "Share of each scale's noise that is added; 0 adds none.")
    seed: int = option(0, "Seed of this noise.")

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 0 <= self.tau <= 1:
            raise ValueError(f"infer.tau must be in [0, 1], got {self.tau:g}")
        if self.seed < 0:
            raise ValueError(f"infer.seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class Iterate(Inference):
    """Make the image smaller by r^k, then k times larger by 1/r, each time through the finest generator."""

    k: int = option(3, "How often the finest generator is passed.")

    def __post_init__(self) -> None:
        """Refuse what is no number of passes."""
        super().__post_init__()
        if not 1 <= self.k <= 100:
            raise ValueError(f"infer.k must be 1 to 100, got {self.k}")


@dataclass(frozen=True)
class Inject(Inference):
    """Begin at a scale with the image in place of what the scales below would have made."""

    from_scale: int | None = option(None, "The scale, from 1; 0 is the coarsest. [default: the finest but one]")

    def __post_init__(self) -> None:
        """Refuse the coarsest scale, which makes images from noise alone."""
        super().__post_init__()
        if self.from_scale is not None and self.from_scale < 1:
            raise ValueError(f"infer.from_scale must be at least 1, got {self.from_scale}")


WAYS = {"iterate": Iterate, "inject": Inject}


def way_chosen(chosen: Chosen | None) -> Inference:
    """Return the way that `chosen` names, with its settings; iterate where it is None.

    Raises
    ------
    ValueError
        A name or a setting that there is not.
    """
    if chosen is None:
        return Iterate()
    if chosen.name not in WAYS:
        raise ValueError(f"there is no --infer {chosen.name!r}: {nearest(chosen.name, WAYS)}")
    return build(WAYS[chosen.name], dict(chosen.settings), "infer.")
