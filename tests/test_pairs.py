"""Real pairs: both sides of each, and what is said of a side that is missing or does not fit."""

import dataclasses
import pickle
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image
from test_sources import keys_of, reasons_of
from trees import plant

from blurgen.recipes import open_source
from blurgen.sources import BadImage
from blurgen.sources.folder import FolderSource
from blurgen.sources.pairs import PairsSource


def pairs(root, **changes):
    sides = (FolderSource(str(root), (("", f"{side}/*"),)) for side in ("sharp", "blur"))
    return dataclasses.replace(PairsSource(*sides, pair="^(sharp|blur)/"), **changes)


def test_pair_carries_both_sides_and_both_digests(tmp_path):
    plant(tmp_path, ["sharp/a.png", "blur/a.png"])
    source = pickle.loads(pickle.dumps(pairs(tmp_path)))
    picture = source.read("blur/a.png")
    sharp, blurred = (FolderSource(str(tmp_path)).read(f"{side}/a.png") for side in ("sharp", "blur"))
    assert np.array_equal(picture.sharp, sharp.sharp)
    assert np.array_equal(picture.blurred, blurred.sharp)
    assert picture.sha256 == sha256(sharp.sha256 + blurred.sha256).digest()
    assert source.size("blur/a.png") == (8, 6)


def test_pair_without_partner_or_of_unequal_sizes_is_refused(tmp_path):
    plant(tmp_path, ["sharp/a.png", "blur/a.png", "sharp/b.png", "blur/c.png"])
    plant(tmp_path, ["sharp/d.png"], (6, 8))
    plant(tmp_path, ["blur/d.png"], (8, 6))
    source = pairs(tmp_path)
    reasons = {"blur/c.png": "unpaired", "blur/d.png": "unequal-sizes", "sharp/b.png": "unpaired"}
    assert reasons_of(source) == reasons
    for key in reasons:
        with pytest.raises(BadImage):
            source.size(key)


@pytest.mark.parametrize("side", ["sharp", "blurred"])
def test_one_side_alone_is_good(tmp_path, side):
    plant(tmp_path, ["sharp/a.png", "blur/b.png"])
    source = pairs(tmp_path, **{"blurred" if side == "sharp" else "sharp": None})
    assert source.sides == side
    picture = source.read(keys_of(source)[0])
    assert getattr(picture, side) is not None
    assert (picture.sharp is None) == (side == "blurred")


def test_real_data_pairs_match(data_root):
    for name, count in {"gopro/pairs": 4, "text_pan2014": 16, "lowlight_saturated_hu2014": 3}.items():
        source = open_source(str(data_root / name), real=True)
        entries = source.entries()
        assert (source.sides, len(entries)) == ("both", count)
        for entry in entries:
            picture = source.read(entry.key)
            sharp, blurred = (
                np.asarray(Image.fromarray(side).convert("L"), float) for side in (picture.sharp, picture.blurred)
            )
            assert np.corrcoef(sharp.ravel(), blurred.ravel())[0, 1] > 0.4, entry.key
