"""The options of `trainers run` that every system has: where it runs, how long, and what it leaves behind."""

from dataclasses import dataclass
from pathlib import Path

from blurgen.options import option

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "tf32", "bf16")
RESIDENT = ("auto", "on", "off")
COMPILE = ("off", "on", "graphs")
RANDOM_FEATURES = "random"


@dataclass(frozen=True)
class RunOptions:
    """What does not belong to a system.

    Of it only `seed`, `vgg_weights`, `init_from` and `blur_encoder` change what comes out.
    """

    out: Path | None = option(None, "Folder of the run; the same command continues it. [default: runs/NAME]")
    preset: str = option("default", "Named values of the options below, which --config, --set and flags override.")
    device: str = option("auto", "Where it runs; auto takes a GPU where there is one.", choices=DEVICES)
    precision: str = option("fp32", "Arithmetic: tf32 and bf16 are faster on a GPU.", choices=PRECISIONS)
    steps: int | None = option(None, "Length of the run, steps. [default: the epochs of the schedule]")
    epochs: int | None = option(None, "Length of the run, epochs, instead of --steps.")
    seed: int = option(0, "Seed of all random draws.")
    workers: int = option(2, "Threads that read ahead; 0 reads a batch when it is needed.")
    resident: str = option("auto", "Hold all images on the device, where they fit.", choices=RESIDENT)
    compile: str = option("off", "Compile the networks; graphs replays CUDA graphs.", choices=COMPILE)
    vgg_weights: str | None = option(None, "File of VGG-19's weights, or random for trials. [default: downloaded]")
    init_from: Path | None = option(
        None, "Run of the same system whose networks this one starts from, or a file of its weights or states."
    )
    blur_encoder: Path | None = option(
        None, "Run or weights that the blur encoder is taken from, for systems that have one."
    )
    keep: int = option(2, "Training states kept; the newest is continued, the others are its reserve.")
    validate_every: int = option(1000, "Steps from one measurement on validation pairs to the next.")
    save_every: int = option(1000, "Steps from one saved state to the next.")
    log_every: int = option(50, "Steps that a line of metrics.jsonl averages.")

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        for name in ("steps", "epochs", "keep", "validate_every", "save_every", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.steps is not None and self.epochs is not None:
            raise ValueError("--steps and --epochs both say how long the run is: give one of them")

    def total_steps(self, steps_per_epoch: int, schedule_epochs: int) -> int:
        """Return the length of the run in steps."""
        return self.steps if self.steps is not None else (self.epochs or schedule_epochs) * steps_per_epoch

    @property
    def features(self) -> Path | str | None:
        """Where VGG-19's weights come from, as `trainers.vgg.open_features` takes it."""
        named = self.vgg_weights is not None and self.vgg_weights != RANDOM_FEATURES
        return Path(self.vgg_weights) if named else self.vgg_weights
