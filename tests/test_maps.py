"""Label and probability maps: found beside images, read as they are, cut in step with the image, kept in shards."""

import io
import zipfile

import cv2
import numpy as np
import pytest
from photos import photo, write_png
from PIL import Image
from scipy.ndimage import map_coordinates
from shard_data import MAPPED, content

from blurgen.inspect_shards import describe, preview
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.maps import cut_label, cut_prior, whole_prior
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import make_plan, options_of, plan_difference
from blurgen.recipes import open_source
from blurgen.rerender import Places, compare_samples
from blurgen.sample import CropRule, Look, render
from blurgen.shards import open_shards, verify
from blurgen.sources import BadImage
from blurgen.sources.maps import (
    MappedSource,
    decode_label,
    decode_prior,
    label_files,
    prior_files,
    with_maps,
)

KERNEL = Chosen("deblurgan", {"length_px": 6.0, "side_px": 3})
ALONE = RunOptions(workers=1, backend="threading")
RNG = np.random.default_rng(0)


def png(array, **how):
    stream = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(stream, "PNG", **how)
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def probabilities(classes, height, width, seed=0):
    weights = np.random.default_rng(seed).random((classes, height, width)) ** 4
    return (weights / weights.sum(axis=0)).astype(np.float32)


def nearest(label, y, x, side, crop):
    """Return, for each pixel, the id of the source pixel whose centre is nearest."""
    chosen = []
    for start, length in zip((y, x), label.shape, strict=True):
        centres = np.arange(length) + 0.5
        chosen.append([np.abs(centres - (start + (i + 0.5) * side / crop)).argmin() for i in range(crop)])
    return label[np.ix_(*chosen)]


@pytest.mark.parametrize(("y", "x", "side"), [(3.0, 5.0, 16), (2.3, 0.1, 27.7), (0.0, 4.9, 9.1), (0.0, 0.0, 40.0)])
def test_label_is_that_of_the_nearest_pixel(y, x, side):
    label = RNG.integers(0, 256, (40, 45)).astype(np.uint8)
    assert np.array_equal(cut_label(label, (y, x), side, 16), nearest(label, y, x, side, 16))


def test_prior_of_large_cells_is_the_mean_over_their_area():
    # Places of 2 px, cells of 4 · 1.5 px: of 3 places each, from half a place on.
    prior = probabilities(3, 30, 40)
    cut = cut_prior(prior, (60, 80), (5.0, 7.0), 48.0, 32)
    fine = prior.repeat(2, 1).repeat(2, 2)[:, 5:53, 7:55]
    expected = fine.reshape(3, 8, 6, 8, 6).mean((2, 4))
    assert (cut.shape, cut.dtype) == ((3, 8, 8), np.float16)
    np.testing.assert_allclose(cut, expected, atol=1e-3)


def test_prior_of_small_cells_lies_between_its_places():
    prior = probabilities(2, 5, 6)
    y, x = (start + (np.arange(8) + 0.5) * 32 / 8 for start in (3.0, 10.0))
    at = np.meshgrid(y * 5 / 50 - 0.5, x * 6 / 60 - 0.5, indexing="ij")
    expected = [map_coordinates(one, at, order=1, mode="nearest") for one in prior.astype(float)]
    np.testing.assert_allclose(cut_prior(prior, (50, 60), (3.0, 10.0), 32.0, 32), expected, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 15)])
