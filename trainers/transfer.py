"""Start from the networks of another run: all that it has, or its blur encoder alone."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from blurgen.options import as_values
from trainers.checkpoints import States, is_whole, parse_state
from trainers.method import Method
from trainers.pretrained import tensors_sha256
from trainers.run_options import RunOptions
from trainers.splits import ORIGIN, SPLIT_TABLE, TRAINED_ON
from trainers.weights import load_weights

ENCODER = "blur_encoder"
INIT_FROM, BLUR_ENCODER = "init_from", ENCODER
_WAY_OUT = "name the folder of a run, or a file of its weights or states"
# Options that say which layers there are, and how large.
_SHAPING = (
    *("width", "latent", "blocks", "scales", "blurred_scales", "random", "scale", "shared_blocks", "gray", "reblurred"),
    *("block", "sft", "prior", "classes"),
)


class Origin(NamedTuple):
    """What another run has learned.

    Attributes
    ----------
    path : Path
        What was read.
    system : str
        Its name.
    config : dict
        What it was trained with, as plain values.
    networks : dict
        Name -> tensor, as in ``Method.state()["networks"]``, or those of its Restorer where `is_whole` is false.
    is_whole : bool
        Whether all networks are there.
    """

    path: Path
    system: str
    config: Mapping[str, Any]
    networks: Mapping[str, Tensor]
    is_whole: bool


def read_origin(path: Path) -> Origin:
    """Return the networks of a run's newest state, else of its best or last weights; or those of one file of either.

    Raises
    ------
    ValueError
        A file that is none of ours, or is damaged.
    FileNotFoundError
        There is no such file, or the run has saved nothing yet.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: {_WAY_OUT}")
    if path.suffix == ".pt" and path.is_file():
        data = path.read_bytes()
        if not is_whole(data):
            raise ValueError(f"{path} is damaged: give another state of the run, or the run itself")
        return _of_state(path, data)
    data = States(path).read_newest() if path.is_dir() else None
    if data is not None:
        return _of_state(path, data)
    weights = load_weights(path)
    tensors = weights.restorer.state_dict()
    return Origin(weights.path, weights.method.name, as_values(weights.config), tensors, False)


def _of_state(path: Path, data: bytes) -> Origin:
    state = parse_state(data)
    try:
        identity = dict(state["identity"])
        return Origin(path, identity["system"], identity, dict(state["method"]["networks"]), True)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no state of a run: there are no networks in it") from error


def require_origins(options: RunOptions) -> None:
    """Raise a FileNotFoundError where what `options` name is not there."""
    for name, path in _named(options):
        if not path.exists():
            raise FileNotFoundError(f"--{_flag(name)} {path} does not exist: {_WAY_OUT}")


def begin(method: Method, options: RunOptions) -> dict[str, str]:
    """Put the networks that `options` name into a new `method`; return option -> SHA-256 of what it gave.

    Where a file holds the networks that restore images alone, a sentence on stderr says that the others are new.

    Raises
    ------
    ValueError
        Networks of another system or of other sizes, or a blur encoder asked for where there is none.
    """
    hashes = {}
    if options.init_from is not None:
        origin = read_origin(options.init_from)
        _load(method, origin, _all_networks(method, origin))
        hashes[INIT_FROM] = tensors_sha256(origin.networks)
        if not origin.is_whole:
            print(
                f"{origin.path} holds only the networks that restore images: the others begin at random",
                file=sys.stderr,
            )
    if options.blur_encoder is not None:
        encoder = _encoder_of(method, read_origin(options.blur_encoder))
        hashes[BLUR_ENCODER] = tensors_sha256(encoder)
    if getattr(method.config, "freeze_blur_encoder", False) and not hashes:
        raise ValueError(
            "--freeze-blur-encoder leaves the blur encoder as it begins, which is at random: "
            "name a trained one with --blur-encoder RUN"
        )
    return hashes


