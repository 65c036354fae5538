"""Layouts of what is published: articles, papers, newspapers, books, slides."""

from blurgen.sources.pages import blocks
from blurgen.sources.pages.figures import FIGURES
from blurgen.sources.pages.sheet import Column, Sheet

_PAPER = {blocks.heading: 0.16, blocks.formula: 0.2, blocks.table: 0.08, blocks.figure: 0.12, blocks.bullets: 0.07}


def article(sheet: Sheet) -> None:
    """Fill a page with one column: a title or a running head, then sections with formulas, tables and figures."""
    body = _running_head(sheet, sheet.margins())
    if sheet.prose.chance(0.5):
        body = body.below(_title(sheet, body))
    blocks.flow(sheet, [body], _PAPER | {blocks.quotation: 0.04, blocks.note: 0.05})


def two_columns(sheet: Sheet) -> None:
    """Fill a page with the two columns of a scientific paper, with title and abstract or without."""
    body = _running_head(sheet, sheet.margins())
    if sheet.prose.chance(0.5):
        body = body.below(_title(sheet, body))
        abstract = body.inset(0.06 * body.width)
        words = sheet.styled("Abstract. " + sheet.prose.paragraph(sheet.prose.number(3, 6)))
        body = body.below(0.06 * body.width + sheet.paragraph(abstract, words)[0] + sheet.style.line_px)
    blocks.flow(sheet, body.split(2, 34 * sheet.unit_px), _PAPER | {blocks.note: 0.03})


def newspaper(sheet: Sheet) -> None:
    """Fill a page with a masthead, headlines over three or four columns, and rules between them."""
    style, prose, unit = sheet.style, sheet.prose, sheet.unit_px
    body = sheet.margins()
    name = sheet.fit(
        f"The {prose.place()} {prose.pick(('Herald', 'Courier', 'Observer', 'Post', 'Gazette'))}",
        style.font("bold", 4, style.display),
        body.width,
    )
    sheet.line(body.x + body.width / 2, body.y, name, style.font("bold", 4, style.display), style.accent, 0.5)
    body = body.below(4.6 * style.size_px)
    sheet.rule(body.x, body.y, body.width, weight=2)
    line = f"{prose.weekday()}, {prose.date()}"
    sheet.line(body.x, body.y + 0.4 * style.size_px, line, style.font())
    sheet.line(
        body.x + body.width, body.y + 0.4 * style.size_px, f"No. {prose.number(100, 9999)}", style.font(), anchor=1
    )
    body = body.below(1.8 * style.size_px)
    sheet.rule(body.x, body.y, body.width)
    body = body.below(0.8 * style.size_px)
    for _ in range(2):
        story = Column(body.x, body.y, body.width, body.y + body.room * prose.uniform(0.42, 0.6))
        story = story if _ == 0 else body
        headline = sheet.lines(story, prose.title(), style.font("bold", prose.uniform(1.8, 2.6), style.display))
        columns = story.below(headline + 0.4 * style.size_px).split(prose.number(3, 4), 26 * unit)
        for column in columns[1:]:
            sheet.page.fill(
                column.x - 13 * unit, column.y, column.x - 13 * unit + sheet.rule_px, column.bottom, style.muted
            )
        blocks.flow(sheet, columns, {blocks.figure: 0.15, blocks.heading: 0.08})
        body = Column(body.x, story.bottom + style.size_px, body.width, body.bottom)


def book(sheet: Sheet) -> None:
    """Fill a page of a book: wide margins, running head, page number, perhaps a chapter with a large initial."""
    style, prose = sheet.style, sheet.prose
    body = _running_head(sheet, sheet.margins(1.5))
    if prose.chance(0.5):
        body = body.below(2 * style.line_px)
        sheet.line(
            body.x + body.width / 2,
            body.y,
            f"CHAPTER {prose.number(2, 30)}",
            style.font("regular", 1.1),
            style.accent,
            0.5,
        )
        body = body.below(2 * style.line_px)
        body = body.below(sheet.lines(body, prose.title(), style.font("italic", 1.7), anchor=0.5) + 2 * style.line_px)
        body = body.below(_initial(sheet, body))
    blocks.flow(sheet, [body], {blocks.quotation: 0.04}, sentences=(3, 9))