def test_whole_prior_has_a_place_for_four_pixels(height, width):
    prior = probabilities(3, height, width)
    found = whole_prior(prior, (height, width))
    assert found.shape == (3, -(-height // 4), -(-width // 4))
    for i in range(found.shape[1]):
        for j in range(found.shape[2]):
            mean = prior[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((1, 2))
            np.testing.assert_allclose(found[:, i, j], mean, atol=1e-3)


@pytest.mark.parametrize("rule", [CropRule(32), CropRule(32, 50, 12), CropRule(32, resize_short=48)])
def test_maps_are_cut_where_the_image_is(rule):
    image = np.repeat(cv2.GaussianBlur(photo(3)[..., :1], (0, 0), 6)[..., None], 3, 2)
    streams = {"crop": np.random.default_rng(7)}
    maps = {"label": image[..., 0], "prior": np.stack([image[..., 0] / 255, 1 - image[..., 0] / 255])}
    (sample,) = render(image, None, Look(rule, None), streams.get, maps)
    sharp, label, prior = (sample.images[name].astype(float) for name in ("sharp", "label", "prior"))
    assert np.abs(label - sharp[..., 0]).max() <= (0 if rule == CropRule(32) else 6)
    assert np.abs(255 * prior[0] - sharp[..., 0].reshape(8, 4, 8, 4).mean((1, 3))).max() < 4


@pytest.mark.parametrize("depth", [8, 4, 2, 1])
def test_palette_is_read_as_its_numbers_whatever_their_colours(depth):
    ids = RNG.integers(0, 2**depth, (7, 9)).astype(np.uint8)
    image = Image.fromarray(ids, "P")
    image.putpalette([9, 9, 9] * 256)  # all of one colour
    assert np.array_equal(decode_label(png(image, bits=depth)), ids)
    assert np.array_equal(decode_label(png(ids)), ids)


@pytest.mark.parametrize(
    ("data", "reason", "sentence"),
    [
        (b"", "empty", "empty"),
        (png(photo(0)), "label-kind", "must be a PNG of 8-bit ids, gray or a palette, got colours"),
        (png(np.ones((4, 4), np.uint16)), "label-kind", "got 16 bits of gray"),
        (png(Image.new("1", (4, 4))), "label-kind", "got 1 bits of gray"),
        (png(Image.new("LA", (4, 4))), "label-kind", "got gray with alpha"),
        (cv2.imencode(".jpg", photo(0))[1].tobytes(), "label-kind", "must be a PNG, got JPEG"),
        (png(np.ones((64, 64), np.uint8))[:-30], "truncated", "end before|stops"),
    ],
)
def test_label_of_another_kind_is_refused(data, reason, sentence):
    with pytest.raises(BadImage, match=sentence) as refused:
        decode_label(data)
    assert refused.value.reason == reason


def bomb():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(401):
            member.write(bytes(1_000_000))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"text", "must be a file as numpy.save or numpy.savez writes it"),
        (npy(np.ones((2, 3))), r"shape \(K, h, w\) with at most 256 classes K, got float64 of \(2, 3\)"),
        (npy(np.ones((300, 1, 1), np.float32)), r"got float32 of \(300, 1, 1\)"),
        (npy(np.ones((2, 0, 1), np.float16)), r"got float16 of \(2, 0, 1\)"),
        (npy(np.ones((2, 10, 12), np.float32)).replace(b"10, 12", b"-3,-40"), r"got float32 of \(2, -3, -40\)"),
        (npy(np.ones((1, 1, 1), np.float32)).replace(b"(1, 1, 1), }   ", b"(True, 1, 1), }"), r"of \(True, 1, 1\)"),
        (npy(np.ones((2, 3, 4), ">f4")), "got >f4 of"),
        (npy(np.array([[[{}]]], object)), "got object of"),
        (npy(np.ones((2, 3, 4), np.float32))[:-1], "another number of bytes than its header says"),
        (npy(np.ones((2, 3, 4), np.float32)).replace(b"4)", b"9)"), "another number of bytes"),
        (npy(np.ones((2, 3, 4), np.float32)).replace(b"descr", b"descx"), "header of its prior map is damaged"),
        (npz(a=np.ones(3), b=np.ones(3)), "must hold one array, got 2"),
        (npz(a=np.ones((2, 3, 4), np.float32))[:-5], "cannot be read"),
        pytest.param(bomb, "at most 400000000 bytes", marks=pytest.mark.slow),
    ],
)
def test_prior_of_another_kind_is_refused(data, sentence):
    with pytest.raises(BadImage, match=sentence):
        decode_prior(data() if callable(data) else data)


def test_damaged_maps_are_refused_or_read_whole():
    label, prior = RNG.integers(0, 9, (20, 20)).astype(np.uint8), probabilities(2, 6, 6)
    for data, read, wanted in (
        (png(label), decode_label, label.shape),
        (npy(prior), decode_prior, prior.shape),
        (npz(prior=prior), decode_prior, prior.shape),
    ):
        refused = 0
        for _ in range(300):
            broken = bytearray(data)
            for at in RNG.integers(0, len(data), 2):
                broken[at] ^= 1 << RNG.integers(8)
            try:
                assert read(bytes(broken)).size <= 2 * np.prod(wanted)
            except BadImage:
                refused += 1
        assert refused > 20


