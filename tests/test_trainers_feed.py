"""The feed: what a step sees, wherever, however and by however many it is read."""

import os
import threading
from itertools import islice

import numpy as np
import pytest
import torch
from feeds import CONFIG, LAYOUT, batches, feed_threads, levels, names, opened, place, same, seen, twenty_groups
from shard_data import grouped

from blurgen.shards import BadShard, Layout, write_master
from trainers.data import DataOptions, open_data
from trainers.feed import HeldOnDevice, load, shall_be_resident
from trainers.method import MethodConfig
from trainers.order import Order


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return twenty_groups(tmp_path_factory.mktemp("data"))


def test_batch_is_float_planes_from_minus_one_to_one(path):
    batch = batches(opened(path), 1)[0]
    for images in (batch.sharp, batch.blurred):
        assert images.shape == (6, 3, 8, 8)
        assert images.dtype == torch.float32
        assert images.is_contiguous()
    # The pixel of sample i is (i, y, x).
    sample, y, x, flip = place(levels(batch.sharp)[0])
    first = [sample / 127.5 - 1, y / 127.5 - 1, (x + 7 * flip) / 127.5 - 1]
    assert batch.sharp[0, :, 0, 0].tolist() == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("side", ["sharp", "blurred"])
def test_each_pass_sees_every_image_of_the_side_once_in_its_own_order(path, side):
    data = opened(path)
    samples = getattr(data, side).samples.tolist()
    assert len(samples) == 48
    shown = [sample for sample, *_ in seen(batches(data, 24), side)]
    passes = [shown[start : start + 48] for start in range(0, 144, 48)]
    for one in passes:
        assert sorted(one) == samples
        assert one != samples
    assert passes[0] != passes[1] != passes[2]


def test_smaller_side_goes_on_with_its_next_pass(tmp_path):
    sharp = grouped(names(7), LAYOUT, prefix="s/").write(tmp_path / "a.h5")
    blurred = grouped(names(22), LAYOUT, prefix="b/").write(tmp_path / "b.h5")
    data = open_data(DataOptions(sharp=sharp, blurred=blurred), "unpaired", 0)
    assert (len(data.sharp), len(data.blurred)) == (7, 18)
    assert data.steps_per_epoch(6) == 3
    shown = [sample for sample, *_ in seen(batches(data, 7), "sharp")]
    for start in range(0, 42, 7):
        assert sorted(shown[start : start + 7]) == list(range(7))


@pytest.mark.parametrize(("batch", "steps"), [(1, 48), (6, 8), (7, 7), (48, 1), (100, 1)])
def test_epoch_sees_the_larger_side_once(path, batch, steps):
    assert opened(path).steps_per_epoch(batch) == steps


def test_crops_and_flips_are_drawn_evenly(path):
    shown = seen(batches(opened(path), 200), "sharp")
    # 1200 draws: six standard deviations around the mean of 9 corners each and of a fair coin.
    for axis in (1, 2):
        counts = np.bincount([one[axis] for one in shown], minlength=9)
        assert len(counts) == 9
        assert np.all(abs(counts - 1200 / 9) < 6 * np.sqrt(1200 * 8 / 81))
    assert abs(sum(flip for *_, flip in shown) - 600) < 6 * np.sqrt(300)
    assert abs(sum(y == x for _, y, x, _ in shown) - 1200 / 9) < 6 * np.sqrt(1200 * 8 / 81)


def test_cuts_do_not_repeat_themselves():
    cuts = Order(0, "sharp", 10, slack=1 << 20, grid=1, flips=True).cuts(0, 5000)
    assert len(set(zip(cuts.y.tolist(), cuts.x.tolist(), strict=True))) == 5000
    joint = Order(0, "sharp", 10, slack=1 << 20, grid=1, flips=True)
    for start, count in ((1020, 9), (2045, 1), (9, 2)):
        for ours, theirs in zip(joint.cuts(start, count), cuts, strict=True):
            assert np.array_equal(ours, theirs[start : start + count])


def test_sides_are_drawn_independently_without_pairs(path):
    some = batches(opened(path), 40)
    sharp, blurred = (np.array([cut[1:] for cut in seen(some, side)]) for side in ("sharp", "blurred"))
    assert np.all(abs((sharp == blurred).mean(0) - [1 / 9, 1 / 9, 1 / 2]) < 0.2)


