"""The drawn pages: what they hold, that nothing overlaps or leaves the sheet, that seed and index fix every byte."""

import hashlib
import itertools
import os
import pickle
import re
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from blurgen.rng import stream
from blurgen.sources import BadImage, Entry
from blurgen.sources.pages import formulas, layouts
from blurgen.sources.pages.fonts import Face, Font, bundled_families, families_in
from blurgen.sources.pages.page import Page
from blurgen.sources.pages.sheet import Column, Sheet
from blurgen.sources.pages.style import draw_style
from blurgen.sources.pages.words import Prose, vocabulary, with_article
from blurgen.sources.text import TextSource

FONT_FOLDER = str(Path(bundled_families()[0].regular).parent)


def _page(index, **settings):
    return TextSource(**settings).read(f"text/{index:06}").sharp


def _ink_share(page):
    """Return the share of pixels that differ visibly from the commonest colour, the paper."""
    sampled = page[::5, ::5].astype(np.int64) @ [65536, 256, 1]
    colours, counts = np.unique(sampled, return_counts=True)
    common = int(colours[counts.argmax()])
    paper = np.array([common >> 16, common >> 8 & 255, common & 255], np.uint8)
    return (cv2.absdiff(page, np.broadcast_to(paper, page.shape)).max(axis=2) > 32).mean()


class _Recorder(Page):
    """A page that remembers every run of text: (left, top of x, right, baseline), the text, its font."""

    def __init__(self, *args):
        super().__init__(*args)
        self.runs = []

    def text(self, font, x, baseline, text, ink):
        if text.strip():
            box = (x, baseline - font.x_height_px, x + font.width_px(text.rstrip()), baseline)
            self.runs.append((box, text, font))
        super().text(font, x, baseline, text, ink)


def _recorded(layout_name, index, width=1024, height=1448):
    layout = layouts.LAYOUTS[layout_name]
    prose = Prose(stream(7, layout_name, index))
    unit_px = min(width, height) / 1024
    style = draw_style(prose, bundled_families(), tuple(unit_px * x for x in layout.x_height), layout.monospaced)
    page = _Recorder(width, height, style.paper)
    layout.fill(Sheet(page, style, prose, unit_px))
    page.finish()
    return page


# The source


def test_entries_are_keys_in_order_each_its_own_group():
    assert TextSource().entries(2) == [Entry(f"text/00000{i}", f"text/00000{i}", "train") for i in range(2)]
    assert len(TextSource().entries()) == 1000


def test_page_has_the_announced_size_and_the_digest_of_its_pixels():
    source = TextSource(width=600, height=400)
    picture = source.read("text/000003")
    assert picture.sharp.shape == (400, 600, 3)
    assert picture.sharp.dtype == np.uint8
    assert source.size("text/000003") == (600, 400)
    assert picture.blurred is None
    assert picture.sha256 == hashlib.sha256(picture.sharp.tobytes()).digest()


def test_same_page_in_a_fresh_process_and_in_any_order():
    source = pickle.loads(pickle.dumps(TextSource(seed=5)))
    digests = [source.read(f"text/{i:06}").sha256.hex() for i in (4, 0, 11)]
    script = (
        "from blurgen.sources.text import TextSource as T\n"
        "print(*[T(seed=5).read(f'text/{i:06}').sha256.hex() for i in (11, 4, 0)])"
    )
    fresh = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert fresh == [digests[2], digests[0], digests[1]]


@pytest.mark.slow
def test_pages_drawn_by_two_threads_are_those_drawn_in_sequence():
    source = TextSource(seed=8, width=512, height=724)
    keys = [entry.key for entry in source.entries(16)]
    expected = [source.read(key).sha256 for key in keys]
    interval = sys.getswitchinterval()
    for cached in (Font.open, formulas.render_formula, formulas._parser):
        cached.cache_clear()  # races can only happen while the shared parts grow
    try:
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(2) as threads:
            drawn = [picture.sha256 for picture in threads.map(source.read, keys)]
    finally:
        sys.setswitchinterval(interval)
    assert drawn == expected


@pytest.mark.slow
def test_formulas_do_not_depend_on_the_settings_of_matplotlib(tmp_path):
    script = (
        "import hashlib, matplotlib\n"
        "from blurgen.rng import stream\n"
        "from blurgen.sources.pages.formulas import draw_formula, render_formula\n"
        "from blurgen.sources.pages.words import Prose\n"
        "hinting, prose, digest = matplotlib.rcParams['text.hinting'], Prose(stream(3, 'settings')), hashlib.sha256()\n"
        "for fontset in 8 * ('cm', 'stix', 'dejavusans', 'dejavuserif'):\n"
        "    digest.update(render_formula(draw_formula(prose), fontset, 20.0)[0])\n"
        "assert matplotlib.rcParams['text.hinting'] == hinting\n"
        "print(hinting, digest.hexdigest())"
    )
    settings = {
        "ordinary": "",
        "own": "text.hinting: none\ntext.hinting_factor: 1\nfont.family: serif\nmathtext.default: rm\n",
    }
    printed = []
    for name, lines in settings.items():
        (tmp_path / name).write_text(lines)
        environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path / name)}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        printed.append(run.stdout.split())
    (ordinary, expected), (own, digest) = printed
    assert own == "none" != ordinary
    assert digest == expected


