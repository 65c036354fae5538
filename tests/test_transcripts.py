"""Shards with the words of their crops."""

import json
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from photos import photo, write_png

from blurgen import open_shards
from blurgen.cli import main
from blurgen.rerender import Places, compare_samples
from blurgen.shards import verify
from blurgen.sources.text import TextSource
from blurgen.words import TooMuchText, bytes_of, text_of

PAGES = ["--set", "source.plain=true", "--set", "source.width=400", "--set", "source.height=420"]


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def make(out, *arguments):
    return run("make", "--src", "text", *PAGES, "--out", out, "--backend", "threading", "--workers", 1, *arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("transcripts") / "t.h5"
    arguments = ("--count", 8, "--per-image", 2, "--crop", 128, "--scale-mean", 160, "--scale-std", 40)
    result = make(out, "--transcripts", 4096, *arguments, "--exposure", 0.5, "--exposure", 1)
    assert result.exit_code == 0, result.output
    return out


def test_words_that_lie_wholly_in_a_crop_are_kept(made):
    shards, source = open_shards(made), TextSource(plain=True, width=400, height=420)
    assert shards.layout.transcript == 4096
    counts = []
    for sample in shards:
        picture, meta = source.read(sample.key), sample.meta
        words = picture.words()
        corner = np.array([meta["x"], meta["y"]])
        kept = [
            (text, box)
            for text, box in zip(words.texts, words.boxes, strict=True)
            if (box[:2] >= corner).all() and (box[2:] <= corner + meta["side"]).all()
        ]
        assert sample.transcript.split() == [text for text, _ in kept]
        for text, box in kept:
            left, top, right, bottom = (box.reshape(2, 2) - corner).ravel() * meta["scale"]
            assert min(left, top) >= -1e-9
            assert max(right, bottom) <= 128 + 1e-9
            place = slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right)))
            # Ink of a word is where its box says, at the scale of the crop: dark on white, or white on a dark head.
            assert np.ptp(sample.sharp[place].astype(int)) > 40, text
        counts.append(len(kept))
    assert sum(count > 5 for count in counts) > 2
    scales = shards.meta["scale"]
    assert scales.min() < 0.95 * scales.max()


def test_samples_of_one_crop_share_its_words_and_are_rendered_again(made):
    shards = open_shards(made)
    said = [sample.transcript for sample in shards]
    assert said[0::2] == said[1::2]
    assert compare_samples(made, 3, Places()) == []
    assert shards.attrs["plan"]["transcripts"] == 4096


def test_without_the_option_no_words_are_kept_and_the_plan_is_as_before(tmp_path):
    result = make(tmp_path / "t.h5", "--count", 1, "--crop", 64)
    assert result.exit_code == 0, result.output
    shards = open_shards(tmp_path / "t.h5")
    assert shards[0].transcript is None
    assert "transcript" not in shards.layout.arrays
    assert "transcripts" not in shards.attrs["plan"]


@pytest.mark.parametrize(("crop", "size"), [(128, 1024), (16, 64)])
def test_size_of_transcripts_follows_the_crop(tmp_path, crop, size):
    result = make(tmp_path / "t.h5", "--count", 1, "--crop", crop, "--transcripts", "--dry-run", "--json")
    assert json.loads(result.stdout)["plan"]["transcripts"] == 0
    result = make(tmp_path / "t.h5", "--count", 1, "--crop", crop, "--transcripts")
    assert open_shards(tmp_path / "t.h5").layout.transcript == size, result.output


def test_words_that_do_not_fit_leave_their_crop_out_by_name(tmp_path):
    result = make(tmp_path / "t.h5", "--count", 2, "--crop", 400, "--transcripts", 40)
    assert result.exit_code == 1
    said = "text/000000: the words of some of its crops take more than 40 bytes: say --transcripts 80"
    assert said in result.stderr


@pytest.mark.slow
def test_crops_whose_words_do_not_fit_leave_the_others_alone_however_shards_divide_them(tmp_path, monkeypatch):
    arguments = ("--crop", 128, "--per-image", 4, "--transcripts", 80)
    for name, per_shard, counts in (("a", 8, [8]), ("b", 3, [5, 8])):
        monkeypatch.setattr("blurgen.run.shard_capacity", lambda plan, mib, n=per_shard: n)
        for count in counts:
            result = make(tmp_path / name, "--count", count, *arguments)
            assert result.exit_code == 0, result.output
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    shards = open_shards(tmp_path / "a")
    assert Counter(sample.key for sample in shards) == {"text/000000": 1, "text/000001": 4}
    assert [bad[:2] for bad in shards.attrs["bad"]] == [["text/000000", "too-much-text"]]
    assert verify(tmp_path / "a") == []


def test_words_are_asked_of_a_source_that_knows_them(tmp_path):
    write_png(tmp_path / "in" / "a.png", photo(0, 70, 70))
    result = run("make", "--src", tmp_path / "in", "--crop", 64, "--out", tmp_path / "t.h5", "--transcripts")
    assert result.exit_code == 2
    assert "--transcripts needs a source that knows its words, --src text, got --src" in result.stderr
    result = make(tmp_path / "t.h5", "--transcripts=2000000")
    assert result.exit_code == 2
    assert "transcripts must be at most 1,048,576 bytes, got 2,000,000" in result.stderr


def test_text_and_bytes_are_each_other():
    for text in ("", "Zoë\nΩμέγα", "x" * 12):
        stored = bytes_of(text, 20)
        assert (stored.shape, stored.dtype) == ((20,), np.uint8)
        assert text_of(stored) == text
    with pytest.raises(TooMuchText, match=r"take more than 12 bytes: say --transcripts 24"):
        bytes_of("ë" * 6 + "x", 12)
    assert text_of(np.array([97, 0xC3, 0], np.uint8)) == "a\ufffd"
