"""Pages in other scripts: their letters alone, like ordinary words, in fonts that have them; Latin pages as before."""

import re
import tomllib
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from blurgen.rng import stream
from blurgen.sources.pages import writing
from blurgen.sources.pages.fonts import Face, bundled_families, families_in, families_of
from blurgen.sources.pages.page import Page
from blurgen.sources.pages.writing import SCRIPTS, script_named, written
from blurgen.sources.text import TextSource

BUNDLED = ("greek", "cyrillic", "armenian", "georgian")
OTHER = (*BUNDLED, "hiragana")
FOLDER = Path(bundled_families()[0].regular).parent
TABLE = tomllib.loads(Path(writing.__file__).with_name("scripts.toml").read_text("utf-8"))
SAID = "The ferry, which A. Kowalski saw on 3 May, isn't the MS Nordic: the ferry left."


@pytest.fixture
def drawn(monkeypatch):
    """Return a list that gathers (font, characters) of all that is set on pages."""
    runs, text = [], Page.text

    def watched(page, font, x, baseline, given, ink):
        runs.append((font, font.face.shown(given)))
        text(page, font, x, baseline, given, ink)

    monkeypatch.setattr(Page, "text", watched)
    return runs


@pytest.mark.parametrize("name", BUNDLED)
def test_pages_hold_letters_of_their_script_alone_and_none_that_the_font_lacks(drawn, name):
    source = TextSource(script=name, width=300, height=400, seed=2)
    pages = [source.read(f"text/{index:06}").sharp for index in range(3)]
    letters = Counter(char for _, text in drawn for char in text if unicodedata.category(char).startswith("L"))
    assert {unicodedata.name(char).split()[0] for char in letters} == {name.upper()}
    assert len(letters) > 25
    assert all(font.face.has(char) for font, text in drawn for char in text)
    assert any(char.isdecimal() for _, text in drawn for char in text)
    assert min((page != page[0, 0]).any(2).mean() for page in pages) > 0.005


@pytest.mark.parametrize("name", OTHER)
def test_letters_follow_one_another_as_in_ordinary_words(name):
    words = TABLE[name]["words"].replace("-", " ").split()
    counts, made = (
        (Counter(), Counter()),
        [script_named(name).draw(stream(number, "letters")) for number in range(1500)],
    )
    for some, count in zip((words, made), counts, strict=True):
        count.update(char for word in some for char in word)
    alphabet = sorted(counts[0])
    shares = np.array([[count[char] for char in alphabet] for count in counts], float)
    assert np.corrcoef(shares)[0, 1] > 0.97
    reach = 2 if name == "hiragana" else 3
    known = {f" {word} "[place : place + reach] for word in words for place in range(len(word) + 3 - reach)}
    whole = [word for word in made if len(word) < 24]
    followed = {f" {word} "[place : place + reach] for word in whole for place in range(len(word) + 3 - reach)}
    assert followed <= known
    assert np.mean([len(word) for word in made]) == pytest.approx(np.mean([len(word) for word in words]), rel=0.15)
    # Not the words themselves over and over.
    assert len(set(made) - set(words)) > 200


@pytest.mark.parametrize("name", OTHER)
def test_a_word_has_one_counterpart_of_about_its_length_and_all_else_stays(name):
    text = written(name, SAID)
    assert re.sub(r"[^\W\d_]+", "", text) == re.sub(r"[^\W\d_]+", "", SAID.replace("'", ""))
    ours, theirs = (re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", one) for one in (SAID, text))
    counterpart = dict(zip([word.lower() for word in ours], [word.lower() for word in theirs], strict=True))
    assert [counterpart[word.lower()] for word in ours] == [word.lower() for word in theirs]
    lengths = np.array([(len(one), len(other)) for one, other in zip(ours, theirs, strict=True)])
    assert np.abs(lengths[:, 0] - lengths[:, 1]).mean() < 1
    assert len(theirs[ours.index("A")]) == 1


@pytest.mark.parametrize("name", ["greek", "cyrillic", "armenian"])
def test_capitals_stay_capitals(name):
    first, last = (written(name, SAID).split()[place] for place in (0, -1))
    assert first[0].isupper()
    assert first[1:].islower()
    assert last.islower()
    assert written(name, "MS Nordic").split()[0].isupper()


def test_greek_capitals_have_no_accents_and_georgian_words_no_capitals():
    words = " ".join(sorted({word.lower() for word in TABLE["greek"]["words"].split()}))
    capitals = writing._capitals(words)
    assert not set(capitals) & set("ΆΈΉΊΌΎΏΐΰ\u0301")
    assert {"Ϊ", "Ϋ"} <= set(capitals)
    assert written("georgian", "THE FERRY") == written("georgian", "the ferry")


def test_latin_stays_as_it_is():
    assert SCRIPTS[0] == "latin"
    assert written("latin", SAID) == SAID
    assert families_of("latin") == bundled_families()
    pages = [
        TextSource(width=256, height=300, **fields).read("text/000004").sharp for fields in ({}, {"script": "latin"})
    ]
    assert np.array_equal(*pages)


def test_each_script_has_fonts_of_several_kinds_that_hold_its_letters():
    for name in BUNDLED:
        families = families_of(name)
        assert {family.fixed_pitch for family in families} == {True, False}
        for family in families:
            assert family.script == name
            for path in family.files:
                assert [char for char in script_named(name).letters if not Face.open(path).has(char)] == []
    assert {family.name for family in families_of("greek")} >= {"DejaVu Sans", "DejaVu Serif", "STIX"}


def test_fonts_without_the_letters_are_refused_by_one_of_them(tmp_path):
    with pytest.raises(
        ValueError, match=r"lack letters of the script hiragana, such as 'ん': name a folder .*fonts=DIR"
    ):
        TextSource(script="hiragana")
    (tmp_path / "cmr10.ttf").write_bytes((FOLDER / "cmr10.ttf").read_bytes())
    with pytest.raises(ValueError, match=r"hold the letters of the script greek, got .*: cmr10\.ttf lacks 'ω'$"):
        TextSource(script="greek", fonts=str(tmp_path))
    with pytest.raises(ValueError, match=r"script must be one of latin, greek, cyrillic, .*, got 'runic'"):
        TextSource(script="runic")


def test_own_fonts_are_used_where_they_have_the_letters(tmp_path, drawn):
    for stem in ("DejaVuSerif", "cmr10"):
        (tmp_path / f"{stem}.ttf").write_bytes((FOLDER / f"{stem}.ttf").read_bytes())
    (family,) = families_in(str(tmp_path), "cyrillic")
    assert (family.name, family.script, family.fixed_pitch) == ("DejaVu Serif", "cyrillic", False)
    TextSource(script="cyrillic", fonts=str(tmp_path), width=256, height=256).read("text/000001")
    assert {Path(font.face.path).name for font, _ in drawn} == {"DejaVuSerif.ttf"}
