"""Setting type: lines, paragraphs and columns of running text on a page."""

from dataclasses import dataclass, replace

import numpy as np

from blurgen.sources.pages.fonts import Font
from blurgen.sources.pages.page import Colour, Page
from blurgen.sources.pages.style import Style
from blurgen.sources.pages.words import Prose

_ASCENT_EM = 0.8  # of the em, how much lies above the baseline: the rest is for descenders


@dataclass(frozen=True)
class Column:
    """An area for text: upper left corner (x, y), width and lower end, in pixels."""

    x: float
    y: float
    width: float
    bottom: float

    @property
    def room(self) -> float:
        """Return the height that is left."""
        return self.bottom - self.y

    def below(self, used: float) -> "Column":
        """Return what is left after using some height."""
        return replace(self, y=self.y + used)

    def inset(self, margin: float) -> "Column":
        """Return the column less a margin on every side."""
        return Column(self.x + margin, self.y + margin, self.width - 2 * margin, self.bottom - margin)

    def split(self, columns: int, gutter: float) -> list["Column"]:
        """Return that many equal columns side by side."""
        width = (self.width - gutter * (columns - 1)) / columns
        return [replace(self, x=self.x + i * (width + gutter), width=width) for i in range(columns)]


@dataclass(frozen=True)
class Word:
    """One word of running text in its font and ink."""

    text: str
    font: Font
    ink: Colour


