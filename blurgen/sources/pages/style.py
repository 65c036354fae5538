"""How one page looks: its fonts, sizes, spacings, paper and inks."""

from colorsys import hsv_to_rgb, rgb_to_hsv
from dataclasses import dataclass

from blurgen.sources.pages.dice import Dice
from blurgen.sources.pages.fonts import Face, Family, Font
from blurgen.sources.pages.page import Colour, mix

_PAPERS = {"white": 0.52, "pale": 0.26, "coloured": 0.09, "grey": 0.05, "inverse": 0.08}
_FONTSETS = {
    "Computer Modern": "cm",
    "Computer Modern Sans": "cm",
    "Computer Modern Typewriter": "cm",
    "DejaVu Sans": "dejavusans",
    "DejaVu Sans Mono": "stixsans",
    "DejaVu Serif": "dejavuserif",
}
_INKS = {"black": 0.62, "grey": 0.15, "coloured": 0.23}


@dataclass(frozen=True)
class Style:
    """The choices that hold for a whole page.

    Attributes
    ----------
    body, display, mono : Family
        Fonts of the running text, of headings, and of code.
    size_px : float
        Em of the running text; its lines are `leading` em apart.
    stretch : float
        Horizontal scale of the running text.
    justified, indented : bool
        Both margins straight; paragraphs marked by an indent instead of a gap.
    paper, ink, accent, muted, tint : Colour
        RGB, 0 to 255: `accent` for headings and figures, `muted` for rules and notes, `tint` for shaded areas.
    series : tuple of Colour
        Inks that tell the parts of a chart apart.
    heading_cut, heading_scale : str, float
        How headings of sections are set; `numbered` says whether they count.
    table_scale : float
        Size of the text in tables and charts, relative to running text.
    """

    body: Family
    display: Family
    mono: Family
    size_px: float
    leading: float
    stretch: float
    justified: bool
    indented: bool
    paper: Colour
    ink: Colour
    accent: Colour
    muted: Colour
    tint: Colour
    series: tuple[Colour, ...]
    heading_cut: str
    heading_scale: float
    numbered: bool
    table_scale: float

    @property
    def fontset(self) -> str:
        """The fonts of formulas that go with the running text."""
        return _FONTSETS.get(self.body.name, "stix")

    @property
    def line_px(self) -> float:
        """Distance of the baselines of running text."""
        return self.size_px * self.leading

    def font(self, cut: str = "regular", scale: float = 1.0, family: Family | None = None) -> Font:
        """Return a cut ("regular", "bold", "italic", "bold_italic") of a family, by default the body's, at a scale."""
        family = family or self.body
        size_px = max(5.0, round(self.size_px * scale * 4) / 4)
        return Font.open(getattr(family, cut), size_px, self.stretch if family is self.body else 1.0, family.script)


def draw_style(
    dice: Dice, families: tuple[Family, ...], x_height_px: tuple[float, float], monospaced: bool, plain: bool = False
) -> Style:
    """Return a style whose running text has an x-height within a range of pixels.

    Parameters
    ----------
    dice : Dice
        Where the choices come from.
    families : tuple of Family
        The fonts to choose from.
    x_height_px : (float, float)
        Least and largest height of the letter x in running text.
    monospaced : bool
        Whether the running text has a fixed pitch, as listings and receipts do.
    plain : bool
        Black and greys on white instead of drawn colours.
    """
    fixed = tuple(family for family in families if family.fixed_pitch) or families
    free = tuple(family for family in families if not family.fixed_pitch) or families
    body = dice.pick(fixed if monospaced or dice.chance(0.06) else free)
    low, high = x_height_px
    x_height = low * (high / low) ** dice.uniform(0, 1)
    return Style(
        body=body,
        display=body if dice.chance(0.45) else dice.pick(free),
        mono=dice.pick(fixed),
        size_px=round(x_height / Face.open(body.regular, body.script).x_height * 4) / 4,
        leading=dice.uniform(1.18, 1.55),
        stretch=dice.pick((0.88, 0.94, 1.08)) if dice.chance(0.2) else 1.0,
        justified=not monospaced and dice.chance(0.6),
        indented=dice.chance(0.5),
        heading_cut=dice.pick(("bold", "bold", "regular", "italic", "bold_italic")),
        heading_scale=dice.uniform(1.05, 1.5),
        numbered=dice.chance(0.5),
        table_scale=dice.uniform(0.82, 1.0),
        **_draw_colours(dice, plain),
    )