@pytest.fixture
def photos(tmp_path):
    """Return a folder of four photographs with label and prior maps beside it."""
    for number in range(4):
        name = f"deep/{number}"
        image = photo(number, 60, 72)
        write_png(tmp_path / f"photos/{name}.png", image)
        (tmp_path / "labels/deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "priors/deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labels/{name}.png").write_bytes(png(image[..., 0] // 32))
        whole = probabilities(3, 30, 36, number)
        (tmp_path / f"priors/{name}.{('npy', 'npz')[number % 2]}").write_bytes(
            (npy, lambda a: npz(a=a))[number % 2](whole)
        )
    return tmp_path


def planned(folder, **fields):
    place = {"labels": str(folder / "labels"), "priors": folder / "priors"}
    source = Chosen(str(folder / "photos"))
    return make_plan(MakeOptions(**{"source": source, "kernel": KERNEL, "crop": 24, **place, **fields}))


@pytest.mark.parametrize(
    "fields", [{}, {"scale_mean": 30.0, "scale_std": 9.0, "exposure": (0.5, 1.0), "codec": "gzip"}]
)
def test_made_shards_hold_the_maps_of_each_crop(photos, fields):
    plan = planned(photos, per_image=2, **fields)
    make(plan, photos / "a.h5", ALONE)
    shards = open_shards(photos / "a.h5")
    assert len(shards) == plan.count
    assert list(shards.layout.arrays) == ["sharp", "blurred", "kernel", "label", "prior"]
    for sample in shards:
        y, x, side = (float(sample.meta[name]) for name in ("y", "x", "side"))
        label = np.asarray(Image.open(photos / "labels" / sample.key))
        assert np.array_equal(sample.arrays["label"], nearest(label, y, x, side, 24))
        prior = probabilities(3, 30, 36, int(sample.key[5]))
        coarse = np.stack([nearest(one.repeat(2, 0).repeat(2, 1), y, x, side, 240) for one in prior])
        np.testing.assert_allclose(sample.arrays["prior"], coarse.reshape(3, 6, 40, 6, 40).mean((2, 4)), atol=0.03)
    assert verify(photos / "a.h5") == []
    facts = describe(photos / "a.h5")
    assert (facts["arrays"], facts["classes_of_prior"]) == ("sharp, blurred, kernel, label, prior", 3)
    document = shards.attrs["plan"]
    assert (document["labels"], document["priors"], document["prior_classes"]) == ("folder", "folder", 3)
    assert str(photos) not in str(document)
    assert options_of(document).labels == "folder"


def test_maps_are_the_same_for_any_division_and_rendered_again(photos):
    for number, options in enumerate((ALONE, RunOptions(workers=2, backend="threading", shard_mib=1))):
        make(planned(photos, per_image=9), photos / f"{number}.h5", options)
    assert (photos / "0.h5").read_bytes() == (photos / "1.h5").read_bytes()
    places = {"src": str(photos / "photos"), "labels": str(photos / "labels"), "priors": photos / "priors"}
    assert compare_samples(photos / "0.h5", 9, Places(**places)) == []
    other = np.zeros((60, 72), np.uint8)
    for number in range(4):
        (photos / f"labels/deep/{number}.png").write_bytes(png(other))
    found = compare_samples(photos / "0.h5", 3, Places(**places))
    assert len(found) == 3
    assert all("label is not what the plan makes" in line for line in found)
    with pytest.raises(ValueError, match="the labels came from a folder of your own: --labels says where it is now"):
        compare_samples(photos / "0.h5", 1, Places(str(photos / "photos")))


def test_plan_says_how_maps_are_named_and_not_where_they_lie(photos):
    def said(labels):
        return planned(photos, labels=labels, priors=None).document

    assert said(f"{photos}/labels/*.png")["labels"] == "folder/*.png"
    assert said(f"{photos}/labels/a_*_ids.png")["labels"] == "folder/a_*_ids.png"
    one, other = (said(f"{photos}/labels/*_{kind}.png") for kind in ("a", "b"))
    assert plan_difference(one, other) == ["labels: 'folder/*_a.png' -> 'folder/*_b.png'"]
    with pytest.raises(ValueError, match="the labels came from a folder of your own: --labels says where it is now"):
        Places(str(photos / "photos")).options(one)


def test_image_whose_map_is_missing_or_wrong_is_left_out_and_named(photos):
    (photos / "labels/deep/1.png").unlink()
    (photos / "labels/deep/2.png").write_bytes(png(np.zeros((72, 60), np.uint8)))
    (photos / "priors/deep/3.npz").write_bytes(npy(probabilities(2, 30, 36)))
    progress = make(planned(photos), photos / "a.h5", ALONE)
    assert [(bad.key, bad.reason, bad.message) for bad in progress.bad] == [
        ("deep/1.png", "no-label", "its label map is missing: there is no deep/1.png"),
        ("deep/2.png", "label-size", "its label map has 60x72 px instead of 72x60"),
        ("deep/3.png", "prior-classes", "its prior map has 2 classes, where 3 are expected"),
    ]
    assert [sample.key for sample in open_shards(photos / "a.h5")] == ["deep/0.png"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda prior: prior * np.float32(1.02), "the classes of its prior map must sum to 1 everywhere, got 1.02"),
        (lambda prior: prior - [[[2]], [[-1]], [[-1]]], "holds a value that is no probability"),
        (lambda prior: prior * np.nan, "holds a value that is no probability"),
        (lambda prior: prior[:, :20], "36x20 places, another shape than the image of 72x60 px"),
    ],
)
def test_values_that_are_no_probabilities_are_refused(photos, change, sentence):
    (photos / "priors/deep/0.npy").write_bytes(npy(change(probabilities(3, 30, 36)).astype(np.float32)))
    source = with_maps(open_source(str(photos / "photos")), None, str(photos / "priors"))
    with pytest.raises(BadImage, match=sentence):
        source.read("deep/0.png")