def slides(sheet: Sheet) -> None:
    """Fill a page with two slides of a talk: title, large bullets, perhaps a figure or formula beside them."""
    style, prose, unit = sheet.style, sheet.prose, sheet.unit_px
    body = sheet.margins(0.7)
    half = (body.room - 36 * unit) / 2
    for i in range(2):
        top = body.y + i * (half + 36 * unit)
        slide = Column(body.x, top, body.width, top + half)
        sheet.page.frame(slide.x, slide.y, slide.x + slide.width, slide.bottom, style.muted, sheet.rule_px)
        inner = slide.inset(30 * unit)
        title = style.font("bold", 1.35, style.display)
        sheet.line(inner.x, inner.y, sheet.fit(prose.title(), title, inner.width), title, style.accent)
        sheet.rule(inner.x, inner.y + 1.9 * style.size_px, inner.width, style.accent, 3)
        inner = inner.below(2.6 * style.size_px)
        left, right = inner.split(2, 24 * unit)
        if prose.chance(0.45):
            box = Column(right.x, right.y, right.width, right.y + 0.8 * right.room)
            prose.pick(FIGURES)(sheet, box)
            inner = left
        inner = inner.below(blocks.bullets(sheet, inner) + style.line_px * 0.6)
        blocks.flow(sheet, [inner], {blocks.bullets: 0.5}, sentences=(1, 2))


def title_page(sheet: Sheet) -> None:
    """Fill a page with a title in large type over a coloured band, authors, an abstract and an imprint."""
    style, prose, unit = sheet.style, sheet.prose, sheet.unit_px
    body = sheet.margins(1.3)
    sheet.page.fill(0, body.y, sheet.page.width, body.y + prose.uniform(10, 40) * unit, style.accent)
    body = body.below(body.room * prose.uniform(0.08, 0.16))
    anchor = prose.pick((0.0, 0.5))
    title = style.font("bold", prose.uniform(2.6, 3.6), style.display)
    body = body.below(sheet.lines(body, prose.title(), title, style.accent, anchor) + style.line_px)
    body = body.below(
        sheet.lines(body, prose.title(), style.font("italic", 1.4, style.display), None, anchor) + 2 * style.line_px
    )
    for _ in range(prose.number(1, 4)):
        sheet.line(
            body.x + anchor * body.width,
            body.y,
            f"{prose.name()}, {prose.place()}",
            style.font("regular", 1.1),
            anchor=anchor,
        )
        body = body.below(1.2 * style.line_px)
    body = body.below(2 * style.line_px)
    imprint = Column(body.x, body.bottom - 2 * style.line_px, body.width, body.bottom)
    blocks.flow(
        sheet,
        [Column(body.x, body.y, body.width, imprint.y - style.line_px)],
        {blocks.note: 0.3, blocks.figure: 0.25, blocks.bullets: 0.15},
    )
    sheet.rule(imprint.x, imprint.y, imprint.width)
    sheet.line(
        imprint.x + anchor * imprint.width,
        imprint.y + 0.5 * style.line_px,
        f"{prose.place()} · {prose.year()}".replace(" · ", ", "),
        style.font(),
        anchor=anchor,
    )


def contents(sheet: Sheet) -> None:
    """Fill a page with a table of contents: numbered titles, dotted leaders, page numbers."""
    style, prose = sheet.style, sheet.prose
    body = sheet.margins(1.2)
    body = body.below(
        sheet.lines(
            body,
            prose.pick(("Contents", "Index", "List of papers")),
            style.font("bold", 2, style.display),
            style.accent,
        )
    )
    body = body.below(style.line_px)
    page, chapter, section = prose.number(1, 9), 0, 0
    while body.room >= style.line_px:
        is_chapter = chapter == 0 or prose.chance(0.25)
        chapter, section = (chapter + 1, 0) if is_chapter else (chapter, section + 1)
        page += prose.number(1, 12)
        number = f"{chapter}" if is_chapter else f"{chapter}.{section}"
        body = body.below(_entry(sheet, body, number, str(page), is_chapter))