def test_sides_of_equal_size_have_orders_of_their_own(path):
    data = opened(path)
    some = batches(data, 8)
    rows = [
        [getattr(data, side).samples.tolist().index(sample) for sample, *_ in seen(some, side)]
        for side in ("sharp", "blurred")
    ]
    assert len(rows[0]) == len(rows[1]) == 48
    assert rows[0] != rows[1]


def test_no_image_is_on_both_sides(path):
    data = opened(path)
    used = [set(one.samples.tolist()) for one in (data.sharp, data.blurred, data.validation, data.test)]
    assert sum(map(len, used)) == len(set().union(*used)) == 120


@pytest.mark.parametrize("flips", [True, False])
def test_pairs_are_cut_alike(path, flips):
    data = opened(path, "paired")
    some = batches(data, 32, config=MethodConfig(batch=6, crop=8, flips=flips))
    sharp, blurred = (seen(some, side) for side in ("sharp", "blurred"))
    assert sharp == blurred
    assert {flip for *_, flip in sharp} == {flips, False}
    assert sorted(sample for sample, *_ in sharp[:96]) == data.sharp.samples.tolist()


def test_flips_change_no_crop(path):
    plain = seen(batches(opened(path), 8, config=MethodConfig(batch=6, crop=8, flips=False)), "sharp")
    mirrored = seen(batches(opened(path), 8), "sharp")
    assert [cut[:3] for cut in plain] == [cut[:3] for cut in mirrored]


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
def test_low_resolution_images_are_cut_at_the_same_place(path, pairing):
    some = batches(opened(path, pairing, arrays=("sharp", "blurred_x2")), 20)
    sharp, blurred = seen(some, "sharp"), seen(some, "blurred")
    assert some[0].blurred.shape == (6, 3, 4, 4)
    assert {cut[1] for cut in sharp} == {0, 2, 4, 6, 8}
    doubled = [(sample, 2 * y, 2 * x, flip) for sample, y, x, flip in blurred]
    assert (doubled == sharp) == (pairing == "paired")


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize(
    "settings",
    [{"workers": 1}, {"workers": 3}, {"workers": 0, "resident": "on"}, {"workers": 2, "resident": "on"}],
    ids=str,
)
def test_pixels_do_not_depend_on_how_they_are_read(path, pairing, settings):
    data = opened(path, pairing)
    assert same(batches(data, 20, **settings), batches(data, 20, workers=0, resident="off"))


@pytest.mark.parametrize("arrays", [("sharp", "blurred"), ("sharp", "blurred_x2")])
def test_images_held_on_a_device_are_cut_like_those_read(path, arrays):
    data = opened(path, arrays=arrays)
    feed = data.feed(CONFIG, workers=0)
    domains = feed._store.domains
    held = HeldOnDevice(domains, feed.span, [load(domain.images, torch.device("cpu")) for domain in domains])
    for ours, theirs in islice(zip(held.steps(3), feed._store.steps(3), strict=False), 20):
        assert all(torch.equal(one, other) and one.is_contiguous() for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batch(path, world):
    data = opened(path)
    whole = batches(data, 10)
    parts = [batches(data, 10, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[step].sharp for part in parts]), batch.sharp)
        assert torch.equal(torch.cat([part[step].blurred for part in parts]), batch.blurred)
        drawn = torch.cat([part[step].noise.normal("z", 4) for part in parts])
        assert torch.equal(drawn, batch.noise.normal("z", 4))
        assert [part[step].step for part in parts] == [step] * world


@pytest.mark.parametrize("start", [1, 7, 8, 30])
def test_resumed_feed_goes_on_where_it_would_have_been(path, start):
    data = opened(path)
    resumed = batches(data, 5, start)
    assert same(resumed, batches(data, start + 5)[start:])
    assert [batch.step for batch in resumed] == list(range(start, start + 5))
    assert list(resumed[0].noise.samples) == list(range(6 * start, 6 * start + 6))


def test_seed_changes_the_order_and_no_role(path):
    one, other = opened(path, seed=0), opened(path, seed=1)
    assert list(one.roles()) == list(other.roles())
    assert not same(batches(one, 3), batches(other, 3))
    assert same(batches(one, 3), batches(opened(path, seed=0), 3))


def test_batches_handed_out_are_not_written_to_again(path):
    with opened(path).feed(CONFIG, workers=2) as feed:
        steps = feed.steps()
        first = next(steps)
        before = first.sharp.clone()
        list(islice(steps, 12))
    assert torch.equal(first.sharp, before)


