"""Systems that maps guide: how labels and probabilities of classes reach the networks, in training and after it."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from feeds import batches, levels, opened
from photos import write_png
from restorers import _shaken, photograph
from shard_data import grouped
from test_trainers_as_cyclegan import GENERATORS, TRAINS, awake, parts
from toy_system import train_here
from trainer_data import (  # noqa: F401
    _quick_convolutions,
    assert_trains_alone,
    batch_of,
    changed,
    noise,
    rescaled,
    tiny,
    tiny_config,
    values,
)

from blurgen.options import build
from blurgen.shards import Layout
from trainers.band_plan import BandPlan
from trainers.bands import run_in_bands
from trainers.blocks import Channels, OneHot
from trainers.data import DataOptions, open_data
from trainers.deblur_options import DeblurOptions
from trainers.evaluate import EvalOptions, evaluate
from trainers.feed import HeldOnDevice, load
from trainers.held_out import shard_pairs
from trainers.infer import deblur_image
from trainers.memory import activation_bytes
from trainers.method import MethodConfig
from trainers.models.as_cyclegan import ASCycleGAN, ASCycleGANConfig, ASCycleGANRestorer
from trainers.padding import PaddedImage
from trainers.photographs import deblur_photographs
from trainers.rows import trace_restoring
from trainers.tiles import receptive_radius, sample_patches
from trainers.weights import load_weights

CPU, NAME = torch.device("cpu"), "as-cyclegan"
MODES = {"label": {"prior": "label", "classes": 3}, "prior": {"prior": "prior", "classes": 3}}
modes = pytest.mark.parametrize("mode", MODES)
CONFIG = MethodConfig(batch=6, crop=8)


def shards_of(folder, name="a.h5", classes=4, crop=16, prefix=""):
    """Write shards of 20 sources whose labels are the columns of the image, and whose priors the quarters of those."""
    made = grouped([f"{prefix}scene {n}" for n in range(20)], Layout(crop, label=True, prior=classes), 2, prefix=prefix)
    columns = np.arange(crop, dtype=np.uint8)
    made.arrays["label"][:] = columns
    quarters = np.arange(crop // 4) % classes
    made.arrays["prior"][:] = (np.arange(classes)[:, None] == quarters)[:, None].astype(np.float16)
    return made.write(folder / name)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return shards_of(tmp_path_factory.mktemp("guided"))


@modes
@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": 2}, {"workers": 0, "resident": "on"}], ids=str)
def test_maps_are_cut_and_mirrored_with_their_images(shards, mode, pairing, settings):
    flips = set()
    for batch in batches(opened(shards, pairing, arrays=("sharp", "blurred", mode)), 8, config=CONFIG, **settings):
        for side in ("sharp", "blurred"):
            image, guide = levels(getattr(batch, side)), getattr(batch, f"{side}_guide").numpy()
            columns = image[..., 2] if side == "sharp" else 255 - image[..., 2]
            flips |= set((columns[:, 0, 0] > columns[:, 0, -1]).tolist())
            if mode == "label":
                assert np.array_equal(guide[:, 0], columns)
            else:
                assert guide.shape == (6, 4, 8, 8)
                assert np.array_equal(guide.argmax(1), columns // 4)
    assert flips == {False, True}


@modes
def test_maps_held_on_a_device_are_cut_like_those_read(shards, mode):
    feed = opened(shards, arrays=("sharp", "blurred", mode)).feed(CONFIG, workers=0)
    domains = feed._store.domains
    held = HeldOnDevice(domains, feed.span, [load(domain.images, CPU) for domain in domains])
    for ours, theirs in islice(zip(held.steps(3), feed._store.steps(3), strict=False), 10):
        assert all(torch.equal(one, other) and one.is_contiguous() for one, other in zip(ours, theirs, strict=True))


def test_maps_that_shards_lack_are_asked_for(tmp_path, shards):
    plain = grouped([f"scene {n}" for n in range(8)], Layout(16)).write(tmp_path / "plain.h5")
    for mode, way in (("label", "--labels"), ("prior", "--priors DIR")):
        for call in (opened, lambda path, **how: shard_pairs(path, "all", None, **how)):
            with pytest.raises(ValueError, match=f"holds no {mode} maps: make shards with `blurgen make {way}`"):
                call(plain, arrays=("sharp", "blurred", mode))
    other = shards_of(tmp_path, "b.h5", classes=2, prefix="other ")
    with pytest.raises(ValueError, match=r"must have the same classes, got 4 in .*a.h5 and 2 in .*b.h5: make both"):
        open_data(DataOptions(sharp=shards, blurred=other), arrays=("sharp", "blurred", "prior"))
    with pytest.raises(ValueError, match="--crop must be a multiple of 4"):
        opened(shards, arrays=("sharp", "blurred", "prior")).feed(MethodConfig(crop=6, batch=2))


def test_two_files_give_each_side_its_maps(tmp_path, shards):
    other = shards_of(tmp_path, "b.h5", prefix="other ")
    data = open_data(DataOptions(sharp=shards, blurred=other), arrays=("sharp", "blurred", "label"))
    (batch,) = batches(data, 1, config=CONFIG)
    assert np.array_equal(batch.sharp_guide[:, 0].numpy(), levels(batch.sharp)[..., 2])
    assert data.validation[0].guide.shape == (16, 16)


def test_ids_become_channels_and_unknown_ones_none():
    ids = torch.randint(0, 9, (2, 1, 5, 6), generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.one_hot(ids[:, 0], 9)[..., :4].permute(0, 3, 1, 2)
    assert torch.equal(OneHot(4)(ids.float()), expected.float())
    assert torch.equal(Channels(1, 3)(expected), expected[:, 1:3])


@pytest.mark.parametrize(("height", "width"), [(70, 93), (5, 9)])
def test_parts_of_a_guided_image_are_mirrored_like_its_colours(height, width):
    label = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)
    prior = np.random.default_rng(1).random((2, -(-height // 4), -(-width // 4))).astype(np.float16)
    spread = prior.repeat(4, 1).repeat(4, 2)[:, :height, :width].astype(np.float32)
    colors = np.repeat(label[..., None], 3, 2)
    for guide, planes in ((label, label[None].astype(np.float32)), (prior, spread)):
        image = PaddedImage(colors, 4, CPU, guide)
        more = ((0, 0), (0, image.height - height), (0, image.width - width))
        whole = np.pad(planes, more, mode="reflect")
        assert np.array_equal(image.whole()[0, 3:].numpy(), whole)
        assert np.array_equal(image.part(3, 40, 8, 60)[0, 3:].numpy(), whole[:, 3:40, 8:60])


def restorer_of(mode, width=4):
    return _shaken(ASCycleGANRestorer(build(ASCycleGANConfig, {"width": width, "blocks": 1, **MODES[mode]})))


def guide_of(mode, height, width):
    rng = np.random.default_rng(height)
    if mode == "label":
        return (
            rng.integers(0, 5, (-(-height // 8), -(-width // 8)), np.uint8).repeat(8, 0).repeat(8, 1)[:height, :width]
        )
    weights = rng.random((3, -(-height // 4), -(-width // 4)))
    return (weights / weights.sum(0)).astype(np.float16)


@modes
@pytest.mark.parametrize(
    ("height", "width", "band_bytes"), [pytest.param(64, 64, 1, marks=pytest.mark.slow), (131, 90, 300_000)]
)
def test_bands_of_a_guided_network_equal_the_whole(mode, height, width, band_bytes):
    restorer, guide = restorer_of(mode), guide_of(mode, height, width)
    image, rows = PaddedImage(photograph(height, width), 4, CPU, guide), {}
    plan = BandPlan(trace_restoring(restorer), image.height, image.width, 0, band_bytes, channels=restorer.channels)
    with torch.inference_mode():
        whole = restorer(image.whole())
        run_in_bands(plan, image, None, rows.__setitem__, CPU)
    assert (torch.cat([rows[first] for first in sorted(rows)], 2) - whole).abs().max() <= 1e-4
    other = PaddedImage(photograph(height, width), 4, CPU, guide[..., ::-1])
    assert (restorer(other.whole()) - whole).abs().max() > 0.05


@modes
def test_guided_photograph_comes_out_alike_in_all_modes(mode):
    restorer, image = restorer_of(mode), photograph(90, 120)
    guide = guide_of(mode, 90, 120)
    whole, exact = (deblur_image(restorer, image, guide=guide, tiles=tiles) for tiles in ("whole", "exact"))
    assert whole.shape == image.shape
    assert np.abs(whole.astype(int) - exact).max() <= 1
    patches = sample_patches(PaddedImage(image, 4, CPU, guide), 5000, 4)
    assert patches.shape[1:] == (restorer.channels, 48, 48)
    assert 0 < receptive_radius(restorer) < 200
    # The ids or probabilities are part of what is in memory.
    assert activation_bytes(restorer, 96, 120) > 3 * 96 * 120 * 4


def test_probabilities_of_any_resolution_guide_a_photograph():
    restorer, image, guide = restorer_of("prior"), photograph(64, 96), guide_of("prior", 64, 96)
    fine = guide.astype(np.float32).repeat(8, 1).repeat(8, 2)
    np.testing.assert_allclose(
        deblur_image(restorer, image, guide=fine).astype(int), deblur_image(restorer, image, guide=guide), atol=1
    )


@pytest.mark.parametrize(
    ("mode", "guide", "sentence"),
    [
        (
            "label",
            None,
            "is guided by label maps, and there is none of the image: deblur with --labels, and measure on",
        ),
        (
            "label",
            guide_of("label", 64, 60),
            r"the label map of the image must have the shape \(64, 64\), got \(64, 60\)",
        ),
        ("prior", guide_of("prior", 64, 64)[:2], r"must have the shape \(3, 16, 16\), got \(2, 16, 16\)"),
        (None, guide_of("label", 64, 64), "this system is not guided by maps: leave them out"),
    ],
)
def test_wrong_guide_is_refused(mode, guide, sentence):
    restorer = restorer_of(mode) if mode else tiny(NAME).averaged
    with pytest.raises(ValueError, match=sentence):
        deblur_image(restorer, photograph(64, 64), guide=guide)


@modes
def test_each_loss_trains_a_guided_system(mode):
    method = awake(tiny(NAME, cycle_pixel=1.0, **MODES[mode]))
    batch, weights = batch_of(method.config), method.config.weights
    fakes = method.translate(batch)
    losses = method.generator_losses(batch, fakes)
    whole = sum(weights[name] * loss for name, loss in losses.items())
    for name, loss in losses.items():
        assert_trains_alone(TRAINS[name], parts(method), weights[name] * loss, whole)


@modes
def test_each_pass_is_guided_by_the_map_of_what_is_shown(mode):
    method = tiny(NAME, **MODES[mode])
    batch, given = batch_of(method.config), []
    for name in GENERATORS:
        network = method.networks[name]
        network.condition.register_forward_pre_hook(lambda _, args, name=name: given.append((name, args[0][:, 3:])))
    method.step(batch)
    sharp, blurred = batch.sharp_guide, batch.blurred_guide
    expected = {"generator_sharp": (blurred, sharp, sharp), "generator_blurred": (sharp, blurred, blurred)}
    for name, guides in expected.items():
        of_network = [guide for network, guide in given if network == name]
        assert len(of_network) == 3
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(of_network, guides, strict=True))


@modes
def test_guided_steps_repeat_themselves_and_go_on_from_a_state(mode, tmp_path):
    first, second = (tiny(NAME, seed, **MODES[mode]) for seed in range(2))
    first.step(batch_of(first.config, 0))
    torch.save(first.state(), tmp_path / "state.pt")
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for method in (first, second):
        method.step(batch_of(method.config, 1))
    mine, theirs = values(first.networks), values(second.networks)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert changed(first, theirs) == set()


@pytest.mark.slow
@modes
def test_a_guided_system_learns_a_few_images_by_heart(mode):
    method = rescaled(tiny(NAME, batch=4, lr=5e-3, dropout=0.0, cycle_pixel=10.0, **MODES[mode]))
    batch = batch_of(method.config)

    @torch.no_grad()
    def error():
        sharp, blurred = method.returned(batch, method.translate(batch))
        return ((sharp - batch.sharp).abs().mean() + (blurred - batch.blurred).abs().mean()).item()

    before = error()
    for step in range(60):
        method.step(replace(batch, noise=noise(step, range(4))))
    # An image of mean colours leaves 0.8 of it. These maps say nothing of the images, and must be seen through.
    assert error() < 0.6 * before


def test_classes_of_priors_are_those_of_the_shards(shards, tmp_path):
    config = build(ASCycleGANConfig, {"prior": "prior"})
    assert ASCycleGAN.with_classes(config, 7).classes == 7
    assert ASCycleGAN.with_classes(build(ASCycleGANConfig, {}), 7).classes == 0
    assert ASCycleGAN.arrays(config) == ("sharp", "blurred", "prior")
    with pytest.raises(ValueError, match="probability maps of the shards have 7 classes, got classes 3: leave it out"):
        ASCycleGAN.with_classes(build(ASCycleGANConfig, MODES["prior"]), 7)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prior": "label"}, "--prior label needs the number of classes, 1 to 256, got 0: give --classes"),
        ({"classes": 3}, "classes are those of maps, got 3 for prior self: give --prior label"),
        ({"prior": "prior", "sft": False}, "prior is what sft works by, got prior prior and no sft"),
        ({"prior": "depth"}, "prior must be one of self, label, prior"),
    ],
)
def test_priors_that_nothing_is_made_of_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(NAME, **changes)


RUN = {"width": 2, "blocks": 1, "crop": 32, "batch": 2, "cycle": 0.0, "cycle_pixel": 1.0, "device": "cpu", "workers": 0}


@pytest.mark.parametrize("mode", ["label", pytest.param("prior", marks=pytest.mark.slow)])
def test_guided_run_trains_measures_and_deblurs(tmp_path, mode):
    data = shards_of(tmp_path, crop=32)
    settings = {**RUN, **MODES[mode], "data": data}
    settings["classes"] = 20 if mode == "label" else 0
    for out, steps in (("straight", 4), ("parts", 2), ("parts", 4)):
        train_here(NAME, out=tmp_path / out, steps=steps, **settings)
    ends = [max((tmp_path / out / "states").glob("*.pt")) for out in ("straight", "parts")]
    one, two = (torch.load(path, weights_only=True) for path in ends)
    mine, theirs = one["method"]["networks"], two["method"]["networks"]
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    weights = load_weights(tmp_path / "parts")
    assert (weights.restorer.guide, weights.config.classes) == (mode, 20 if mode == "label" else 4)
    evaluation = evaluate(EvalOptions(data=(data,), device="cpu"), tmp_path / "parts")
    assert np.isfinite(evaluation.means["output"]["psnr"][0])
    photographs, maps = tmp_path / "photographs", tmp_path / "maps"
    write_png(photographs / "a/0.png", photograph(40, 50))
    write_png(photographs / "1.png", photograph(30, 30))
    place = {"label": {"labels": maps}, "prior": {"priors": maps}}[mode]
    (maps / "a").mkdir(parents=True)
    if mode == "label":
        write_png(maps / "a/0.png", photograph(40, 50)[..., :1])
    else:
        np.save(maps / "a/0.npy", np.full((4, 10, 12), 0.25, np.float32))
    options = DeblurOptions(tmp_path / "out", device="cpu", **place)
    outcome = deblur_photographs(options, tmp_path / "parts", [photographs], quiet=True)
    assert [path.name for path in outcome.written] == ["0.png"]
    assert [(bad.reason, bad.message.partition(":")[0]) for bad in outcome.bad] == [
        (f"no-{mode}", f"its {mode} map is missing")
    ]
    for wrong, sentence in (({}, f"was trained with {mode} maps: say with --{mode}s"), (place, "leave out --")):
        other = {"labels": maps, "priors": maps} if wrong else {}
        with pytest.raises(ValueError, match=sentence):
            deblur_photographs(DeblurOptions(tmp_path / "out", **other), tmp_path / "parts", [photographs], quiet=True)