def test_a_star_stands_for_the_path_of_the_image(photos):
    files = label_files(f"{photos}/labels/deep/*.png")
    assert files.find("2.jpg", "label") == f"{photos}/labels/deep/2.png"
    (photos / "gt_2_ids.png").write_bytes(b"")
    assert label_files(f"{photos}/gt_*_ids.png").find("a!2.webp", "label") == f"{photos}/gt_2_ids.png"
    (photos / "labels/out.png").symlink_to("/etc/passwd")
    for key in ("../gt_2_ids.jpg", "out.jpg"):
        with pytest.raises(BadImage, match="leads out of its folder"):
            label_files(f"{photos}/labels").find(key, "label")


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda at: label_files(f"{at}/labels/*.tif"), ValueError, r"--labels must be a folder, or a path with one \*"),
        (lambda at: label_files(f"{at}/*/*.png"), ValueError, "which ends in .png, got"),
        (lambda at: prior_files(f"{at}/nowhere"), FileNotFoundError, "--priors .*: there is no folder"),
        (lambda at: planned(at, labels="dataset"), ValueError, "--labels alone takes the label maps of a dataset, and"),
        (
            lambda at: planned(at, priors=at / "labels"),
            ValueError,
            r"at least one image \(deep/0.png: its prior map is",
        ),
        (lambda at: planned(at, crop=30), ValueError, "--priors needs a crop that is a multiple of 4 px, got 30"),
        (
            lambda at: planned(at, source=Chosen("text")),
            ValueError,
            "--src text draws its own images, which have no maps",
        ),
    ],
)
def test_places_without_maps_are_refused(photos, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(photos)


@pytest.mark.parametrize(
    ("recipe", "image", "label", "settings"),
    [
        ("mapillary", "training/images/a.jpg", "training/labels/a.png", {}),
        ("mapillary", "validation/images/a.jpg", "validation/v1.2/labels/a.png", {}),
        ("mapillary", "training/images/a.jpg", "training/v2.0/labels/a.png", {"layout": "v2.0"}),
        ("cityscapes", "leftImg8bit/val/b/b_0_1_leftImg8bit.png", "gtFine/val/b/b_0_1_gtFine_labelIds.png", {}),
        (
            "cityscapes",
            "leftImg8bit/train_extra/b/b_0_1_leftImg8bit.png",
            "gtCoarse/train_extra/b/b_0_1_gtCoarse_labelIds.png",
            {},
        ),
        ("bdd100k", "images/10k/train/c.jpg", "labels/sem_seg/masks/train/c.png", {}),
        ("bdd100k", "bdd100k/images/10k/val/c.jpg", "bdd100k/labels/sem_seg/masks/val/c.png", {}),
        ("camvid", "train/0001TP_1.png", "trainannot/0001TP_1.png", {}),
        ("kitti", "training/image_2/000003_10.png", "training/semantic/000003_10.png", {"layout": "stereo-2015"}),
    ],
)
def test_recipes_know_where_labels_lie(tmp_path, recipe, image, label, settings):
    pixels = photo(1, 20, 24)
    write_png(tmp_path / image, pixels)
    (tmp_path / label).parent.mkdir(parents=True)
    (tmp_path / label).write_bytes(png(pixels[..., 1]))
    source = with_maps(open_source(recipe, tmp_path, settings=settings), "dataset", None)
    assert isinstance(source, MappedSource)
    (entry,) = source.entries()
    assert (entry.key, source.size(entry.key), source.name) == (image, (24, 20), recipe)
    assert np.array_equal(source.read(entry.key).maps["label"], pixels[..., 1])


def test_preview_shows_maps_in_columns_of_their_own(tmp_path):
    made = content(2, MAPPED, attrs={})
    preview([made.write(tmp_path / "a.h5")], tmp_path / "a.png", 1, histogram=False)
    sheet = cv2.imread(str(tmp_path / "a.png"))
    assert sheet.shape == (264, 5 * 260 + 4, 3)
    shown = sheet[4:260, 4 + 3 * 260 :][:, :256].reshape(8, 32, 8, 32, 3)
    assert (shown == shown[:, :1, :, :1]).all()
    assert len(np.unique(shown[:, 0, :, 0].reshape(-1, 3), axis=0)) > 30
