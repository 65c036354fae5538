"""The blocks of a page: each is set at the top of a column and says what height it took, 0 where it does not fit."""

from collections.abc import Callable

from blurgen.sources.pages.figures import FIGURES
from blurgen.sources.pages.formulas import draw_formula, render_formula
from blurgen.sources.pages.sheet import Column, Sheet, Word
from blurgen.sources.pages.tables import draw_table
from blurgen.sources.pages.words import capitalised

Block = Callable[[Sheet, Column], float]
_LEAST_LINES = 4  # of text that must have room below a heading


def heading(sheet: Sheet, column: Column) -> float:
    """Set the heading of a section, numbered or not."""
    style, prose = sheet.style, sheet.prose
    scale, cut = style.heading_scale, style.heading_cut
    text = prose.title() if prose.chance(0.6) else capitalised(prose.noun())
    if style.numbered:
        text = f"{sheet.next_number('section')}  {text}"
    gap = 0.5 * style.line_px
    if column.room < gap + style.line_px * (2 * scale + _LEAST_LINES):
        return 0.0
    used = sheet.lines(column.below(gap), text, style.font(cut, scale, style.display), style.accent)
    return used and gap + used + 0.15 * style.line_px


def bullets(sheet: Sheet, column: Column) -> float:
    """Set a list with bullets or numbers."""
    style, prose = sheet.style, sheet.prose
    indent = 1.6 * style.size_px
    numbered, mark, y = prose.chance(0.4), prose.number(0, 2), column.y
    for i in range(prose.number(3, 6)):
        words = sheet.styled(prose.bullet() + prose.pick((".", ";", "")))
        item = Column(column.x + indent, y, column.width - indent, column.bottom)
        if item.room < 3 * style.line_px:
            break
        middle = y + 0.8 * style.size_px - style.font().x_height_px / 2
        if numbered:
            sheet.line(item.x - 0.4 * style.size_px, y, f"{i + 1}.", style.font(), anchor=1)
        elif mark == 0:
            sheet.rule(column.x + 0.5 * style.size_px, middle, 0.6 * style.size_px)
        else:
            sheet.page.disc(column.x + 0.8 * style.size_px, middle, 0.14 * style.size_px, style.accent)
        y += sheet.paragraph(item, words)[0]
    return y - column.y + 0.3 * style.line_px


def quotation(sheet: Sheet, column: Column) -> float:
    """Set an indented quotation in italics with a bar on its left."""
    style, prose = sheet.style, sheet.prose
    indent, gap = 1.5 * style.size_px, 0.4 * style.line_px
    inner = Column(column.x + indent, column.y + gap, column.width - 2 * indent, column.bottom - gap)
    used = sheet.lines(inner, prose.paragraph(prose.number(1, 2)), style.font("italic"))
    if used == 0:
        return 0.0
    sheet.page.fill(column.x, inner.y, column.x + 3 * sheet.unit_px, inner.y + used, style.accent)
    return used + 2 * gap


def formula(sheet: Sheet, column: Column) -> float:
    """Set a displayed formula, numbered or not."""
    style, prose = sheet.style, sheet.prose
    size_px = max(7, round(style.size_px * 1.1 * (1.0 if prose.chance(0.7) else 1.2)))
    coverage, _ = render_formula(draw_formula(prose), style.fontset, size_px)
    height, width = coverage.shape
    gap = 0.4 * style.line_px
    if width > column.width * 0.86 or height + 2 * gap > column.room:
        return 0.0
    sheet.page.stamp(coverage, column.x + (column.width - width) / 2, column.y + gap, style.ink)
    if width < column.width * 0.75 and prose.chance(0.7):
        number = f"({sheet.next_number('equation')})"
        sheet.line(
            column.x + column.width, column.y + gap + (height - style.size_px) / 2, number, style.font(), anchor=1
        )
    return height + 2 * gap


def table(sheet: Sheet, column: Column) -> float:
    """Set a table with its caption above."""
    style, prose = sheet.style, sheet.prose
    if column.room < 9 * style.line_px:
        return 0.0
    caption = f"Table {sheet.next_number('table')}: {capitalised(prose.noun())} by {prose.noun()}"
    used = 0.3 * style.line_px
    used += sheet.lines(column.below(used), caption, style.font("italic", 0.88)) + 0.3 * style.line_px
    return used + draw_table(sheet, column.below(used), prose.number(3, 9)) + 0.4 * style.line_px


