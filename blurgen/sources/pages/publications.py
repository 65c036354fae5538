"""Layouts of what is published: articles, papers, newspapers, books, slides."""

from blurgen.sources.pages import blocks
from blurgen.sources.pages.figures import FIGURES
from blurgen.sources.pages.sheet import Column, Sheet

_PAPER = {blocks.heading: 0.16, blocks.formula: 0.2, blocks.table: 0.08, blocks.figure: 0.12, blocks.bullets: 0.07}
_NEWSPAPERS = ("Herald", "Courier", "Observer", "Post", "Gazette", "Mirror", "Chronicle")


def article(sheet: Sheet) -> None:
    """Fill a page with one column: a title or none, then sections with formulas, tables and figures."""
    body = _running_head(sheet, sheet.margins())
    if sheet.prose.chance(0.5):
        body = body.below(_title(sheet, body))
    blocks.flow(sheet, [body], _PAPER | {blocks.quotation: 0.04, blocks.note: 0.05})


def two_columns(sheet: Sheet) -> None:
    """Fill a page with the two columns of a scientific paper, with title and abstract or without."""
    body = _running_head(sheet, sheet.margins())
    if sheet.prose.chance(0.5):
        body = body.below(_title(sheet, body))
        indent = 0.06 * body.width
        abstract = Column(body.x + indent, body.y, body.width - 2 * indent, body.bottom)
        words = sheet.styled("Abstract. " + sheet.prose.paragraph(sheet.prose.number(3, 6)))
        body = body.below(sheet.paragraph(abstract, words)[0] + 1.5 * sheet.style.line_px)
    blocks.flow(sheet, body.split(2, 34 * sheet.unit_px), _PAPER | {blocks.note: 0.03})


def newspaper(sheet: Sheet) -> None:
    """Fill a page with a masthead and two stories over three or four columns with rules between them."""
    style, prose, em = sheet.style, sheet.prose, sheet.style.size_px
    body = sheet.margins()
    masthead = style.font("bold", 4, style.display)
    sheet.label(body, f"The {prose.place()} {prose.pick(_NEWSPAPERS)}", masthead, style.accent, 0.5)
    body = body.below(4.9 * em)
    sheet.rule(body.x, body.y, body.width, weight=2)
    sheet.label(body.below(0.4 * em), f"{prose.weekday()}, {prose.date()}", style.font())
    sheet.label(body.below(0.4 * em), f"No. {prose.number(100, 9999)}", style.font(), anchor=1)
    sheet.rule(body.x, body.y + 1.8 * em, body.width)
    body = body.below(2.6 * em)
    middle = body.y + body.room * prose.uniform(0.42, 0.6)
    _story(sheet, Column(body.x, body.y, body.width, middle))
    _story(sheet, Column(body.x, middle + em, body.width, body.bottom))


def _story(sheet: Sheet, area: Column) -> None:
    """Set a headline and, below it, columns of text."""
    style, prose = sheet.style, sheet.prose
    headline = style.font("bold", prose.uniform(1.8, 2.6), style.display)
    area = area.below(sheet.lines(area, prose.title(), headline) + 0.5 * style.size_px)
    gutter = 26 * sheet.unit_px
    columns = area.split(prose.number(3, 4), gutter)
    for column in columns[1:]:
        x = column.x - gutter / 2
        sheet.page.fill(x, column.y, x + sheet.rule_px, column.bottom, style.muted)
    blocks.flow(sheet, columns, {blocks.figure: 0.15, blocks.heading: 0.08})