def test_threads_read_ahead_of_the_step(path):
    feed = opened(path).feed(CONFIG, workers=1)
    filled = []
    fill = feed._store.fill
    feed._store.fill = lambda step, places: filled.append(step) or fill(step, places)
    steps = feed.steps(5)
    next(steps)
    deadline = threading.Event()
    while len(filled) < 4 and not deadline.wait(0.01):
        pass
    assert sorted(filled) == [5, 6, 7, 8]
    feed.close()


def test_closed_feed_leaves_no_thread(path):
    feed = opened(path).feed(CONFIG, workers=2)
    steps, others = feed.steps(), feed.steps(4)
    next(steps), next(others)
    assert feed_threads()
    feed.close()
    assert not feed_threads()
    assert next(steps, None) is None


def test_abandoned_steps_leave_no_thread(path):
    feed = opened(path).feed(CONFIG, workers=2)
    next(feed.steps())
    assert not feed_threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_error_of_a_reader_reaches_the_consumer(tmp_path, workers):
    # Larger than what is read of a file at once.
    path = grouped(names(4), Layout(64), crops=8).write(tmp_path / "a.h5")
    with opened(path).feed(CONFIG, workers=workers) as feed:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(BadShard, match="was cut short after it was opened"):
            list(islice(feed.steps(), 20))
        assert not feed_threads()


def test_crop_of_the_whole_image_is_the_image(path):
    shown = seen(batches(opened(path), 8, config=MethodConfig(batch=6, crop=16)), "sharp")
    assert {cut[1:3] for cut in shown} == {(0, 0)}
    assert {flip for *_, flip in shown} == {True, False}


def test_sharded_and_compressed_sets_feed_the_same(path, tmp_path):
    made = grouped([name for name in names(20) for _ in range(3)], LAYOUT, crops=2)
    write_master(made.divided(tmp_path / "set", 7), tmp_path / "m.h5")
    expected = batches(opened(path), 10)
    for other in (tmp_path / "m.h5", tmp_path / "set", made.write(tmp_path / "z.h5", "gzip")):
        assert same(batches(opened(other), 10), expected)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"crop": 20}, {}, r"have a side of 16 px, and --crop asks for 20: .* `blurgen make --crop 20`"),
        ({"batch": 5}, {"world": 2}, "--batch must be a multiple of the 2 processes of the run, got 5"),
        ({}, {"workers": -1}, "--workers must be at least 0, got -1"),
        ({}, {"resident": "yes"}, "--resident must be one of auto, on, off, got 'yes'"),
    ],
)
def test_feeds_that_cannot_be_are_refused(path, changes, settings, message):
    with pytest.raises(ValueError, match=message):
        opened(path).feed(MethodConfig(**{"batch": 6, "crop": 8, **changes}), **settings)


def test_crop_must_fit_the_low_resolution_images(path):
    with pytest.raises(ValueError, match=r"--crop must be a multiple of 2, .*, got 9"):
        opened(path, arrays=("sharp", "blurred_x2")).feed(MethodConfig(batch=6, crop=9))


@pytest.fixture
def free_of_gpu(path, monkeypatch):
    """Return a function that makes a GPU's free memory some multiple of the images of one side, 48 of each."""

    def set_free(multiple):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(multiple * 48 * 16 * 16 * 3), 1 << 40))
        data = opened(path)
        return (data.sharp, data.blurred), torch.device("cuda")

    return set_free


@pytest.mark.parametrize(
    ("multiple", "resident", "expected"),
    [(4, "auto", True), (3.9, "auto", False), (2, "on", True), (100, "off", False)],
)
def test_gpu_holds_images_that_take_half_of_what_is_free(free_of_gpu, multiple, resident, expected):
    assert shall_be_resident(*free_of_gpu(multiple), resident) == expected


def test_images_that_do_not_fit_into_a_gpu_are_refused(free_of_gpu):
    with pytest.raises(ValueError, match=r"--resident on needs 0.0 GiB .* are free on cuda: use --resident off"):
        shall_be_resident(*free_of_gpu(1.9), "on")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": 2}, {"resident": "auto"}], ids=str)
def test_gpu_sees_the_same_pixels(path, settings):
    data = opened(path)
    some = batches(data, 60, device="cuda", **{"resident": "off", **settings})
    expected = batches(data, 60)
    for ours, theirs in zip(some, expected, strict=True):
        assert ours.sharp.is_cuda
        assert torch.allclose(ours.sharp.cpu(), theirs.sharp, atol=1e-6)
        assert torch.allclose(ours.blurred.cpu(), theirs.blurred, atol=1e-6)
