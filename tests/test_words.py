"""Words of drawn pages: what they say, where their ink is, and which of them a crop keeps."""

import cv2
import numpy as np
import pytest

from blurgen.rng import stream
from blurgen.sources.pages.fonts import Font, bundled_families
from blurgen.sources.pages.layouts import LAYOUTS, draw_page
from blurgen.sources.pages.page import Page
from blurgen.sources.text import TextSource
from blurgen.words import Words

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
DEJAVU = tuple(family for family in bundled_families() if family.name.startswith("DejaVu"))
SIZE = 360, 500


def _drawn(layout, seed=0):
    page = draw_page(stream(seed, layout), DEJAVU, *SIZE, plain=True, layout=layout)
    page.finish()
    return page


def _covered(boxes, shape, margin=0):
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = True
    return mask


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_ink_of_words_is_inside_their_boxes(layout, monkeypatch):
    page, said = _drawn(layout), []
    monkeypatch.setattr(Page, "text", lambda self, font, x, baseline, text, ink: said.append(text))
    bare = _drawn(layout)
    ink = (page.pixels != bare.pixels).any(2)
    assert ink.any()
    words = page.words()
    # What is no word is the dots that lead to a page number, and the spaces.
    spoken = "".join(said).replace(" ", "")
    assert "".join(words.texts).replace(".", "") == spoken.replace(".", "")
    outside = ink & ~_covered(words.boxes, ink.shape)
    heights = cv2.connectedComponentsWithStats(outside.astype(np.uint8))[2][1:, cv2.CC_STAT_HEIGHT]
    assert heights.max(initial=0) <= (0 if "".join(words.texts) == spoken else 6)
    # A box is no larger than the ink by more than the cells of the glyphs are.
    for text, (left, top, right, bottom) in zip(words.texts, words.boxes, strict=True):
        inked = ink[max(top, 0) : bottom, max(left, 0) : right]
        rows, columns = (np.flatnonzero(inked.any(axis)) for axis in (1, 0))
        if top >= 0 and left >= 0 and bottom <= SIZE[1] and right <= SIZE[0]:
            assert max(rows[0], columns[0], bottom - top - 1 - rows[-1], right - left - 1 - columns[-1]) <= 5, text


def test_pieces_that_touch_are_one_word_and_lines_end_where_the_pen_goes_back_or_down():
    page = Page(600, 200, WHITE)
    font = Font.open(bundled_families()[0].regular, 20.0)
    x = 10.0
    for piece in ("def ", "name", "(", "a, ", "b):"):
        page.text(font, x, 40, piece, BLACK)
        x += font.width_px(piece)
    page.text(font, x + 40, 40, "# far away", BLACK)
    page.text(font, 10, 40.2, "again", BLACK)
    page.text(font, 10, 80, "next ....", BLACK)
    page.finish()
    assert str(page.words()) == "def name(a, b): # far away\nagain\nnext"


def test_foot_of_a_page_is_read_last_whenever_it_was_set():
    font = Font.open(bundled_families()[0].regular, 20.0)

    def said(*rows):
        page = Page(300, 200, WHITE)
        for row, text in rows:
            page.text(font, 10, row, text, BLACK)
        page.finish()
        return str(page.words())

    assert said((180, "12 of 20"), (40, "head"), (80, "body")) == "head\nbody\n12 of 20"
    assert said((80, "second column"), (40, "head"), (120, "body")) == "second column\nhead\nbody"
    assert said((180, "alone"), (180, "twice")) == "alone\ntwice"
    assert said() == ""


def test_signs_that_a_font_lacks_are_said_as_they_are_drawn():
    families = {family.name: family for family in bundled_families()}
    for name, said in (("DejaVu Sans", "“5 €” – office"), ("Computer Modern", "“5 EUR ” – office")):
        page = Page(400, 100, WHITE)
        page.text(Font.open(families[name].regular, 20.0), 10, 50, "“5 €” – office", BLACK)
        page.finish()
        words = page.words()
        assert str(words) == said
        ink = (page.pixels < 128).any(2)
        # Ligatures are one glyph of several letters: the boxes are still those of the words.
        for left, top, right, bottom in words.boxes:
            assert ink[top:bottom, left:right].any()
        assert not (ink & ~_covered(words.boxes, ink.shape)).any()


def test_words_of_a_crop_lie_wholly_inside():
    boxes = [[10, 10, 20, 15], [4, 10, 9, 15], [10, 28, 20, 31], [5, 20, 30, 30]]
    words = Words(["in", "left", "below", "edge"], boxes, [0, 0, 1, 1])
    kept = words.inside(5, 5, 25)
    assert kept.texts == ("in", "edge")
    assert str(kept) == "in\nedge"
    assert str(words.inside(5, 4.5, 24)) == "in"
    assert str(words.inside(90, 90, 5)) == ""
    assert str(Words([], np.zeros((0, 4)), [])) == ""


def test_tables_are_read_row_by_row():
    words = _drawn("invoice", 3).words()
    numbers = [any(char.isdigit() for char in text) for text in words.texts]
    rows = [line for line in np.unique(words.lines) if np.sum((words.lines == line) & numbers) >= 2]
    assert len(rows) >= 4
    tops = [words.boxes[words.lines == line, 1].mean() for line in rows]
    assert tops == sorted(tops)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_letters_can_be_larger_than_usual(layout):
    heights = []
    for letters in (1.0, 3.0):
        words = TextSource(width=256, height=300, layout=layout, letters=letters).read("text/000001").words()
        heights.append(np.median(words.boxes[:, 3] - words.boxes[:, 1]))
    assert heights[1] > 1.5 * heights[0]


def test_layout_and_letters_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match=r"layout must be a kind of page, got 'books': did you mean 'book'"):
        TextSource(layout="books")
    with pytest.raises(ValueError, match=r"letters must be 0\.25 to 8 times their usual size, got 9"):
        TextSource(letters=9)