class Sheet:
    """A page with its style and a supply of text: what blocks and layouts work on.

    Attributes
    ----------
    unit_px : float
        One pixel of a page 1024 pixels wide: the scale of margins, rules and figures.
    figures_left : int
        How many more figures may be drawn, so that ink stays within bounds.
    """

    def __init__(self, page: Page, style: Style, prose: Prose, unit_px: float):
        self.page, self.style, self.prose, self.unit_px = page, style, prose, unit_px
        self.counts: dict[str, int] = {}
        self.rule_px = max(1, round(unit_px))
        self.figures_left = 2

    def margins(self, scale: float = 1.0) -> Column:
        """Return the area inside moderate margins, a scale of 1 being about a twentieth of the page."""
        side, top = (scale * self.prose.uniform(40, 70) * self.unit_px for _ in range(2))
        return Column(side, top, self.page.width - 2 * side, self.page.height - top)

    def next_number(self, of: str) -> int:
        """Return 1, 2, ... for figures, tables, sections and equations as they come."""
        self.counts[of] = self.counts.get(of, self.prose.number(0, 4)) + 1
        return self.counts[of]

    def line(self, x: float, y: float, text: str, font: Font, ink: Colour | None = None, anchor: float = 0.0) -> None:
        """Set one line whose slot of one em starts at y; x is its left end, centre (anchor 0.5) or right end (1)."""
        x -= anchor * font.width_px(text) if anchor else 0
        self.page.text(font, x, self.baseline(y, font), text, self.style.ink if ink is None else ink)

    def baseline(self, y: float, font: Font) -> float:
        """Return where a line whose slot starts at y stands."""
        return y + _ASCENT_EM * font.size_px

    def label(self, column: Column, text: str, font: Font, ink: Colour | None = None, anchor: float = 0.0) -> None:
        """Set one line at the top of a column, at its left (anchor 0), centre (0.5) or right (1), cut to its width."""
        self.line(column.x + anchor * column.width, column.y, self.fit(text, font, column.width), font, ink, anchor)

    def fit(self, text: str, font: Font, width: float) -> str:
        """Return as many of the first words as fit into a width; at least the first, cut where it must be."""
        if font.width_px(text) <= width:
            return text
        words = text.split(" ")
        while len(words) > 1 and font.width_px(" ".join(words)) > width:
            words.pop()
        text = " ".join(words).rstrip(",;:")
        while len(text) > 1 and font.width_px(text) > width:
            text = text[:-1]
        return text

    def short_label(self, font: Font, width: float) -> str:
        """Return a random one-word label that fits into a width, cut only where no word seems to fit."""
        for _ in range(12):
            text = self.prose.label()
            if font.width_px(text) <= width:
                return text
        return self.fit(text, font, width)

    def wrap(self, text: str, font: Font, width: float) -> list[str]:
        """Return the text in lines that fit into a width."""
        lines, line, used, space = [], [], 0.0, font.width_px(" ")
        for word in text.split(" "):
            advance = font.width_px(word)
            if line and used + advance > width:
                lines.append(" ".join(line))
                line, used = [], 0.0
            line.append(word)
            used += advance + space
        return [*lines, " ".join(line)]

    def lines(self, column: Column, text: str, font: Font, ink: Colour | None = None, anchor: float = 0.0) -> float:
        """Set a text ragged in as many lines as it takes; return their height, or 0 where there is no room."""
        wrapped = self.wrap(text, font, column.width)
        step = font.size_px * min(self.style.leading, 1.3)
        if step * len(wrapped) > column.room:
            return 0.0
        for i, line in enumerate(wrapped):
            self.line(column.x + anchor * column.width, column.y + i * step, line, font, ink, anchor)
        return step * len(wrapped)

    # Running text

    def styled(self, text: str, scale: float = 1.0) -> list[Word]:
        """Return the words of a text, some of them emphasised."""
        style, prose = self.style, self.prose
        plain, words, emphasis_left = (style.font("regular", scale), style.ink), [], 0
        now = plain
        for text_word in text.split(" "):
            if emphasis_left == 0:
                now = plain
                if prose.chance(0.015):
                    cut = prose.pick(("italic", "italic", "bold"))
                    now, emphasis_left = (
                        (style.font(cut, scale), style.accent if prose.chance(0.3) else style.ink),
                        prose.number(1, 4),
                    )
            words.append(Word(text_word, *now))
            emphasis_left = max(0, emphasis_left - 1)
        return words

    def paragraph(
        self, column: Column, words: list[Word], indent: float = 0.0, leading: float = 1.0
    ) -> tuple[float, list[Word]]:
        """Set words in lines down to the end of a column.

        Parameters
        ----------
        column : Column
            Where; the whole width is used.
        words : list of Word
            What is to be set.
        indent : float
            Indent of the first line, in pixels.
        leading : float
            Distance of the lines, relative to that of the style.

        Returns
        -------
        used : float
            The height of the lines that were set.
        rest : list of Word
            What did not fit.
        """
        step, used = self.style.line_px * leading, 0.0
        while words and used + step <= column.room:
            count, width, space = self._line_break(words, column.width - indent)
            last = count == len(words)
            stretch = 0.0
            if self.style.justified and not last and count > 1:
                stretch = min((column.width - indent - width) / (count - 1), 2.5 * space)
            self._words(words[:count], column.x + indent, column.y + used, space + stretch)
            words, used, indent = words[count:], used + step, 0.0
        return used, words

    def _line_break(self, words: list[Word], width: float) -> tuple[int, float, float]:
        """Return how many words the first line takes, their width with natural spaces, and such a space."""
        space = words[0].font.width_px(" ")
        used = -space
        for count, word in enumerate(words):
            advance = word.font.width_px(word.text) + space
            if count and used + advance > width:
                return count, used, space
            used += advance
        return len(words), used, space

    def count_lines(self, words: list[Word], width: float, indent: float = 0.0) -> int:
        """Return how many lines the words take in a column of some width."""
        lines = 0
        while words:
            words = words[self._line_break(words, width - indent)[0] :]
            lines, indent = lines + 1, 0.0
        return lines

    def _words(self, words: list[Word], x: float, y: float, space: float) -> None:
        baseline = self.baseline(y, words[0].font)
        for word in words:
            self.page.text(word.font, x, baseline, word.text, word.ink)
            x += word.font.width_px(word.text) + space

    # Marks

    def rule(self, x: float, y: float, width: float, ink: Colour | None = None, weight: float = 1.0) -> None:
        """Draw a horizontal rule, `weight` units thick."""
        thickness = max(1, round(weight * self.unit_px))
        self.page.fill(x, y, x + width, y + thickness, self.style.ink if ink is None else ink)

    def stroke(self, points, ink: Colour, weight: float = 1.0, closed: bool = False) -> None:
        """Draw a polyline, `weight` units thick."""
        self.page.line(np.asarray(points, float), ink, max(1, round(weight * self.unit_px)), closed)
