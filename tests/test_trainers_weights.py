"""Weights on disk: they return exactly, and what is damaged is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainer_data import SYSTEMS, tiny

from blurgen.options import as_values
from trainers.weights import BEST, LAST, load_weights, save_weights

systems = pytest.mark.parametrize("name", SYSTEMS)


@pytest.fixture(scope="module")
def tiny_methods():
    """Return a system of each name that no test may change."""
    return {name: tiny(name) for name in SYSTEMS}


@systems
def test_weights_return_from_a_file_exactly(name, tmp_path, tiny_methods):
    method = tiny_methods[name]
    save_weights(tmp_path / LAST, method, {"step": 7, "vgg": "none"})
    loaded = load_weights(tmp_path)
    assert (loaded.path, loaded.method, loaded.config) == (tmp_path / LAST, type(method), method.config)
    assert loaded.facts == {"step": 7, "vgg": "none"}
    assert not loaded.restorer.training
    assert not any(p.requires_grad for p in loaded.restorer.parameters())
    saved = method.averaged.state_dict()
    assert all(torch.equal(saved[key], value) for key, value in loaded.restorer.state_dict().items())
    blurred = torch.rand(2, 3, 32, 36, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(loaded.restorer(blurred), method.averaged(blurred))


@systems
def test_the_best_weights_of_a_run_come_before_the_last(name, tmp_path, tiny_methods):
    for file in (LAST, BEST):
        save_weights(tmp_path / file, tiny_methods[name], {"file": file})
    assert load_weights(tmp_path).facts == {"file": BEST}
    assert load_weights(tmp_path / LAST).facts == {"file": LAST}


def test_a_run_without_weights_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"holds no best.safetensors and no last.safetensors: the run has saved"
    ):
        load_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_weights(tmp_path / "nowhere.safetensors")


def cut(path, tensors, about):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path, tensors, about):
    path.write_bytes(b"")


def pickled(path, tensors, about):
    torch.save(tensors, path)


def described(**changes):
    def damage(path, tensors, about):
        save_file(tensors, path, {"trainers": json.dumps({**about, **changes})})

    return damage


def undescribed(path, tensors, about):
    save_file(tensors, path)


def a_list(path, tensors, about):
    save_file(tensors, path, {"trainers": "[1]"})


def no_facts(path, tensors, about):
    save_file(tensors, path, {"trainers": json.dumps({key: about[key] for key in ("method", "config")})})


def no_json(path, tensors, about):
    save_file(tensors, path, {"trainers": "{"})


def one_missing(path, tensors, about):
    save_file(dict(list(tensors.items())[1:]), path, {"trainers": json.dumps(about)})


def not_finite(path, tensors, about):
    save_file({key: tensor * torch.nan for key, tensor in tensors.items()}, path, {"trainers": json.dumps(about)})


DAMAGES = {
    "cut": cut,
    "emptied": emptied,
    "pickled": pickled,
    "undescribed": undescribed,
    "a list": a_list,
    "no json": no_json,
    "no facts": no_facts,
    "unknown system": described(method="deblurer"),
    "system that is no name": described(method=["disentangled"]),
    "unknown option": described(config={"wdth": 4}),
    "config that is no table": described(config=5),
    "other width": described(config={"width": 5}),
    "width of a giant": described(config={"width": 10**12}),
    "width that is no number": described(config={"width": "wide"}),
    "one missing": one_missing,
    "not finite": not_finite,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_weights_are_refused_by_name(damage, tmp_path, tiny_methods):
    path = tmp_path / "weights.safetensors"
    save_weights(path, tiny_methods["cyclegan"], {})
    # The file that is mapped is about to be written over.
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    about = {"method": "cyclegan", "config": as_values(tiny_methods["cyclegan"].config), "facts": {}}
    damage(path, tensors, about)
    with pytest.raises(ValueError, match=r"^\S+weights.safetensors(: | holds no )[^\n]+$"):
        load_weights(path)