def resumed(stored: Mapping[str, Any], options: RunOptions) -> dict[str, str]:
    """Return option -> SHA-256 of what a run was begun with, from its `stored` identity.

    What it was begun with need not be there any more. Where it is, it must still be the same.

    Raises
    ------
    ValueError
        `options` name other networks than those that the run was begun with.
    """
    for name, path in _named(options):
        if name not in stored:
            raise ValueError(f"the run was begun without --{_flag(name)}: leave it out, or name another --out")
        try:
            networks = read_origin(path).networks
        except (OSError, ValueError):
            continue
        found = tensors_sha256(_encoder_in(networks) if name == BLUR_ENCODER else networks)
        if found != stored[name]:
            raise ValueError(
                f"the run was begun with other networks than {path} holds now: "
                f"leave --{_flag(name)} out to continue it, or name another --out"
            )
    return {name: stored[name] for name in (INIT_FROM, BLUR_ENCODER) if name in stored}


def images_behind(run: Path, options: RunOptions) -> list[str]:
    """Return lines of the table of roles for the images that were trained on by what a run was begun with.

    They are those of the runs that `options` name, as far as these left a record, and those that the record of the
    run itself holds already. Eval leaves them out as it does the run's own.
    """
    folders = [path if path.is_dir() else _run_of(path) for _, path in _named(options)]
    lines = {
        f"{ORIGIN}\t{rest}"
        for folder in (run, *folders)
        for role, rest in _table(folder / SPLIT_TABLE)
        if role == ORIGIN or (folder != run and role in TRAINED_ON)
    }
    return sorted(lines)


def _run_of(file: Path) -> Path:
    return file.parent.parent if file.suffix == ".pt" else file.parent


def _table(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (role, the rest of the line) of a table of roles; nothing where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[1:-1]
    except OSError:
        return
    for line in lines:
        role, _, rest = line.partition("\t")
        yield role, rest


def _named(options: RunOptions) -> Iterator[tuple[str, Path]]:
    for name in (INIT_FROM, BLUR_ENCODER):
        if getattr(options, name) is not None:
            yield name, getattr(options, name)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _all_networks(method: Method, origin: Origin) -> dict[str, Tensor]:
    """Return the tensors of `origin` by the names that `method` has for them."""
    if origin.system != method.name:
        raise ValueError(f"{origin.path} is of {origin.system}, and --init-from takes networks of {method.name} here")
    if origin.is_whole:
        return dict(origin.networks)
    # The inference path shares its tensors with the networks, where they have other names, some of them several.
    of_restorer = {id(tensor): name for name, tensor in method.restorer.state_dict(keep_vars=True).items()}
    own = method.networks.state_dict(keep_vars=True)
    placed = {name: of_restorer[id(tensor)] for name, tensor in own.items() if id(tensor) in of_restorer}
    return {name: origin.networks[theirs] for name, theirs in placed.items() if theirs in origin.networks}


def _encoder_of(method: Method, origin: Origin) -> dict[str, Tensor]:
    """Put the blur encoder of `origin` into `method`, and return it."""
    if ENCODER not in method.networks:
        raise ValueError(f"--blur-encoder gives a blur encoder, and {method.name} has none: leave it out")
    tensors = _encoder_in(origin.networks)
    if not tensors:
        raise ValueError(f"{origin.path} is of {origin.system}, which has no blur encoder: name a run that has one")
    _load(method, origin, tensors)
    return tensors


def _encoder_in(networks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in networks.items() if name.startswith(f"{ENCODER}.")}


def _load(method: Method, origin: Origin, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{origin.path}: {name} holds values that are not finite")
    try:
        method.load_initial(tensors)
    except ValueError as error:
        raise ValueError(f"{origin.path}: {error}{_unlike(origin.config, as_values(method.config))}") from error


def _unlike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return the end of a sentence on the sizes of networks in which two Configs differ."""
    common = [name for name in _SHAPING if name in theirs and name in ours]
    unlike = [f"{name} {theirs[name]} (here {ours[name]})" for name in common if theirs[name] != ours[name]]
    return f"; that run has {', '.join(unlike)}" if unlike else ""
