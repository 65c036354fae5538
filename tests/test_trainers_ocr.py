"""Character error rate: its arithmetic on known strings, and pages that Tesseract reads."""

import functools
import math
import shutil
import sys

import cv2
import numpy as np
import pytest

from blurgen.sources.text import TextSource
from trainers.ocr import character_error_rate, edit_distance, normalised, open_tesseract


@functools.cache
def slow_distance(one, other):
    """Compute the edit distance by its definition."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        slow_distance(one[1:], other) + 1,
        slow_distance(one, other[1:]) + 1,
        slow_distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("kitten", "sitting", 3),
        ("intention", "execution", 5),
        ("saturday", "sunday", 3),
        ("rosettacode", "raisethysword", 8),
        ("", "abc", 3),
        ("abc", "", 3),
        ("", "", 0),
        ("gleich", "gleich", 0),
    ],
)
def test_edit_distance_of_known_words(one, other, distance):
    assert edit_distance(one, other) == distance == edit_distance(other, one)


def test_edit_distance_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    for _ in range(60):
        one, other = ("".join(rng.choice(list("abcé "), rng.integers(0, 12))) for _ in range(2))
        assert edit_distance(one, other) == slow_distance(one, other)


def test_error_rate_counts_what_is_read_over_what_is_written():
    assert character_error_rate("the cat", "the cat") == 0
    assert character_error_rate("", "the cat") == 1
    assert character_error_rate("the c4ts", "the cat") == pytest.approx(2 / 7)
    assert character_error_rate("a page of noise", "a") == 14
    assert math.isnan(character_error_rate("noise", " \n "))


def test_white_space_and_the_forms_of_signs_do_not_count_but_case_does():
    assert normalised("\n\n A\tﬁne   “day” – it’s \x0c") == 'A fine "day" - it\'s'
    assert character_error_rate("one\n\ntwo\x0c", "one two") == 0
    assert normalised("it´s \ufe58 ‑") == "it's - -"
    assert character_error_rate("One two", "one two") == pytest.approx(1 / 7)
    assert character_error_rate("e\u0301te\u0301", "été") == 0


def test_missing_library_and_program_are_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytesseract", None)
    with pytest.raises(RuntimeError, match=r'needs pytesseract.*pip install "blurgen\[ocr\]"'):
        open_tesseract("eng")
    monkeypatch.undo()
    pytest.importorskip("pytesseract")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match=r"the program Tesseract.*apt-get install tesseract-ocr"):
        open_tesseract("eng")


@pytest.fixture(scope="module")
def read():
    pytest.importorskip("pytesseract")
    if shutil.which("tesseract") is None:
        pytest.skip("the program Tesseract is not installed: `apt-get install tesseract-ocr`")
    read, origin = open_tesseract("eng")
    assert origin.startswith("Tesseract ")
    return read


@pytest.mark.slow
def test_pages_are_read_and_blurred_ones_misread(read):
    source = TextSource(seed=11, width=512, height=512, plain=True, layout="article", letters=2)
    picture = source.read("text/000002")
    said = str(picture.words())
    assert len(said) > 150
    assert character_error_rate(read(picture.sharp), said) < 0.1
    blurred = cv2.GaussianBlur(picture.sharp, (0, 0), 6)
    assert character_error_rate(read(blurred), said) > 0.5
    assert normalised(read(np.full((128, 128, 3), 255, np.uint8))) == ""


def test_package_of_a_language_has_its_name_with_hyphens(monkeypatch):
    pytesseract = pytest.importorskip("pytesseract")
    monkeypatch.setattr(pytesseract, "get_languages", lambda: ["eng"])
    with pytest.raises(ValueError, match=r"no language 'chi_sim'.*apt-get install tesseract-ocr-chi-sim`"):
        open_tesseract("chi_sim")


def test_language_that_is_not_installed_is_one_sentence(read):
    with pytest.raises(ValueError, match=r"no language 'xyz'.*apt-get install tesseract-ocr-xyz"):
        open_tesseract("eng+xyz")
