"""Scripts: the words of a page in letters of another alphabet, each word the same wherever it stands."""

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np

from blurgen.rng import stream

LATIN = "latin"
SCRIPTS = (LATIN, "greek", "cyrillic", "armenian", "georgian", "hiragana")

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_ACUTE = "\u0301"
# Of so many words the one is taken that is about as long as what it stands for.
_DRAWS = 12
_LONGEST = 24


@dataclass(frozen=True)
class Script:
    """An alphabet, and how words are made of it.

    Attributes
    ----------
    name : str
    letters : str
        All letters that its words hold, small and capital, those first that no other script has.
    middle : str
        A letter without ascender and descender.
    cased : bool
        Whether there are capitals.
    followers : dict
        The last letters, or spaces at the start of a word -> what followed them in ordinary words, as often as it did;
        a space is the end.
    memory : int
        How many letters these are.
    """

    name: str
    letters: str
    middle: str
    cased: bool
    followers: dict[str, str]
    memory: int

    def draw(self, rng: np.random.Generator) -> str:
        """Return a word whose letters follow one another as in ordinary words: a Markov chain of order `memory`."""
        word = " " * self.memory
        while len(word) < _LONGEST + self.memory:
            choices = self.followers[word[-self.memory :]]
            letter = choices[int(rng.integers(len(choices)))]
            if letter == " ":
                break
            word += letter
        return word[self.memory :]


@cache
def script_named(name: str) -> Script:
    """Return the script of that name, one of `SCRIPTS` but Latin."""
    table = tomllib.loads(files("blurgen.sources.pages").joinpath("scripts.toml").read_text("utf-8"))[name]
    words, memory = table["words"].replace("-", " ").split(), table["memory"]
    followers: dict[str, str] = {}
    for word in words:
        padded = " " * memory + word + " "
        for place in range(len(word) + 1):
            last = padded[place : place + memory]
            followers[last] = followers.get(last, "") + padded[place + memory]
    small = {letter for word in words for letter in word}
    capitals = {letter for one in small for letter in _capitals(one)} if table["cased"] else set()
    letters = sorted(small | capitals, key=_distinctness, reverse=True)
    return Script(name, "".join(letters), table["middle"], table["cased"], followers, memory)


def _distinctness(letter: str) -> tuple[bool, bool, str]:
    """Return what sorts letters: the first ones of an alphabet look like Latin ones, accents come and go."""
    return len(unicodedata.normalize("NFD", letter)) == 1, letter == letter.lower(), letter


def written(name: str, text: str) -> str:
    """Return a text with each of its words replaced by one of the script `name`; all else stays.

    A word has the same counterpart of about its length everywhere, so that frequent and short words remain so. What is
    capitalised, or all in capitals, remains that, too, where the script has capitals.
    """
    if name == LATIN:
        return text
    return _WORD.sub(lambda match: _cased(name, match[0]), text)


def _cased(name: str, word: str) -> str:
    counterpart = _counterpart(name, word.lower())
    if not script_named(name).cased or not word[0].isupper():
        return counterpart
    return _capitals(counterpart) if word.isupper() else _capitals(counterpart[0]) + counterpart[1:]


@lru_cache(maxsize=1 << 16)
def _counterpart(name: str, word: str) -> str:
    rng = stream(0, "script", name, word)
    drawn = [script_named(name).draw(rng) for _ in range(_DRAWS)]
    return drawn[0][0] if len(word) == 1 else min(drawn, key=lambda one: abs(len(one) - len(word)))


def _capitals(letters: str) -> str:
    """Return letters in capitals, without the accents that Greek leaves out of these."""
    bare = unicodedata.normalize("NFD", letters).replace(_ACUTE, "")
    return unicodedata.normalize("NFC", bare).upper()
