"""Samples rendered again from their sources, and what differs."""

import dataclasses
import shutil

import numpy as np
import pytest
from photos import write_photos

from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import make_plan
from blurgen.rerender import Places, compare_samples
from blurgen.run import Run
from blurgen.shards import open_shards, verify

SERIAL = RunOptions(workers=1, backend="threading")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("rerender") / "photos", 10)


def options(folder, **fields):
    values = {"kernel": Chosen("deblurgan", {"length_px": 10.0, "side_px": 3}), "crop": 32, **fields}
    return MakeOptions(source=Chosen(str(folder)), **values)


def made(folder, out, **fields):
    make(make_plan(options(folder, **fields)), out, SERIAL)
    return out


class TestRerender:
    @pytest.fixture
    def source(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "photos")
        return tmp_path / "photos"

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"exposure": (0.1, 0.5), "lowres": (2, 4), "noise": Chosen("realblur"), "saturation": True},
            {"scale_mean": 32.0, "scale_std": 8.0, "resize_short": 60, "per_image": 3},
        ],
    )
    def test_finds_nothing_in_a_sound_file(self, source, tmp_path, fields):
        out = made(source, tmp_path / "a.h5", **fields)
        assert compare_samples(out, 99, Places(str(source))) == []

    def test_finds_a_changed_motion_file(self, source, tmp_path):
        motion = tmp_path / "motion.csv"
        motion.write_text("0,0\n3,1\n4,4\n")
        out = made(source, tmp_path / "a.h5", kernel=Chosen("file", {"file": str(motion)}))
        plan = open_shards(out).attrs["plan"]
        assert str(tmp_path) not in str(plan)
        assert len(plan["kernel"]["file_sha256"]) == 64
        places = Places(str(source), assignments=(f"kernel.file={motion}",))
        assert compare_samples(out, 99, places) == []
        motion.write_text("0,0\n3,1\n4,5\n")
        assert len(compare_samples(out, 2, places)) >= 2
        with pytest.raises(ValueError, match=r"kernel\.file_sha256"):
            made(source, out, kernel=Chosen("file", {"file": str(motion)}))

    def test_finds_a_changed_source_byte(self, source, tmp_path):
        out = made(source, tmp_path / "a.h5")
        image = bytearray((source / "photo04.jpg").read_bytes())
        image[-20] ^= 1
        (source / "photo04.jpg").write_bytes(image)
        problems = compare_samples(out, 99, Places(str(source)))
        assert len(problems) == 1
        assert "photo04.jpg" in problems[0]

    def test_finds_a_missing_source(self, source, tmp_path):
        out = made(source, tmp_path / "a.h5")
        (source / "photo04.jpg").unlink()
        (problem,) = compare_samples(out, 99, Places(str(source)))
        assert "cannot be read" in problem

    @pytest.mark.parametrize("change", ["crop", "seed", "kernel"])
    def test_finds_a_changed(self, source, tmp_path, monkeypatch, change):
        """A file that was made with something else than its plan says, all checksums right."""
        plan = make_plan(options(source))
        if change == "seed":
            job = Run.job
            monkeypatch.setattr(Run, "job", lambda self, *a: dataclasses.replace(job(self, *a), seed=5))
        elif change == "crop":
            draw = plan.look.rule.draw
            monkeypatch.setattr("blurgen.sample.CropRule.draw", lambda self, *a: draw(*a)._replace(y=1))
        else:
            monkeypatch.setattr("blurgen.sample.rasterize", _other_kernel)
        make(plan, tmp_path / "a.h5", SERIAL)
        monkeypatch.undo()
        assert verify(tmp_path / "a.h5") == []
        problems = compare_samples(tmp_path / "a.h5", 99, Places(str(source)))
        assert problems
        assert any({"crop": "y", "seed": "x", "kernel": "kernel"}[change] in problem for problem in problems)


def _other_kernel(path, side, weights, exposure):
    from blurgen.raster import rasterize

    kernel, shift = rasterize(path, side, weights, exposure)
    kernel = kernel.copy()
    first, second = np.flatnonzero(kernel)[:2]
    kernel.flat[first], kernel.flat[second] = kernel.flat[second], kernel.flat[first]
    return kernel, shift