def book(sheet: Sheet) -> None:
    """Fill a page of a book: wide margins, running head, page number, perhaps a chapter with a large initial."""
    style, prose = sheet.style, sheet.prose
    body = _running_head(sheet, sheet.margins(1.5))
    if prose.chance(0.5):
        body = body.below(2 * style.line_px)
        sheet.label(body, f"CHAPTER {prose.number(2, 30)}", style.font("regular", 1.1), style.accent, 0.5)
        body = body.below(2 * style.line_px)
        title = sheet.lines(body, prose.title(), style.font("italic", 1.7), anchor=0.5)
        body = body.below(title + 2 * style.line_px)
        body = body.below(_initial(sheet, body))
    blocks.flow(sheet, [body], {blocks.quotation: 0.04}, sentences=(3, 9))


def slides(sheet: Sheet) -> None:
    """Fill a page with two slides of a talk, one above the other, as they are handed out."""
    style, gap = sheet.style, 36 * sheet.unit_px
    body = sheet.margins(0.7)
    height = (body.room - gap) / 2
    for top in (body.y, body.y + height + gap):
        slide = Column(body.x, top, body.width, top + height)
        sheet.page.frame(slide.x, slide.y, slide.x + slide.width, slide.bottom, style.muted, sheet.rule_px)
        _slide(sheet, slide.inset(30 * sheet.unit_px))


def _slide(sheet: Sheet, slide: Column) -> None:
    """Set a title and large bullets, perhaps with a figure beside them."""
    style, prose, em = sheet.style, sheet.prose, sheet.style.size_px
    sheet.label(slide, prose.title(), style.font("bold", 1.35, style.display), style.accent)
    sheet.rule(slide.x, slide.y + 1.9 * em, slide.width, style.accent, 3)
    slide = slide.below(2.6 * em)
    if prose.chance(0.45):
        slide, beside = slide.split(2, 24 * sheet.unit_px)
        prose.pick(FIGURES)(sheet, Column(beside.x, beside.y, beside.width, beside.y + 0.62 * beside.room))
    slide = slide.below(blocks.bullets(sheet, slide))
    blocks.closed_flow(sheet, slide, {blocks.bullets: 0.5}, sentences=(1, 2))


def title_page(sheet: Sheet) -> None:
    """Fill a page with a title in large type below a coloured band, authors, an abstract and an imprint."""
    style, prose, line = sheet.style, sheet.prose, sheet.style.line_px
    body = sheet.margins(1.3)
    band = prose.uniform(10, 40) * sheet.unit_px
    sheet.page.fill(0, body.y, sheet.page.width, body.y + band, style.accent)
    body = body.below(band + body.room * prose.uniform(0.05, 0.12))
    anchor = prose.pick((0.0, 0.5))
    title, subtitle = (
        style.font("bold", prose.uniform(2.6, 3.6), style.display),
        style.font("italic", 1.4, style.display),
    )
    body = body.below(sheet.lines(body, prose.title(), title, style.accent, anchor) + line)
    body = body.below(sheet.lines(body, prose.title(), subtitle, None, anchor) + 2 * line)
    for _ in range(prose.number(1, 4)):
        sheet.label(body, f"{prose.name()}, {prose.place()}", style.font("regular", 1.1), anchor=anchor)
        body = body.below(1.2 * line)
    imprint = Column(body.x, body.bottom - 2 * line, body.width, body.bottom)
    sheet.rule(imprint.x, imprint.y, imprint.width)
    sheet.label(imprint.below(0.5 * line), f"{prose.place()}, {prose.year()}", style.font(), anchor=anchor)
    text = Column(body.x, body.y + 2 * line, body.width, imprint.y - line)
    blocks.closed_flow(sheet, text, {blocks.note: 0.3, blocks.figure: 0.25, blocks.bullets: 0.15})


def contents(sheet: Sheet) -> None:
    """Fill a page with a table of contents: numbered titles, dotted leaders, page numbers."""
    style, prose = sheet.style, sheet.prose
    body = sheet.margins(1.2)
    sheet.label(body, prose.pick(("Contents", "Index", "Papers")), style.font("bold", 2, style.display), style.accent)
    body = body.below(2.4 * style.size_px + style.line_px)
    page, chapter, section = prose.number(1, 9), 0, 0
    while body.room >= 1.35 * style.line_px:
        is_chapter = chapter == 0 or prose.chance(0.25)
        chapter, section = (chapter + 1, 0) if is_chapter else (chapter, section + 1)
        page += prose.number(1, 12)
        body = body.below(_entry(sheet, body, f"{chapter}" if is_chapter else f"{chapter}.{section}", page))


