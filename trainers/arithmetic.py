"""How the device computes: its precision, and whether the networks are compiled."""

import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

COMPILERS = ("c++", "g++", "clang++")
# A network is compiled anew for training and evaluation, with gradients and without, for a batch and for one image.
FORMS = 8


def set_precision(precision: str, device: torch.device) -> None:
    """Let products of float32 matrices round to TF32 on a GPU, or not.

    Raises
    ------
    ValueError
        TF32 where there is none.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ValueError("--precision tf32 is arithmetic of a GPU, and this runs on the CPU: use fp32 or bf16")
    rounded = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rounded
    # All crops have one size, so that the search for the fastest convolution pays.
    torch.backends.cudnn.benchmark = device.type == "cuda"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context in which a step runs."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def compile_networks(networks: Iterable[nn.Module], how: str, device: torch.device) -> None:
    """Let every network compile itself when it is first called; `how` is "off", "on" or "graphs".

    Raises
    ------
    ValueError
        Where it can't work; the message says why.
    """
    if how == "off":
        return
    if how == "graphs" and device.type != "cuda":
        raise ValueError("--compile graphs replays CUDA graphs, and this runs on the CPU: use --compile on or off")
    if not (os.environ.get("CXX") or any(map(shutil.which, COMPILERS))):
        raise ValueError(f"--compile {how} needs a C++ compiler, and there is none of {', '.join(COMPILERS)}")
    if device.type == "cuda" and not torch.utils._triton.has_triton():
        raise ValueError(f"--compile {how} needs Triton, which is not installed or does not know this GPU")
    mode, networks = "reduce-overhead" if how == "graphs" else None, list(networks)
    # Networks of one class share one count of what they are compiled for, beyond which torch leaves them as they are.
    config = torch._dynamo.config
    config.cache_size_limit = max(config.cache_size_limit, FORMS * len(networks))
    for network in networks:
        network.compile(dynamic=False, mode=mode)


def begin_step(how: str) -> None:
    """Tell CUDA graphs that what the last step made may be overwritten."""
    if how == "graphs":
        torch.compiler.cudagraph_mark_step_begin()
