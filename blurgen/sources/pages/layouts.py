"""The kinds of pages, and how one is drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from blurgen.sources.pages import office, publications
from blurgen.sources.pages.fonts import Family
from blurgen.sources.pages.page import Page
from blurgen.sources.pages.sheet import Sheet
from blurgen.sources.pages.style import draw_style
from blurgen.sources.pages.words import Prose


@dataclass(frozen=True)
class Layout:
    """A kind of page: what fills it, how tall its letter x may be (at a width of 1024 px), how often it comes."""

    fill: Callable[[Sheet], None]
    x_height: tuple[float, float]
    weight: float
    monospaced: bool = False


LAYOUTS = {
    "article": Layout(publications.article, (7.0, 12.0), 4),
    "two_columns": Layout(publications.two_columns, (6.0, 9.0), 4),
    "newspaper": Layout(publications.newspaper, (6.0, 8.0), 2),
    "book": Layout(publications.book, (9.0, 15.0), 3),
    "contents": Layout(publications.contents, (8.0, 14.0), 1),
    "slides": Layout(publications.slides, (10.0, 17.0), 2),
    "title_page": Layout(publications.title_page, (10.5, 17.0), 1.5),
    "letter": Layout(office.letter, (8.0, 14.0), 2.5),
    "form": Layout(office.form, (7.0, 12.0), 2),
    "invoice": Layout(office.invoice, (8.5, 12.0), 2),
    "receipt": Layout(office.receipt, (11.0, 20.0), 1.5, monospaced=True),
    "listing": Layout(office.listing, (7.0, 12.0), 1.5, monospaced=True),
}


def draw_page(
    rng: np.random.Generator,
    families: tuple[Family, ...],
    width: int,
    height: int,
    plain: bool = False,
    layout: str | None = None,
    letters: float = 1.0,
) -> Page:
    """Return a page of a random style, ready to be finished: `Page.finish` gives its pixels.

    Parameters
    ----------
    rng : np.random.Generator
        Where all choices come from.
    families : tuple of Family
        The fonts to choose from.
    width, height : int
        Size of the page in pixels; type and margins are in proportion to it.
    plain : bool
        Black and greys on white instead of drawn colours.
    layout : str, optional
        A name of `LAYOUTS`, instead of a random one.
    letters : float
        Size of the type, relative to what it would be.
    """
    prose = Prose(rng)
    drawn = prose.pick_weighted({name: kind.weight for name, kind in LAYOUTS.items()})
    kind = LAYOUTS[layout or drawn]
    unit_px = min(width, height) / 1024
    x_height_px = tuple(unit_px * letters * x for x in kind.x_height)
    style = draw_style(prose, families, x_height_px, kind.monospaced, plain)
    sheet = Sheet(Page(width, height, style.paper), style, prose, unit_px)
    kind.fill(sheet)
    return sheet.page
