"""The options of `blurgen make`: those that fix what is made, and those that only say how it runs."""

from dataclasses import MISSING, dataclass
from pathlib import Path

from blurgen.options import Chosen, option
from blurgen.slices import Slice, parse_slice

IMAGE_TIMEOUT_S = 120.0
_MOST, _MOST_TEXT = 1_000_000_000, 1 << 20
_LEAST_TEXT, _PX_OF_A_BYTE = 64, 16


@dataclass(frozen=True)
class MakeOptions:
    """What fixes every byte of the output, and where it goes."""

    source: Chosen = option(
        MISSING, "Dataset name, folder, glob, list.txt, .zip/.tar, recipe.toml, text or leaves.", flag="--src"
    )
    root: Path | None = option(None, "Where the dataset lies, else $BLURGEN_DATA/NAME, else ./data/NAME.")
    out: Path = option(Path("shards.h5"), "The file to write.")
    kernel: Chosen = option(Chosen("deblurgan"), "Kernel preset or model; its fields by --set kernel.FIELD=VALUE.")
    exposure: tuple[float, ...] = option((1.0,), "Fraction of the trajectory; given several times, a sample for each.")
    noise: Chosen = option(Chosen("none"), "Noise model; its fields by --set noise.FIELD=VALUE.")
    saturation: bool = option(False, "Recover light beyond white in saturated pixels before blurring.")
    response: str = option("srgb", "Camera response: srgb, linear, or gamma2.2 and the like.")
    crop: int = option(256, "Side of a sample, px.")
    scale_mean: float | None = option(None, "Random-scale crop: mean side cut out, px (256 in VEGAN).")
    scale_std: float = option(0.0, "Random-scale crop: standard deviation of that side, px (100 in VEGAN).")
    resize_short: int | None = option(None, "First reduce the image until its shorter side is this, px.")
    small: str = option("skip", "Images with a shorter side from crop/2 to crop.", choices=("skip", "scale"))
    per_image: int = option(1, "Crops from each image.")
    count: int | None = option(None, "Samples in all, else one crop per image, 1,000 from a built-in source.")
    lowres: tuple[int, ...] = option((), "Also store variants reduced by this factor; may be repeated.")
    split: tuple[str, ...] = option((), "Only this split of the data; may be repeated.")
    real: bool = option(False, "Store existing blurred and sharp images, without blurring.")
    labels: str | None = option(
        None,
        "Store label maps, too: 8-bit PNG files below a folder, named like the images, or 'PATH/*_labels.png', in "
        "quotes, with * for their names; alone, those of the dataset.",
        bare="dataset",
    )
    priors: Path | None = option(
        None, "Store probability maps of classes, too: .npy or .npz files (K, h, w), found likewise."
    )
    transcripts: int | None = option(
        None,
        "Store the words that lie wholly inside each crop, too, of --src text, in so many bytes; alone, in one for "
        "every 16 px of the crop.",
        bare="0",
    )
    seed: int = option(0, "Seed of all random draws.")
    codec: str = option("none", "Compression of images in the file.", choices=("none", "gzip"))

    def __post_init__(self) -> None:
        """Refuse values that no sample can have."""
        for name in ("crop", "per_image", "count", "resize_short", "scale_mean"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if value is not None and value > _MOST:
                raise ValueError(f"{name} must be at most {_MOST:,}, got a larger one")
        if self.scale_std < 0 or (self.scale_std and self.scale_mean is None):
            raise ValueError(f"scale_std must be at least 0 and needs --scale-mean, got {self.scale_std:g}")
        if not self.exposure:
            raise ValueError("exposure must have at least one value, got none")
        for exposure in self.exposure:
            if not 0 < exposure <= 1:
                raise ValueError(f"exposure must be in (0, 1], a fraction of the trajectory, got {exposure:g}")
        for factor in self.lowres:
            if factor < 2 or self.crop % factor:
                raise ValueError(f"lowres must be at least 2 and divide the crop of {self.crop} px, got {factor}")
        if self.real and (self.kernel.name != "deblurgan" or self.noise.name != "none" or self.saturation):
            raise ValueError(
                "--real stores images that are blurred already: leave out --kernel, --noise and --saturation"
            )
        if self.transcripts is not None and not 0 <= self.transcripts <= _MOST_TEXT:
            raise ValueError(f"transcripts must be at most {_MOST_TEXT:,} bytes, got {self.transcripts:,}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    @property
    def transcript_bytes(self) -> int:
        """Bytes that the words of a crop are kept in, 0 where none are."""
        if self.transcripts is None:
            return 0
        return self.transcripts or min(max(self.crop**2 // _PX_OF_A_BYTE, _LEAST_TEXT), _MOST_TEXT)


@dataclass(frozen=True)
class RunOptions:
    """The options of `blurgen make` that change how it runs, and no byte of what it makes."""

    workers: int | None = option(None, "Workers at a time, else one per core; with dask, the cluster decides.")
    backend: str = option(
        "processes", "How workers run; dask: on the cluster of --scheduler.", choices=("processes", "threading", "dask")
    )
    scheduler: str | None = option(None, "Where the scheduler of dask listens, such as tcp://HOST:8786.")
    shard: str | None = option(
        None, "Make slice i of n only, such as 2/8, or auto under SLURM; `blurgen index` finishes."
    )
    image_timeout: float | None = option(
        None,
        f"Seconds after which an image is left out, else {IMAGE_TIMEOUT_S:g}; threads cannot be ended and have none.",
    )
    shard_mib: int = option(64, "Size of a shard, MiB, from 1 to 128.")
    sharded: bool = option(False, "Keep the shards, and write a small master file beside them.")
    overwrite: bool = option(False, "Replace an output that was made by another plan.")

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if not 1 <= self.shard_mib <= 128:
            raise ValueError(f"shard_mib must be from 1 to 128, got {self.shard_mib}")
        if self.backend == "dask" and not self.scheduler:
            raise ValueError("--backend dask needs --scheduler tcp://HOST:PORT: `dask scheduler` starts one")
        if self.scheduler and self.backend != "dask":
            raise ValueError(f"--scheduler needs --backend dask, got --backend {self.backend}")
        if self.image_timeout is not None and self.backend == "threading":
            raise ValueError("--image-timeout needs --backend processes or dask: a thread that hangs cannot be ended")
        if self.image_timeout is not None and not 0 < self.image_timeout < 1e6:
            raise ValueError(f"image_timeout must be a positive number of seconds, got {self.image_timeout:g}")
        if self.slice and self.overwrite:
            raise ValueError(
                "--overwrite would remove what other slices made: leave it out, or remove the output first"
            )

    @property
    def slice(self) -> Slice | None:
        """The part of the shards that this run makes, or None for all."""
        return parse_slice(self.shard) if self.shard else None

    @property
    def image_timeout_s(self) -> float:
        """How long a crop of an image may take, s."""
        return self.image_timeout or IMAGE_TIMEOUT_S