def test_another_seed_gives_another_page():
    assert not np.array_equal(_page(0), _page(0, seed=1))


@pytest.mark.parametrize("key", ["text/x", "leaves/000001", "text/", "000001"])
def test_unknown_key_is_refused(key):
    with pytest.raises(BadImage, match="keys of this source read like text/000012"):
        TextSource().read(key)


@pytest.mark.parametrize("settings", [{"width": 255}, {"height": 8193}])
def test_size_out_of_range_is_refused(settings):
    with pytest.raises(ValueError, match="of a page must be 256 to 8192 pixels"):
        TextSource(**settings)


# The pages


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_no_text_overlaps_or_leaves_the_page(name):
    for index in range(4):
        page = _recorded(name, index)
        boxes = np.array([box for box, _, _ in page.runs])
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (page.width, page.height)).all()
        x0, y0, x1, y1 = boxes.T[:, :, None]
        overlap_x = np.minimum(x1, x1.T) - np.maximum(x0, x0.T)
        overlap_y = np.minimum(y1, y1.T) - np.maximum(y0, y0.T)
        pairs = np.argwhere(np.triu((overlap_x > 1) & (overlap_y > 0.5), 1))
        assert len(pairs) == 0, [(page.runs[a][1], page.runs[b][1]) for a, b in pairs[:3]]


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_has_ink_within_bounds_and_text_of_readable_size(name):
    page = _recorded(name, 9)
    assert 0.03 <= _ink_share(page.pixels) <= 0.3
    assert 5 <= np.median([font.x_height_px for _, _, font in page.runs]) <= 30


@pytest.mark.parametrize(("width", "height"), [(256, 256), (256, 1024), (1448, 1024), (2048, 600)])
def test_pages_of_other_sizes_hold_text(width, height):
    for index in range(6):
        assert _ink_share(_page(index, width=width, height=height)) > 0.01


def test_no_character_is_drawn_as_a_missing_glyph():
    for index, name in enumerate(layouts.LAYOUTS):
        for _, text, font in _recorded(name, 20 + index).runs:
            assert all(font.face.has(char) for char in font.face.spelled(text)), (font.face.path, text)


def _census(pages):
    """Return ink shares, digests, coarse pictures, fonts and layouts of the first pages of seed 0."""
    used_fonts, used_layouts, originals = set(), set(), dict(layouts.LAYOUTS)
    inks, digests, thumbnails = [], set(), []
    with pytest.MonkeyPatch.context() as patch:
        text = Page.text
        patch.setattr(Page, "text", lambda page, font, *rest: (used_fonts.add(font.face.path), text(page, font, *rest)))
        for name, layout in originals.items():

            def fill(sheet, name=name, layout=layout):
                used_layouts.add(name)
                layout.fill(sheet)

            patch.setitem(
                layouts.LAYOUTS, name, layouts.Layout(fill, layout.x_height, layout.weight, layout.monospaced)
            )
        for entry in TextSource().entries(pages):
            picture = TextSource().read(entry.key)
            inks.append(_ink_share(picture.sharp))
            digests.add(picture.sha256)
            cells = cv2.resize(picture.sharp, (32, 45), interpolation=cv2.INTER_AREA).mean(2)
            thumbnails.append((cells - cells.mean()).ravel())
    return np.array(inks), digests, np.array(thumbnails), used_fonts, used_layouts


@pytest.mark.parametrize("pages", [32, pytest.param(1000, marks=pytest.mark.slow)])
def test_pages_use_many_fonts_and_layouts_keep_ink_within_bounds_and_never_repeat(pages):
    inks, digests, thumbnails, used_fonts, used_layouts = _census(pages)
    assert len(used_fonts) >= 8
    assert len(used_layouts) >= 4
    assert inks.min() >= 0.03
    assert inks.max() <= 0.3
    assert len(digests) == pages
    squares = (thumbnails**2).sum(1)
    distances = squares[:, None] + squares - 2 * thumbnails @ thumbnails.T
    distances[np.diag_indices(pages)] = np.inf
    # even the arrangement of grey over 32 pixel cells differs between any two pages
    assert np.sqrt(distances.min() / thumbnails.shape[1]) > 1


# Fonts


def test_ink_of_a_glyph_moves_with_its_sub_pixel_position():
    font = Font.open(bundled_families()[1].regular, 14.0)
    centroids = []
    for shift in (0, 0.25, 0.5, 0.75, 1):
        page = Page(40, 30, (255, 255, 255))
        page.text(font, 10 + shift, 20, "l", (0, 0, 0))
        weight = 255.0 - page.finish()[..., 0]
        centroids.append((weight.sum(0) * np.arange(40)).sum() / weight.sum())
    np.testing.assert_allclose(np.diff(centroids), 0.25, atol=0.07)  # a box filter keeps no first moment exactly
    assert centroids[-1] - centroids[0] == pytest.approx(1)


