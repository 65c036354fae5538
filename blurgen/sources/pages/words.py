"""Sentences, names, numbers and dates that read like language, drawn from a vocabulary and a small grammar."""

import tomllib
from functools import cache
from importlib.resources import files

import numpy as np

from blurgen.sources.pages.dice import Dice

_MONTHS = ("January", "February", "March", "April", "May", "June", "July")
_MONTHS += ("August", "September", "October", "November", "December")
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_VOWELS = "aeiou"


def _plural(noun: str) -> str:
    """Return the regular plural, which is also the third person of a verb."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return noun[:-1] + "ies"
    return noun + "s"


def _past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb[:-1] + "ied"
    return verb + "ed"


def _on_first_word(inflect, phrase: str) -> str:
    head, space, tail = phrase.partition(" ")
    return inflect(head) + space + tail


def _noun_forms(entry: str) -> tuple[str, str]:
    singular, _, plural = entry.partition("/")
    return singular, plural or _plural(singular)


def _verb_forms(entry: str) -> tuple[str, str, str, str]:
    """Return plain form, third person, past and participle."""
    plain, *irregular = entry.split("/")
    past = irregular[0] if irregular else _on_first_word(_past, plain)
    return plain, _on_first_word(_plural, plain), past, irregular[1] if len(irregular) > 1 else past


@cache
def vocabulary() -> dict[str, list]:
    """Return the words by part of speech: nouns as (singular, plural), verbs as four forms, the rest as strings."""
    table = tomllib.loads(files("blurgen.sources.pages").joinpath("english.toml").read_text("utf-8"))
    words = {part: [entry.replace("-", " ") for entry in entries.split()] for part, entries in table.items()}
    for part in ("person", "group", "thing", "abstract"):
        words[part] = [_noun_forms(entry) for entry in words[part]]
    for part in ("act", "happen", "say"):
        words[part] = [_verb_forms(entry) for entry in words[part]]
    return words


def with_article(phrase: str) -> str:
    """Return the phrase after "a" or "an", by sound as far as the vocabulary needs it."""
    by_sound = phrase.startswith(("hour", "hono", "heir")) or (
        phrase[0].lower() in _VOWELS and not phrase.startswith(("uni", "use", "usu", "eu", "one", "once"))
    )
    return f"an {phrase}" if by_sound else f"a {phrase}"


def capitalised(phrase: str) -> str:
    """Return the phrase with its first letter in upper case."""
    return phrase[:1].upper() + phrase[1:]


class Prose(Dice):
    """An endless supply of text, drawn from one generator.

    Every method returns a new string and advances `rng`; equal generators speak alike.
    """

    def __init__(self, rng: np.random.Generator):
        super().__init__(rng)
        self.words = vocabulary()

    # Names and figures

    def name(self) -> str:
        """Return a person's name, in full or with initials."""
        first, last = self.pick(self.words["forename"]), self.pick(self.words["surname"])
        shape = self.number(0, 3)
        if shape == 0:
            return f"{first[0]}. {last}"
        if shape == 1:
            return f"{first} {self.pick(self.words['forename'])[0]}. {last}"
        return f"{first} {last}"

    def place(self) -> str:
        """Return the name of a town."""
        return self.pick(self.words["place"])

    def year(self) -> int:
        """Return a year of the last two centuries, more often a late one."""
        return 2025 - int(200 * self.rng.random() ** 2)

    def date(self) -> str:
        """Return a date in one of several notations."""
        day, month, year = self.number(1, 28), self.number(1, 12), self.year()
        named = _MONTHS[month - 1]
        return self.pick(
            (
                f"{day} {named} {year}",
                f"{named} {day}, {year}",
                f"{year}-{month:02}-{day:02}",
                f"{day:02}/{month:02}/{year}",
            )
        )

    def weekday(self) -> str:
        """Return a day of the week."""
        return self.pick(_WEEKDAYS)

    def amount(self) -> str:
        """Return a number as prose has it: a count, a decimal, a percentage, a price."""
        shape = self.number(0, 5)
        if shape == 0:
            return f"{self.number(2, 98)}.{self.number(0, 9)}%"
        if shape == 1:
            return f"${self.number(1, 900)}.{self.number(0, 99):02}"
        if shape == 2:
            return f"{self.number(1, 90)},{self.number(0, 999):03}"
        if shape == 3:
            return f"{self.uniform(0, 10):.{self.number(1, 3)}f}"
        return str(self.number(2, 480))

    def quantity(self) -> str:
        """Return a number with its unit."""
        unit = self.pick(
            ("km", "cm", "mm", "kg", "g", "s", "ms", "Hz", "V", "litres", "hours", "miles", "years", "tons")
        )
        return f"{self.amount().strip('$%')} {unit}"

    # Phrases

    def _noun_phrase(self, part: str, plural: bool) -> str:
        noun = self.pick(self.words[part])[plural]
        if self.chance(0.45):
            noun = f"{self.pick(self.words['adjective'])} {noun}"
        shape = self.rng.random()
        if shape < 0.5:
            return f"the {noun}"
        if not plural:
            return with_article(noun) if shape < 0.8 else f"{self.pick(('this', 'every', 'her', 'his', 'our'))} {noun}"
        if shape < 0.7:
            return (
                f"{self.pick(('two', 'three', 'seven', 'some', 'most', 'few', 'many', str(self.number(4, 60))))} {noun}"
            )
        return noun if shape < 0.85 else f"{self.pick(('these', 'their', 'all', 'our', 'his'))} {noun}"

    def _someone(self) -> tuple[str, bool]:
        shape = self.rng.random()
        if shape < 0.12:
            return self.name(), False
        if shape < 0.24:
            return self.pick((("he", False), ("she", False), ("they", True), ("we", True), ("you", True)))
        plural = self.chance(0.4)
        return self._noun_phrase("group" if self.chance(0.25) else "person", plural), plural

    def _something(self) -> tuple[str, bool]:
        if self.chance(0.12):
            return f"the {self.pick(self.words['mass'])}", False
        plural = self.chance(0.35)
        phrase = self._noun_phrase("abstract" if self.chance(0.4) else "thing", plural)
        return phrase + (self._attachment() if self.chance(0.3) else ""), plural

    def _attachment(self) -> str:
        preposition = self.pick(("of", "of", "of", "in", "for", "with", "from", "between", "without", "near", "behind"))
        if preposition == "between":
            return f" between {self._noun_phrase('thing', False)} and {self._noun_phrase('thing', False)}"
        return f" {preposition} {self._noun_phrase(self.pick(('thing', 'abstract', 'group')), self.chance(0.3))}"

    def _circumstance(self) -> str:
        shape = self.number(0, 7)
        if shape == 0:
            return f"in {self.year()}"
        if shape == 1:
            return f"on {self.weekday()}"
        if shape == 2:
            return f"in {self.place()}"
        if shape == 3:
            return f"after {self.number(2, 30)} {self.pick(('days', 'weeks', 'months', 'years', 'minutes'))}"
        if shape == 4:
            return f"{self.pick(('during', 'before', 'after', 'despite'))} {self._noun_phrase('abstract', False)}"
        if shape == 5:
            return f"by {self.amount().strip('$')}"
        return f"{self.pick(('near', 'behind', 'above', 'across', 'inside'))} {self._noun_phrase('thing', False)}"

    def _predicate(self, verb: tuple, plural: bool, past: bool) -> str:
        word = verb[2] if past else verb[0 if plural else 1]
        return f"{self.pick(self.words['adverb'])} {word}" if self.chance(0.15) else word

    def _clause(self, past: bool) -> str:
        shape = self.rng.random()
        if shape < 0.42:
            subject, plural = self._someone()
            clause = f"{subject} {self._predicate(self.pick(self.words['act']), plural, past)} {self._something()[0]}"
        elif shape < 0.62:
            subject, plural = self._something()
            clause = f"{subject} {self._predicate(self.pick(self.words['happen']), plural, past)}"
        elif shape < 0.8:
            subject, plural = self._something()
            clause = f"{subject} {self._be(plural, past)} {self.pick(self.words['act'])[3]}"
            clause += f" by {self._noun_phrase('person', self.chance(0.4))}" if self.chance(0.4) else ""
        else:
            subject, plural = self._something()
            clause = f"{subject} {self._be(plural, past)} {self.pick(self.words['adjective'])}"
        return f"{clause} {self._circumstance()}" if self.chance(0.35) else clause

    def _be(self, plural: bool, past: bool) -> str:
        return (("was", "were") if past else ("is", "are"))[plural]

    # Running text

    def sentence(self) -> str:
        """Return one sentence with its full stop."""
        past, shape = self.chance(0.7), self.rng.random()
        clause = self._clause(past)
        if shape < 0.12:
            subject, plural = self._someone()
            verb = self._predicate(self.pick(self.words["say"]), plural, past)
            clause = f"{subject} {verb} that {clause}"
        elif shape < 0.22:
            clause = (
                f"{self.pick(('when', 'although', 'because', 'while', 'if', 'since'))} {clause}, {self._clause(past)}"
            )
        elif shape < 0.4:
            link = self.pick((", and", ", but", ", so", " because", " while", ";", ", whereas"))
            clause = f"{clause}{link} {self._clause(past)}"
        elif shape < 0.52:
            opening = ("however", "for example", "in fact", "moreover", "on the other hand", "at first", "as a result")
            clause = f"{self.pick(opening) if self.chance(0.5) else self._circumstance()}, {clause}"
        elif shape < 0.56:
            return f"“{capitalised(clause)},” {self.pick(self.words['surname'])} {self.pick(self.words['say'])[2]}."
        elif shape < 0.62:
            see = f"see {self.pick(('Figure', 'Table', 'Section'))} {self.number(1, 9)}"
            clause = f"{clause} ({self.pick((see, 'about ' + self.quantity(), str(self.year())))})"
        return capitalised(clause) + self.pick((".",) * 19 + ("!",))

    def paragraph(self, sentences: int) -> str:
        """Return that many sentences, set one after the other."""
        return " ".join(self.sentence() for _ in range(sentences))

    def noun(self) -> str:
        """Return a short noun phrase without an article, as labels have it."""
        noun = self.pick(self.words[self.pick(("thing", "thing", "abstract"))])[self.chance(0.3)]
        return f"{self.pick(self.words['adjective'])} {noun}" if self.chance(0.4) else noun

    def label(self) -> str:
        """Return one capitalised word for an axis, a column or a box."""
        return capitalised(self.pick(self.words[self.pick(("thing", "abstract"))])[0].split()[-1])

    def title(self) -> str:
        """Return the title of a document or of a section."""
        head, other = self.noun(), self.noun()
        shapes = (
            f"on the {head}",
            f"the {head} and the {other}",
            f"{head} in {self.place()}",
            f"a history of the {head}",
            f"{head}: notes for the {self.pick(self.words['person'])[0]}",
            f"{head} and {other}",
            f"towards the {head}",
            f"report on the {head} of {self.year()}",
        )
        return capitalised(self.pick(shapes))

    def bullet(self) -> str:
        """Return a short item of a list."""
        shape = self.number(0, 2)
        if shape == 0:
            return f"{capitalised(self.pick(self.words['act'])[0])} {self._something()[0]}"
        return capitalised(self._clause(False)) if shape == 1 else f"{capitalised(self.noun())}: {self.quantity()}"

    def identifier(self) -> str:
        """Return a name for a variable or a function of a program."""
        return "_".join(self.pick(self.words["code"]) for _ in range(self.number(1, 2)))