def figure(sheet: Sheet, column: Column) -> float:
    """Draw a chart, a diagram or a picture with its caption below; at most two a page, and not in little room."""
    style, prose = sheet.style, sheet.prose
    width = column.width if column.width < 560 * sheet.unit_px else column.width * prose.uniform(0.5, 0.8)
    height = min(width * prose.uniform(0.5, 0.75), 330 * sheet.unit_px)
    text = f"Figure {sheet.next_number('figure')}. {prose.sentence()}"
    caption = sheet.wrap(text, style.font("italic", 0.88), column.width)
    if sheet.figures_left == 0 or column.room < height + (len(caption) + 3) * style.line_px:
        return 0.0
    sheet.figures_left -= 1
    gap = 0.4 * style.line_px
    left = column.x + (column.width - width) / 2
    prose.pick(FIGURES)(sheet, Column(left, column.y + gap, width, column.y + gap + height))
    used = height + 2 * gap
    return used + sheet.lines(column.below(used), text, style.font("italic", 0.88)) + gap


def note(sheet: Sheet, column: Column) -> float:
    """Set a shaded box with a short text."""
    style, prose = sheet.style, sheet.prose
    padding = 0.7 * style.size_px
    words = sheet.styled(prose.paragraph(prose.number(1, 3)))
    lines = sheet.count_lines(words, column.width - 2 * padding)
    height = (lines + 1) * style.line_px + 2 * padding
    if height > column.room or height > 9 * style.line_px:
        return 0.0
    sheet.page.fill(column.x, column.y, column.x + column.width, column.y + height, style.tint)
    inner = column.inset(padding)
    sheet.line(
        inner.x,
        inner.y,
        prose.pick(("Note", "Remark", "Example", "In short", "Warning")),
        style.font("bold"),
        style.accent,
    )
    sheet.paragraph(Column(inner.x, inner.y + style.line_px, inner.width, column.y + height), words)
    return height + 0.5 * style.line_px


def flow(sheet: Sheet, columns: list[Column], menu: dict[Block, float], sentences: tuple[int, int] = (2, 6)) -> None:
    """Fill columns with paragraphs and, between them, blocks of a menu; the last paragraph may go on overleaf.

    Parameters
    ----------
    sheet : Sheet
        The page.
    columns : list of Column
        Equally wide columns in the order of reading.
    menu : dict of Block to float
        The chance of each block between two paragraphs; what is missing to 1 is the chance of none.
    sentences : (int, int)
        Least and most sentences of a paragraph.
    """
    rest: list[Word] = []
    for column in columns:
        while column.room >= sheet.style.line_px:
            indent = 0.0
            if not rest:
                column, indent = _between_paragraphs(sheet, column, menu)
                rest = sheet.styled(sheet.prose.paragraph(sheet.prose.number(*sentences)))
            used, rest = sheet.paragraph(column, rest, indent)
            column = column.below(used + _paragraph_gap(sheet))
            if rest:
                break


def closed_flow(sheet: Sheet, column: Column, menu: dict[Block, float], sentences: tuple[int, int] = (2, 6)) -> None:
    """Fill a column like `flow`, but end with a whole sentence, as the last page of a text does."""
    prose, style = sheet.prose, sheet.style
    while True:
        column, indent = _between_paragraphs(sheet, column, menu)
        texts = [prose.sentence() for _ in range(prose.number(*sentences))]
        words = sheet.styled(" ".join(texts))
        while texts and sheet.count_lines(words, column.width, indent) * style.line_px > column.room:
            texts.pop()
            words = words[: len(" ".join(texts).split())]
        if not texts:
            return
        column = column.below(sheet.paragraph(column, words, indent)[0] + _paragraph_gap(sheet))


def _paragraph_gap(sheet: Sheet) -> float:
    return 0.0 if sheet.style.indented else 0.55 * sheet.style.line_px


def _between_paragraphs(sheet: Sheet, column: Column, menu: dict[Block, float]) -> tuple[Column, float]:
    """Set a block of the menu or none; return what is left of the column and the indent of the next paragraph."""
    block = sheet.prose.pick_weighted({**menu, None: max(0.0, 1 - sum(menu.values()))})
    used = block(sheet, column) if block else 0.0
    return column.below(used), 1.4 * sheet.style.size_px if sheet.style.indented and not used else 0.0
