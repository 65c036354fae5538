"""Formulas set by matplotlib's mathtext, as coverage."""

from functools import lru_cache

import numpy as np

from blurgen.sources.pages.dice import Dice

# @ stands for a letter of an unknown, # for one of an index, ~ for a Greek one, each the same throughout a formula.
_TEMPLATES = (
    r"\sum_{#=1}^{n} @_#^2 \leq \left( \sum_{#=1}^{n} |@_#| \right)^2",
    r"\int_{0}^{\infty} e^{-~ @^2} \, d@ = \dfrac{1}{2} \sqrt{\dfrac{\pi}{~}}",
    r"@(t) = @_0 + v t + \dfrac{1}{2} ~ t^2",
    r"\dfrac{\partial @}{\partial t} = ~ \nabla^2 @ + f(x, y)",
    r"p(@ \mid ~) = \dfrac{p(~ \mid @) \, p(@)}{p(~)}",
    r"\hat{~} = \dfrac{1}{n} \sum_{#=1}^{n} (@_# - \bar{@})^2",
    r"E = \sqrt{m^2 c^4 + p^2 c^2}",
    r"@ = \dfrac{-b \pm \sqrt{b^2 - 4ac}}{2a}",
    r"\| @ \|_2 = \sqrt{@_1^2 + @_2^2 + \cdots + @_n^2}",
    r"f(@) = \dfrac{1}{\sqrt{2 \pi} \, ~} \; \exp\left( -\dfrac{(@ - \mu)^2}{2 ~^2} \right)",
    r"\lim_{n \rightarrow \infty} \left( 1 + \dfrac{@}{n} \right)^n = e^{@}",
    r"y = (k \ast @) + ~, \qquad \sum_{#} k_# = 1",
    r"\nabla \times \mathbf{@} = -\dfrac{\partial \mathbf{B}}{\partial t}",
    r"@_{#+1} = @_# - ~ \, \dfrac{f(@_#)}{f'(@_#)}",
    r"\cos(~ + \beta) = \cos ~ \cos \beta - \sin ~ \sin \beta",
    r"\binom{n}{#} = \dfrac{n!}{#! \, (n - #)!}",
    r"\zeta(@) = \prod_{p} \dfrac{1}{1 - p^{-@}}",
    r"\Delta @ = @_{max} - @_{min} \approx 0.35 \, ~",
    r"\oint_{C} \mathbf{@} \cdot d\mathbf{r} = \mu_0 I",
    r"P(@ > t) \leq \dfrac{\mathrm{E}[@]}{t}",
    r"\dfrac{d@}{dt} = ~ @ \left( 1 - \dfrac{@}{K} \right)",
    r"\mathcal{L}(~) = -\log p(@ \mid ~) + \lambda \|~\|^2",
    r"R_{#} = \dfrac{S_{#} + 1}{2 N_{#}} \times 100",
    r"\tan ~ = \dfrac{@}{2 h}, \quad h \neq 0",
    r"\Gamma(@ + 1) = @ \, \Gamma(@)",
    r"@ \in A \cap B \;\Rightarrow\; @ \in A",
)
_UNKNOWNS, _INDICES, _GREEK = "xyzuwqXYF", "ijkl", (r"\alpha", r"\theta", r"\sigma", r"\gamma", r"\omega", r"\varphi")


def draw_formula(dice: Dice) -> str:
    """Return a formula in mathtext, between dollars."""
    unknown, index, greek = dice.pick(_UNKNOWNS), dice.pick(_INDICES), dice.pick(_GREEK)
    template = dice.pick(_TEMPLATES)
    return f"${template.replace('@', unknown).replace('#', index).replace('~', greek)}$"


@lru_cache(maxsize=512)
def render_formula(formula: str, fontset: str, size_px: float) -> tuple[np.ndarray, float]:
    """Return the coverage (h, w) uint8 of a formula, read-only, and how far its box reaches below the baseline."""
    import matplotlib

    with matplotlib.rc_context(_defaults()):
        parsed = _parser().parse(formula, dpi=72, prop=_properties(fontset, size_px))
    coverage = np.asarray(parsed.image)
    coverage.flags.writeable = False
    return coverage, parsed.depth


@lru_cache(maxsize=1)
def _defaults() -> dict:
    """Return how matplotlib sets type where nobody configured it: hinting, say, would change the pixels."""
    import matplotlib

    kept = ("font.", "mathtext.", "text.")
    return {name: value for name, value in matplotlib.rcParamsDefault.items() if name.startswith(kept)}


@lru_cache(maxsize=1)
def _parser():
    from matplotlib.mathtext import MathTextParser

    return MathTextParser("agg")


@lru_cache(maxsize=256)
def _properties(fontset: str, size_px: float):
    from matplotlib.font_manager import FontProperties

    return FontProperties(size=size_px, math_fontfamily=fontset)  # at 72 dots per inch a point is a pixel
