"""The chain from source to stored sample: what is drawn for which crop, what a file says of it, and the same bytes."""

import numpy as np
import pytest
from photos import photo, write_photos

from blurgen.imaging import draw_saturation, noise_model
from blurgen.kernels import kernel_model
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import make_plan
from blurgen.raster import rasterize
from blurgen.rng import stream
from blurgen.sample import CropRule, Look, render
from blurgen.shards import open_shards

SEED, IMAGES, SIZE = 3, 3, (96, 128)
WALK = Chosen("walk", {"length_px": 10.0, "anxiety": 0.01, "side_px": 3})
# Everything that leaves a trace in /meta, at scales other than 1.
FULL = {
    "exposure": (0.25, 1.0), "noise": Chosen("realblur"), "saturation": True, "scale_mean": 40.0, "scale_std": 8.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("chain") / "photos", IMAGES, *SIZE)


def planned(source, **fields):
    return make_plan(MakeOptions(source=source, **{"kernel": WALK, "crop": 32, "seed": SEED, **fields}))


def made(source, out, workers=1, backend="threading", **fields):
    make(planned(source, **fields), out, RunOptions(workers=workers, backend=backend))
    return out


@pytest.fixture(scope="module")
def laps(folder, tmp_path_factory):
    """Return the samples of two and a half laps over the images, two crops from each a lap."""
    out = tmp_path_factory.mktemp("laps") / "a.h5"
    return open_shards(made(Chosen(str(folder)), out, per_image=2, count=15))


@pytest.fixture(scope="module")
def full(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("full") / "a.h5"
    return open_shards(made(Chosen(str(folder)), out, per_image=2, **FULL))


def purpose_stream(shards, row, purpose):
    """Return the generator that the sample of a /meta row has for a purpose."""
    return stream(SEED, shards.sources["key"][row["source"]].decode(), int(row["crop"]), purpose)


def test_no_two_crops_are_alike_on_any_lap(laps):
    assert len({sample.kernel.tobytes() for sample in laps}) == 15
    assert len({sample.sharp.tobytes() for sample in laps}) == 15


def test_laps_go_through_the_images_and_number_their_crops_on(laps):
    keys = [sample.key for sample in laps]
    lap = [f"photo{number:02d}.jpg" for number in (0, 0, 1, 1, 2, 2)]
    assert keys == (lap * 3)[:15]
    assert laps.meta["crop"].tolist() == [0, 1] * 3 + [2, 3] * 3 + [4, 5, 4]


def test_kernel_of_an_exposure_is_the_start_of_the_trajectory(full):
    model = kernel_model(WALK.name, **WALK.settings)
    for sample, row in zip(full, full.meta, strict=True):
        path, weights, _ = model.trajectory(purpose_stream(full, row, "kernel"))
        exposure = (0.0, row["exposure"][1])
        kernel, shift = rasterize(path * row["scale"], len(sample.kernel), weights, exposure)
        assert np.array_equal(sample.kernel, kernel)
        assert np.array_equal(row["shift"], shift.astype(np.float32))
    assert full.meta["exposure"].tolist() == [[0, 0.25], [0, 1]] * IMAGES * 2


def test_exposures_have_noise_of_their_own():
    model = kernel_model(WALK.name, **WALK.settings)
    look = Look(CropRule(32), model, 31, exposures=(0.5, 0.5), noise=noise_model("boracchi-foi"))
    first, second = render(photo(0), None, look, lambda purpose: stream(SEED, purpose))
    assert np.array_equal(first.kernel, second.kernel)
    assert not np.array_equal(first.images["blurred"], second.images["blurred"])


def test_meta_says_what_was_drawn(full):
    model = kernel_model(WALK.name, **WALK.settings)
    noise, names = noise_model("realblur"), full.layout.params
    rule = CropRule(32, FULL["scale_mean"], FULL["scale_std"])
    assert names == model.PARAMS
    for number, row in enumerate(full.meta):
        box = rule.draw(*SIZE, purpose_stream(full, row, "crop"))
        assert (row["y"], row["x"], row["side"]) == box
        assert row["scale"] == 32 / box.side
        path, _, params = model.trajectory(purpose_stream(full, row, "kernel"))
        stretches = [np.float64(np.hypot(*step)) for step in np.diff(path, axis=0)]
        assert row["length_px"] == pytest.approx(row["scale"] * sum(stretches), rel=1e-6)
        assert row["params"].tolist() == _stored([params[name] for name in names], 16)
        exposure = FULL["exposure"][number % 2]
        _, drawn = noise.apply(np.zeros(1, np.float32), exposure, purpose_stream(full, row, f"noise-{number % 2}"))
        assert row["noise"].tolist() == _stored([drawn["shot"], drawn["read"]], 4)
        assert row["saturation"] == np.float32(draw_saturation(purpose_stream(full, row, "saturation")))
    for field in ("shift", "params", "noise", "saturation", "length_px"):
        assert len(np.unique(full.meta[field].reshape(len(full), -1), axis=0)) > 1, field


def _stored(values, count):
    """Return values as a row of `count` float32 holds them."""
    return np.float32([*values, *[0] * (count - len(values))]).tolist()


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, 1.0),
        ({"resize_short": 48}, 0.5),
        ({"resize_short": 48, "scale_mean": 32.0}, 1.0),
        ({"resize_short": 48, "small": "scale"}, 1.0),
        ({"resize_short": 400}, 1.0),
        ({"scale_mean": 32.0}, 2.0),
    ],
)
def test_kernel_side_of_a_plan_is_the_least_that_holds_every_kernel(folder, fields, scale):
    plan = planned(Chosen(str(folder)), **fields)
    side, least = plan.look.kernel_side, plan.look.model.reach_px() * scale + 3
    assert side % 2 == 1
    assert least - 2 <= side - 1 <= least
    assert plan.layout.arrays["kernel"].shape == (side, side)
    assert plan.document["kernel_side"] == side


SMALL = {"length_px": 10.0, "side_px": 3}
MODELS = {
    "walk": {**SMALL, "anxiety": 0.01},
    "smooth-walk": SMALL,
    "gp": SMALL,
    "spline": SMALL,
    "linear": SMALL,
    "levin-like": {},
}


class TestSameBytes:
    """Of one worker, of two processes, and of two threads, for all that draws random numbers."""

    @pytest.fixture(autouse=True)
    def _small_shards(self, monkeypatch):
        monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib: 4)

    @staticmethod
    def check(source, tmp_path, backends, **fields):
        alone = made(source, tmp_path / "alone.h5", **fields).read_bytes()
        other = {backend: made(source, tmp_path / f"{backend}.h5", 2, backend, **fields) for backend in backends}
        assert [backend for backend, out in other.items() if out.read_bytes() != alone] == []

    @pytest.mark.parametrize(
        "name", [name if name == "walk" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
    )
    def test_with_kernels(self, folder, tmp_path, name):
        backends = ("processes", "threading")
        self.check(Chosen(str(folder)), tmp_path, backends, kernel=Chosen(name, MODELS[name]), per_image=4)

    @pytest.mark.parametrize("name", ["text", pytest.param("leaves", marks=pytest.mark.slow)])
    def test_with_pictures(self, tmp_path, name):
        source = Chosen(name, {"width": 256, "height": 256})
        self.check(source, tmp_path, ("processes", "threading"), count=12)