def test_text_is_as_wide_as_freetype_says():
    from PIL import ImageFont

    path = bundled_families()[0].regular
    text = "The width of words"
    expected = ImageFont.truetype(path, 2000, layout_engine=ImageFont.Layout.BASIC).getlength(text) / 100
    assert Font.open(path, 20.0).width_px(text) == pytest.approx(expected, abs=0.1)
    assert Font.open(path, 20.0, 0.5).width_px(text) == pytest.approx(expected / 2, abs=0.1)


def test_computer_modern_is_spelled_in_its_own_encoding():
    face = Face.open(f"{FONT_FOLDER}/cmr10.ttf")
    assert face.spelled("“office”") == '\\o\xb1ce"'
    assert face.spelled("a – b < €5") == "a { b  EUR 5"


def test_every_bundled_face_has_letters_digits_and_punctuation():
    for family in bundled_families():
        for path in (family.regular, family.bold, family.italic, family.bold_italic):
            face = Face.open(path)
            wanted = string.ascii_letters + string.digits + ".,;:!?()[]%$&/-+=*#@"
            assert [char for char in wanted if face.spelled(char) != char or not face.has(char)] == []


def test_own_fonts_are_grouped_by_family_and_used(tmp_path):
    for stem in ("DejaVuSans", "DejaVuSans-Bold", "STIXSizOneSymReg"):
        (tmp_path / f"{stem}.ttf").write_bytes(Path(FONT_FOLDER, f"{stem}.ttf").read_bytes())
    (family,) = families_in(str(tmp_path))
    assert family.name == "DejaVu Sans"
    assert family.regular == family.italic == str(tmp_path / "DejaVuSans.ttf")
    assert family.bold == family.bold_italic == str(tmp_path / "DejaVuSans-Bold.ttf")
    assert not family.fixed_pitch
    own = _page(0, fonts=str(tmp_path))
    assert not np.array_equal(own, _page(0))
    assert 0.02 < _ink_share(own) < 0.4


def test_folder_without_fonts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f".otf files that hold Latin letters, got {tmp_path}")):
        TextSource(fonts=str(tmp_path)).read("text/000000")


def test_file_that_is_no_font_is_refused_by_name(tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    with pytest.raises(ValueError, match=r"must be a font, .*broken\.ttf is not"):
        TextSource(fonts=str(tmp_path)).read("text/000000")


# Words and setting


def test_vocabulary_holds_more_than_a_thousand_words():
    words = {
        form
        for entries in vocabulary().values()
        for entry in entries
        for form in ([entry] if isinstance(entry, str) else entry)
    }
    assert len(words) > 2000


@pytest.mark.parametrize(
    ("part", "forms"),
    [
        ("thing", ("leaf", "leaves")),
        ("thing", ("battery", "batteries")),
        ("thing", ("key", "keys")),
        ("act", ("write", "writes", "wrote", "written")),
        ("act", ("carry", "carries", "carried", "carried")),
        ("act", ("give up", "gives up", "gave up", "given up")),
        ("act", ("turn down", "turns down", "turned down", "turned down")),
        ("say", ("admit", "admits", "admitted", "admitted")),
    ],
)
def test_words_are_inflected(part, forms):
    assert forms in vocabulary()[part]


@pytest.mark.parametrize(
    ("noun", "phrase"), [("hour", "an hour"), ("union", "a union"), ("uneven road", "an uneven road")]
)
def test_article_follows_the_sound(noun, phrase):
    assert with_article(noun) == phrase


def test_sentences_begin_with_a_capital_and_end_with_a_stop():
    prose = Prose(stream(0, "sentences"))
    for _ in range(500):
        sentence = prose.sentence()
        assert re.fullmatch(r"[“A-Z0-9].*[.!]", sentence), sentence
        assert "  " not in sentence


def test_justified_lines_end_at_the_right_margin():
    prose = Prose(stream(1, "justify"))
    style = draw_style(prose, bundled_families()[:1], (8, 9), False)
    object.__setattr__(style, "justified", True)
    page = _Recorder(700, 900, style.paper)
    sheet = Sheet(page, style, prose, 1.0)
    sheet.paragraph(Column(50, 50, 600, 850), sheet.styled(prose.paragraph(30)))
    rows = itertools.groupby(page.runs, key=lambda run: run[0][3])
    ends = [max(box[2] for box, _, _ in row) for _, row in rows]
    np.testing.assert_allclose(ends[:-1], 650, atol=0.5)


def test_every_formula_is_set():
    prose = Prose(stream(2, "formulas"))
    drawn = {formulas.draw_formula(prose) for _ in range(120)}
    assert len(drawn) > 60
    for formula in sorted(drawn)[:8]:
        coverage, depth = formulas.render_formula(formula, "cm", 20)
        assert coverage.max() == 255
        assert 0 <= depth < coverage.shape[0]


def test_plain_pages_have_no_colour_and_white_paper():
    source = TextSource(plain=True, width=384, height=512)
    for index in range(6):
        pixels = source.read(f"text/{index:06}").sharp
        assert (pixels == pixels[..., :1]).all()
        assert (pixels == 255).mean() > 0.5
        assert pixels.min() < 64