def _entry(sheet: Sheet, column: Column, number: str, page: str, is_chapter: bool) -> float:
    """Set one line of a table of contents; return its height."""
    style = sheet.style
    font = style.font("bold" if is_chapter else "regular")
    gap = 0.35 * style.line_px if is_chapter else 0.0
    left = column.x + (0.0 if is_chapter else 1.6 * style.size_px)
    text_x = left + (1.6 if is_chapter else 2.4) * style.size_px
    right = column.x + column.width - 2.5 * style.size_px
    title = sheet.fit(sheet.prose.title(), font, right - text_x)
    y = column.y + gap
    sheet.line(left, y, number, font)
    sheet.line(text_x, y, title, font)
    sheet.line(column.x + column.width, y, page, font, anchor=1)
    if not is_chapter:
        pitch = 0.6 * style.size_px
        start = (text_x + font.width_px(title)) // pitch + 1
        for i in range(int(start), int(right // pitch)):
            sheet.line(i * pitch, y, ".", font)
    return gap + style.line_px


def _running_head(sheet: Sheet, body: Column) -> Column:
    """Set a running head and a page number, or only the number below; return what is left."""
    style, prose = sheet.style, sheet.prose
    small, number = style.font("regular", 0.85), str(prose.number(1, 480))
    if prose.chance(0.5):
        sheet.line(body.x + body.width / 2, body.bottom - small.size_px, number, small, anchor=0.5)
        return Column(body.x, body.y, body.width, body.bottom - 2 * style.line_px)
    title = sheet.fit(prose.title(), style.font("italic", 0.85), 0.8 * body.width)
    sheet.line(body.x, body.y, title, style.font("italic", 0.85))
    sheet.line(body.x + body.width, body.y, number, small, anchor=1)
    if prose.chance(0.6):
        sheet.rule(body.x, body.y + 1.15 * style.size_px, body.width, style.muted)
    return body.below(2 * style.line_px)


def _title(sheet: Sheet, body: Column) -> float:
    """Set a title, authors and their place; return the height used."""
    style, prose = sheet.style, sheet.prose
    anchor = prose.pick((0.0, 0.5, 0.5))
    used = sheet.lines(
        body, prose.title(), style.font("bold", prose.uniform(1.7, 2.4), style.display), style.accent, anchor
    )
    used += 0.5 * style.line_px
    authors = ", ".join(prose.name() for _ in range(prose.number(1, 4)))
    used += sheet.lines(body.below(used), authors, style.font("regular", 1.1), anchor=anchor)
    place = f"University of {prose.place()}, {prose.date()}"
    used += sheet.lines(body.below(used), place, style.font("italic", 0.9), anchor=anchor)
    return used + style.line_px


def _initial(sheet: Sheet, body: Column) -> float:
    """Set a paragraph that begins with a letter three lines tall; return its height."""
    style = sheet.style
    text = sheet.prose.paragraph(4).lstrip("“")
    step = style.line_px
    letter = style.font("bold", (2 * style.leading + 0.7) / 0.72, style.display)
    indent = letter.width_px(text[0]) + 0.3 * style.size_px
    # its foot stands on the third line, whose baseline lies 0.8 em below the top of the line
    sheet.page.text(letter, body.x, body.y + 2 * step + 0.8 * style.size_px, text[0], style.accent)
    beside = Column(body.x + indent, body.y, body.width - indent, body.y + 3.01 * step)
    used, rest = sheet.paragraph(beside, sheet.styled(text[1:]))
    below, _ = sheet.paragraph(body.below(used), rest)
    return max(used + below, 3 * step)
