"""ShardDataset: shards as tensors, in this process and in the workers of a DataLoader."""

import subprocess
import sys

import numpy as np
import pytest

from blurgen.shards import Layout, write_master
from tests.shard_data import MAPPED, content

torch = pytest.importorskip("torch")
from blurgen.torch import ShardDataset, to_unit  # noqa: E402


def test_images_are_channels_first_from_minus_one_to_one(tmp_path):
    made = content()
    made.arrays["sharp"][2, 0, 0] = (0, 255, 51)
    sample = ShardDataset(made.write(tmp_path / "a.h5"))[2]
    assert sample["sharp"].shape == (3, 8, 8)
    assert sample["sharp"].dtype == torch.float32
    assert sample["sharp"][:, 0, 0].tolist() == pytest.approx([-1, 1, 51 / 127.5 - 1], abs=1e-6)
    expected = made.arrays["blurred_x2"][2].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(sample["blurred_x2"].numpy(), expected, atol=1e-6)
    assert np.array_equal(sample["kernel"].numpy(), made.arrays["kernel"][2])
    assert sample["index"] == 2


def test_maps_stay_as_they_are(tmp_path):
    made = content(layout=MAPPED)
    sample = ShardDataset(made.write(tmp_path / "a.h5"))[3]
    for name, shape in (("label", (8, 8)), ("prior", (3, 2, 2))):
        assert sample[name].shape == shape
        assert np.array_equal(sample[name].numpy(), made.arrays[name][3])
    assert (sample["label"].dtype, sample["prior"].dtype) == (torch.uint8, torch.float16)


def test_levels_stay_levels_where_asked(tmp_path):
    made = content()
    dataset = ShardDataset(made.write(tmp_path / "a.h5"), dtype=torch.uint8)
    assert np.array_equal(dataset[5]["sharp"].numpy(), made.arrays["sharp"][5].transpose(2, 0, 1))
    assert dataset[5]["sharp"].is_contiguous()
    assert torch.equal(to_unit(dataset[5]["sharp"]), ShardDataset(tmp_path / "a.h5")[5]["sharp"])


def test_level_range_is_exact_at_both_ends():
    assert to_unit(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_only_what_is_asked_for_is_read(tmp_path):
    dataset = ShardDataset(content().write(tmp_path / "a.h5"), arrays=("blurred", "kernel"))
    assert set(dataset[0]) == {"blurred", "kernel", "index"}


def test_transform_comes_last(tmp_path):
    dataset = ShardDataset(content().write(tmp_path / "a.h5"), transform=lambda sample: sample["sharp"].shape)
    assert dataset[0] == (3, 8, 8)


def test_dataset_is_a_sequence_that_ends(tmp_path):
    dataset = ShardDataset(content().write(tmp_path / "a.h5"))
    assert len(dataset) == 12
    assert dataset[-1]["index"] == 11
    with pytest.raises(IndexError):
        dataset[12]
    assert [sample["index"] for sample in dataset] == list(range(12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arrays": ("blurred", "label")}, "arrays must be among sharp, blurred, kernel, .* got label"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.uint8, got torch.float16"),
    ],
)
def test_what_cannot_be_had_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        ShardDataset(content().write(tmp_path / "a.h5"), **settings)


@pytest.mark.parametrize(
    ("method", "way"),
    [
        ("fork", "file"),
        ("fork", "master"),
        pytest.param("spawn", "master", marks=pytest.mark.slow),
        ("forkserver", "file"),
    ],
)
def test_loader_gives_every_sample_once_under_any_start_method(tmp_path, method, way):
    made = content(23, Layout(16, 3, lowres=(2,)))
    if way == "file":
        path = made.write(tmp_path / "a.h5")
    else:
        path = tmp_path / "m.h5"
        write_master(made.divided(tmp_path / "set", 4), path)
    dataset = ShardDataset(path, dtype=torch.uint8)
    assert dataset[0]["index"] == 0
    loader = torch.utils.data.DataLoader(
        dataset, 4, shuffle=True, num_workers=2, multiprocessing_context=method, timeout=60
    )
    seen = []
    for batch in loader:
        assert batch["sharp"].shape[1:] == (3, 16, 16)
        for row, index in enumerate(batch["index"].tolist()):
            assert np.array_equal(batch["sharp"][row].numpy(), made.arrays["sharp"][index].transpose(2, 0, 1))
            assert np.array_equal(batch["kernel"][row].numpy(), made.arrays["kernel"][index])
            seen.append(index)
    assert sorted(seen) == list(range(23))


def test_missing_torch_is_one_sentence():
    code = "import sys; sys.modules['torch'] = None; import blurgen.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "blurgen.torch needs PyTorch, which is not installed: run `pip install torch`" in done.stderr