def _entry(sheet: Sheet, column: Column, number: str, page: int) -> float:
    """Set one line of a table of contents; return its height."""
    style, em = sheet.style, sheet.style.size_px
    is_chapter = "." not in number
    font = style.font("bold" if is_chapter else "regular")
    gap = 0.35 * style.line_px if is_chapter else 0.0
    column = column.below(gap)
    number_x, title_x = (column.x + shift * em for shift in ((0, 1.6) if is_chapter else (1.6, 4.0)))
    right = column.x + column.width - 2.5 * em
    title = sheet.fit(sheet.prose.title(), font, right - title_x)
    sheet.line(number_x, column.y, number, font)
    sheet.line(title_x, column.y, title, font)
    sheet.label(column, str(page), font, anchor=1)
    if not is_chapter:  # dots stand on one grid for all lines
        pitch = 0.6 * em
        for i in range(int((title_x + font.width_px(title)) // pitch) + 1, int(right // pitch)):
            sheet.line(i * pitch, column.y, ".", font)
    return gap + style.line_px


def _running_head(sheet: Sheet, body: Column) -> Column:
    """Set a running head with a page number, or only the number at the foot; return what is left."""
    style, prose = sheet.style, sheet.prose
    small, number = style.font("regular", 0.85), str(prose.number(1, 480))
    if prose.chance(0.5):
        foot = body.below(body.room - small.size_px)
        sheet.label(foot, number, small, anchor=0.5)
        return Column(body.x, body.y, body.width, body.bottom - 2 * style.line_px)
    sheet.line(body.x, body.y, sheet.fit(prose.title(), small, 0.8 * body.width), style.font("italic", 0.85))
    sheet.label(body, number, small, anchor=1)
    if prose.chance(0.6):
        sheet.rule(body.x, body.y + 1.15 * style.size_px, body.width, style.muted)
    return body.below(2 * style.line_px)


def _title(sheet: Sheet, body: Column) -> float:
    """Set a title, authors and their place; return the height used."""
    style, prose, top = sheet.style, sheet.prose, body.y
    anchor = prose.pick((0.0, 0.5, 0.5))
    title = style.font("bold", prose.uniform(1.7, 2.4), style.display)
    body = body.below(sheet.lines(body, prose.title(), title, style.accent, anchor) + 0.5 * style.line_px)
    authors = ", ".join(prose.name() for _ in range(prose.number(1, 4)))
    body = body.below(sheet.lines(body, authors, style.font("regular", 1.1), anchor=anchor))
    place = f"University of {prose.place()}, {prose.date()}"
    body = body.below(sheet.lines(body, place, style.font("italic", 0.9), anchor=anchor))
    return body.y - top + style.line_px


def _initial(sheet: Sheet, body: Column) -> float:
    """Set a paragraph that begins with a letter three lines tall; return its height."""
    style, step = sheet.style, sheet.style.line_px
    text = sheet.prose.paragraph(4).lstrip("“")
    letter = style.font("bold", (2 * style.leading + 0.7) / 0.72, style.display)
    indent = letter.width_px(text[0]) + 0.3 * style.size_px
    third = body.below(2 * step)  # the letter stands on the third line
    sheet.page.text(letter, body.x, sheet.baseline(third.y, style.font()), text[0], style.accent)
    beside = Column(body.x + indent, body.y, body.width - indent, third.y + 1.01 * step)
    used, rest = sheet.paragraph(beside, sheet.styled(text[1:]))
    below, _ = sheet.paragraph(body.below(used), rest)
    return max(used + below, 3 * step)