def _draw_colours(dice: Dice, plain: bool) -> dict:
    if plain:
        paper, ink, accent, inverse = (255, 255, 255), (0, 0, 0), (0, 0, 0), False
    else:
        paper, ink, accent, inverse = _draw_inks(dice)
    return {
        "paper": paper,
        "ink": ink,
        "accent": accent,
        "muted": mix(ink, paper, dice.uniform(0.3, 0.5)),
        "tint": mix(paper, accent, dice.uniform(0.07, 0.14)),
        "series": _draw_series(dice, ink, accent, paper, inverse),
    }


def _draw_inks(dice: Dice) -> tuple[Colour, Colour, Colour, bool]:
    """Return paper, ink, accent, and whether the paper is the darker one."""
    paper, inverse = _draw_paper(dice)
    ink = _legible(_draw_ink(dice, inverse), paper, 5.5, inverse)
    accent = ink
    if dice.chance(0.65):
        accent = _legible(
            _hsv(dice.uniform(0, 1), dice.uniform(0.55, 1), dice.uniform(0.45, 0.95)), paper, 3.0, inverse
        )
    return paper, ink, accent, inverse


def _draw_paper(dice: Dice) -> tuple[Colour, bool]:
    kind = dice.pick_weighted(_PAPERS)
    hue = dice.uniform(0.08, 0.17) if dice.chance(0.6) else dice.uniform(0, 1)
    if kind == "white":
        return ((255, 255, 255) if dice.chance(0.6) else _hsv(hue, 0.01, dice.uniform(0.96, 1))), False
    if kind == "pale":
        return _hsv(hue, dice.uniform(0.03, 0.12), dice.uniform(0.93, 1)), False
    if kind == "coloured":
        return _hsv(dice.uniform(0, 1), dice.uniform(0.12, 0.38), dice.uniform(0.84, 0.98)), False
    if kind == "grey":
        return _hsv(hue, dice.uniform(0, 0.05), dice.uniform(0.76, 0.9)), False
    return _hsv(dice.uniform(0, 1), dice.uniform(0, 0.75), dice.uniform(0.05, 0.3)), True


def _draw_ink(dice: Dice, inverse: bool) -> Colour:
    if inverse:
        return _hsv(dice.uniform(0, 1), dice.uniform(0, 0.25), dice.uniform(0.88, 1))
    kind = dice.pick_weighted(_INKS)
    if kind == "black":
        return _hsv(dice.uniform(0, 1), dice.uniform(0, 0.5), dice.uniform(0, 0.14))
    if kind == "grey":
        return _hsv(0, 0, dice.uniform(0.15, 0.36))
    return _hsv(dice.uniform(0, 1), dice.uniform(0.6, 1), dice.uniform(0.25, 0.6))


def _draw_series(dice: Dice, ink: Colour, accent: Colour, paper: Colour, inverse: bool) -> tuple[Colour, ...]:
    if accent == ink:
        return ink, mix(ink, paper, 0.5), mix(ink, paper, 0.28), mix(ink, paper, 0.66)
    hue, saturation, value = rgb_to_hsv(*(c / 255 for c in accent))
    turn = dice.pick((0.5, 0.33, 0.09))
    others = (_hsv((hue + turn * i) % 1, saturation * dice.uniform(0.6, 1), value) for i in (1, 2, 3))
    return accent, *(_legible(colour, paper, 2.2, inverse) for colour in others)


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    return tuple(round(255 * c) for c in hsv_to_rgb(hue, saturation, value))


def _legible(colour: Colour, paper: Colour, contrast: float, inverse: bool) -> Colour:
    """Return the colour, darkened or lightened until it stands out from the paper as far as asked."""
    end = (255, 255, 255) if inverse else (0, 0, 0)
    for _ in range(20):
        if _contrast(colour, paper) >= contrast:
            break
        colour = mix(colour, end, 0.15)
    return colour


def _contrast(a: Colour, b: Colour) -> float:
    """Return the contrast ratio of the Web Content Accessibility Guidelines 2, 1 to 21 (with a gamma of 2.2)."""
    dark, light = sorted(
        sum(w * (c / 255) ** 2.2 for w, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True)) for rgb in (a, b)
    )
    return (light + 0.05) / (dark + 0.05)
