"""Weights of an inference path as one safetensors file with a JSON description, and back."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from blurgen.options import as_values, build
from blurgen.shards import write_atomically
from trainers.method import Method, MethodConfig, Restorer
from trainers.models import method_class
from trainers.pretrained import load_named

BEST, LAST = "best.safetensors", "last.safetensors"


@dataclass(frozen=True)
class Weights:
    """A trained inference path.

    Attributes
    ----------
    path : Path
        The file.
    method : type of Method
        The system.
    config : MethodConfig
        What it was trained with.
    facts : dict
        What the run says of it: ``step``, ``vgg``, ``validation`` and more.
    restorer : Restorer
        In evaluation mode, float32, without gradients.
    """

    path: Path
    method: type[Method]
    config: MethodConfig
    facts: dict[str, Any]
    restorer: Restorer


def save_weights(path: str | os.PathLike, method: Method, facts: Mapping[str, Any]) -> None:
    """Write the averaged weights of `method`, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.averaged.state_dict().items()}
    about = {"method": method.name, "config": as_values(method.config), "facts": dict(facts)}
    encoded = save(tensors, {"trainers": json.dumps(about)})
    write_atomically(path, [(0, encoded)], len(encoded))


def load_weights(path: str | os.PathLike, device: torch.device | str = "cpu") -> Weights:
    """Return the weights of a run (its best, else its last) or of one file.

    Raises
    ------
    ValueError
        A file that is none of ours, is damaged, or does not fit its own description; the message names it.
    FileNotFoundError
        There is no such file, or the run has saved no weights yet.
    """
    path = _weights_file(Path(path))
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            about = json.loads((file.metadata() or {})["trainers"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        method, facts = method_class(about["method"]), dict(about["facts"])
        config = build(method.Config, dict(about["config"]))
        with torch.device("meta"):
            restorer = method.Restorer(config)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"it does not state its {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} holds no weights of a system known here, {reason}: name a run, or its {BEST}"
        ) from error
    wanted = {name: tensor.shape for name, tensor in restorer.state_dict().items()}
    restorer.load_state_dict(load_named(path, tensors, wanted, method.name), assign=True)
    return Weights(path, method, config, facts, restorer.requires_grad_(False).eval())


def _weights_file(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: name the folder of a run, or a file of its weights")
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} holds no {BEST} and no {LAST}: the run has saved no weights yet")
