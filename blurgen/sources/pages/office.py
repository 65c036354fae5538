"""Layouts of offices and shops: letters, forms, invoices, receipts, listings."""

import numpy as np

from blurgen.sources.pages import blocks
from blurgen.sources.pages.sheet import Column, Sheet
from blurgen.sources.pages.tables import draw_table
from blurgen.sources.pages.words import capitalised

_FIRMS = ("Ltd", "Brothers", "Company", "Office", "Partners")
_GREETINGS = ("Yours sincerely,", "Kind regards,", "Yours faithfully,", "With best wishes,")
_PAPERS = ("Invoice", "Statement", "Order", "Delivery note", "Price list", "Report")


def letter(sheet: Sheet) -> None:
    """Fill a page with a letter: sender, date, address, paragraphs and a signature."""
    style, prose, line = sheet.style, sheet.prose, sheet.style.line_px
    body = sheet.margins(1.2)
    body = body.below(_letterhead(sheet, body))
    recipient = prose.name()
    address = (
        recipient,
        f"{prose.number(1, 240)} {prose.label()} Road",
        f"{prose.number(10000, 99999)} {prose.place()}",
    )
    for i, text in enumerate(address):
        sheet.line(body.x, body.y + i * line, text, style.font())
    sheet.label(body.below(3 * line), f"{prose.place()}, {prose.date()}", style.font(), anchor=1)
    body = body.below(5 * line)
    sheet.label(body, f"Re: {prose.title()}", style.font("bold"))
    sheet.label(body.below(2 * line), f"Dear {recipient},", style.font())
    end = body.bottom - 5.5 * line
    blocks.closed_flow(sheet, Column(body.x, body.y + 3.6 * line, body.width, end), {blocks.bullets: 0.12})
    _signature(sheet, Column(body.x, end + 0.8 * line, body.width, body.bottom))


def _letterhead(sheet: Sheet, body: Column) -> float:
    """Set a sender's name and address over a rule; return the height."""
    style, prose, em = sheet.style, sheet.prose, sheet.style.size_px
    anchor = prose.pick((0.0, 0.5, 1.0))
    sender = f"{prose.label()} & {prose.pick(prose.words['surname'])} {prose.pick(_FIRMS)}"
    sheet.label(body, sender, style.font("bold", 1.7, style.display), style.accent, anchor)
    address = f"{prose.number(1, 240)} {prose.label()} Street, {prose.place()} {prose.number(10000, 99999)}"
    sheet.label(body.below(2.2 * em), address, style.font("regular", 0.85, style.display), style.muted, anchor)
    sheet.rule(body.x, body.y + 3.7 * em, body.width, style.accent, 2)
    return 6 * em


def _signature(sheet: Sheet, column: Column) -> None:
    """Set the end of a letter: a greeting, a scrawl, a name."""
    style, prose, line = sheet.style, sheet.prose, sheet.style.line_px
    sheet.label(column, prose.pick(_GREETINGS), style.font())
    steps = np.linspace(0, 1, 60)
    swing = sum(np.sin(steps * prose.uniform(8, 45) + prose.uniform(0, 7)) for _ in range(3)) / 3
    x = column.x + (prose.uniform(5, 9) * steps + 0.3 * np.sin(30 * steps)) * style.size_px
    sheet.stroke(np.column_stack([x, column.y + (2.3 + 0.7 * swing) * line]), style.series[0], 2)
    sheet.label(column.below(3.5 * line), prose.name(), style.font())


def form(sheet: Sheet) -> None:
    """Fill a page with the sections of a form: labelled boxes, some filled in, and boxes to tick."""
    style, prose, line = sheet.style, sheet.prose, sheet.style.line_px
    body = sheet.margins()
    title = f"Form {prose.number(10, 999)}: {prose.title()}"
    body = body.below(sheet.lines(body, title, style.font("bold", 1.5, style.display), style.accent) + 0.6 * line)
    body = body.below(sheet.paragraph(body, sheet.styled(prose.paragraph(2)))[0] + 0.6 * line)
    section = 0
    while body.room > 13 * line:
        section += 1
        bar = 1.5 * style.size_px
        sheet.page.fill(body.x, body.y, body.x + body.width, body.y + bar, style.accent)
        text = f"{section}. {capitalised(prose.noun())}"
        sheet.line(body.x + 0.5 * style.size_px, body.y + 0.25 * style.size_px, text, style.font("bold"), style.paper)
        body = body.below(bar + 0.5 * style.size_px)
        for _ in range(prose.number(2, 3)):
            body = body.below(_form_row(sheet, body))
        body = body.below(_tick_boxes(sheet, body))
    blocks.closed_flow(sheet, body, {})


def _form_row(sheet: Sheet, column: Column) -> float:
    """Draw one to three labelled boxes side by side, some filled in; return the height."""
    style, prose, em = sheet.style, sheet.prose, sheet.style.size_px
    label, value = style.font("regular", 0.8), style.font("italic", 1.0, style.mono)
    for field in column.split(prose.number(1, 3), em):
        sheet.label(field, capitalised(prose.noun()), label)
        top = field.y + 1.1 * em
        sheet.page.frame(field.x, top, field.x + field.width, top + 1.9 * em, style.muted, sheet.rule_px)
        if prose.chance(0.7):
            entry = prose.pick((prose.name, prose.date, prose.place, prose.quantity))()
            sheet.label(Column(field.x + 0.5 * em, top + 0.45 * em, field.width - em, field.bottom), entry, value)
    return 3.6 * em


def _tick_boxes(sheet: Sheet, column: Column) -> float:
    """Draw a row of boxes with their labels, some ticked; return the height."""
    style, prose, em = sheet.style, sheet.prose, sheet.style.size_px
    side = 0.8 * em
    for choice in column.split(prose.number(2, 4), em):
        sheet.page.frame(choice.x, choice.y, choice.x + side, choice.y + side, style.ink, sheet.rule_px)
        if prose.chance(0.4):
            tick = np.array([[0.2, 0.5], [0.45, 0.78], [0.85, 0.1]]) * side + (choice.x, choice.y)
            sheet.stroke(tick, style.accent, 2)
        beside = Column(choice.x + 1.4 * em, choice.y, choice.width - 1.4 * em, choice.bottom)
        sheet.label(beside, sheet.short_label(style.font(), beside.width), style.font())
    return 1.8 * style.line_px


def invoice(sheet: Sheet) -> None:
    """Fill a page with parties, long tables with totals, and terms."""
    style, prose, em = sheet.style, sheet.prose, sheet.style.size_px
    body = sheet.margins()
    head = Column(body.x, body.y, 0.7 * body.width, body.bottom)
    sheet.label(
        head, f"{prose.pick(_PAPERS)} {prose.number(1000, 99999)}", style.font("bold", 2.2, style.display), style.accent
    )
    sheet.label(body.below(0.9 * em), prose.date(), style.font(), anchor=1)
    body = body.below(3.6 * em)
    for party in body.split(2, 2 * em):
        for i, text in enumerate((prose.name(), f"{prose.number(1, 99)} {prose.label()} Lane", prose.place())):
            sheet.label(party.below(i * style.line_px), text, style.font("regular" if i else "bold"))
    body = body.below(4.2 * style.line_px)
    while body.room > 16 * style.line_px:
        body = body.below(draw_table(sheet, body, prose.number(7, 18)) + style.line_px)
        total = f"Total: {prose.number(100, 9999):,}.{prose.number(0, 99):02}"
        sheet.label(body, total, style.font("bold", 1.15), style.accent, 1)
        body = body.below(2.4 * style.line_px)
    blocks.closed_flow(sheet, body, {blocks.note: 0.2, blocks.bullets: 0.2})


def receipt(sheet: Sheet) -> None:
    """Fill a page with lists of goods and prices in a fixed pitch, as tills print them."""
    style, prose, line = sheet.style, sheet.prose, 1.25 * sheet.style.size_px
    body = sheet.margins(1.1)
    shop = f"{prose.pick(prose.words['surname']).upper()} & {prose.pick(('SONS', 'DAUGHTERS', 'FRIENDS'))}"
    for text in (shop, f"{prose.place()}, {prose.label()} Square", prose.date()):
        sheet.label(body, text, style.font("bold"), anchor=0.5)
        body = body.below(line)
    letters, leader = prose.pick((str.upper, capitalised)), prose.pick((".", "-", "_"))
    while body.room > 6 * line:
        sheet.rule(body.x, body.y + 0.6 * line, body.width, style.muted)
        body = body.below(1.1 * line)
        for _ in range(min(prose.number(4, 9), int(body.room / line) - 3)):
            goods = f"{prose.number(1, 99999):05} {prose.number(1, 12)} x {letters(prose.noun())}"
            _item(sheet, body, goods, f"{prose.uniform(0.4, 120):.2f}", "regular", leader)
            body = body.below(line)
        name = prose.pick(("TOTAL", "SUBTOTAL", "TAX 7.5%", "CASH"))
        _item(sheet, body, name, f"{prose.uniform(20, 900):.2f}", "bold", leader)
        body = body.below(line)
    sheet.label(body.below(body.room - style.size_px), "Thank you!", style.font(), anchor=0.5)


def _item(sheet: Sheet, column: Column, name: str, price: str, cut: str, leader: str) -> None:
    """Set a name on the left and a price on the right of a line, and a row of one sign between them."""
    font, end = sheet.style.font(cut), f" {price}"
    name = sheet.fit(name, font, column.width - font.width_px(end))
    gap = column.width - font.width_px(f"{name} {end}")
    sheet.line(column.x, column.y, name, font)
    signs = int(gap / font.width_px("0"))  # as wide as the sign in a fixed pitch, and in every font
    sheet.label(column, leader * signs + end, font, anchor=1)


def listing(sheet: Sheet) -> None:
    """Fill a page with a program, its lines numbered and coloured by kind."""
    style, prose, font = sheet.style, sheet.prose, sheet.style.font()
    body = sheet.margins()
    sheet.label(body, f"{prose.identifier()}.py", style.font("bold"))
    sheet.rule(body.x, body.y + 1.3 * style.size_px, body.width, style.muted)
    body = body.below(2 * style.size_px)
    depth, first, gutter = 0, prose.number(1, 200), font.width_px("0000 ")
    for row in range(int(body.room / style.line_px)):
        line = body.below(row * style.line_px)
        sheet.line(line.x + 0.8 * gutter, line.y, str(first + row), font, style.muted, 1)
        tokens, deeper = _statement(sheet, depth)
        indent = gutter + depth * font.width_px("    ")
        _code(sheet, Column(line.x + indent, line.y, line.width - indent, line.bottom), tokens)
        depth = min(depth + 1, 4) if deeper else max(0, depth - (4 if prose.chance(0.1) else prose.chance(0.25)))


def _code(sheet: Sheet, line: Column, tokens: list[tuple[str, str]]) -> None:
    """Set tokens (text, kind) one after the other, as far as the line goes."""
    style, x = sheet.style, line.x
    looks = {"word": ("bold", style.accent), "name": ("regular", style.ink), "value": ("regular", style.series[1])}
    for text, kind in tokens:
        cut, ink = looks.get(kind, ("italic", style.muted))
        font = style.font(cut)
        text = sheet.fit(text, font, line.x + line.width - x) if kind == "remark" else text
        if x + font.width_px(text) > line.x + line.width:
            break
        sheet.line(x, line.y, text, font, ink)
        x += font.width_px(text)


def _statement(sheet: Sheet, depth: int) -> tuple[list[tuple[str, str]], bool]:
    """Return the tokens (text, kind) of a line of code, and whether the next one stands deeper."""
    prose, name = sheet.prose, sheet.prose.identifier
    shape = prose.pick(
        ("def", "for", "if", "remark", "return", "call", "blank", "let", "let", "let") if depth else ("def", "let")
    )
    if shape == "def":
        return [("def ", "word"), (f"{name()}({name()}, {name()}={prose.number(0, 99)}):", "name")], True
    if shape == "for":
        return [("for ", "word"), (name(), "name"), (" in ", "word"), (f"{name()}.{name()}():", "name")], True
    if shape == "if":
        return [("if ", "word"), (f"{name()} >= ", "name"), (str(prose.number(0, 255)), "value"), (":", "name")], True
    if shape == "remark":
        return [(f"# {prose.sentence()}", "remark")], False
    if shape == "return":
        return [("return ", "word"), (f"{name()}[{name()}] * {name()}", "name")], False
    if shape == "call":
        return [(f"{name()}.{name()}(", "name"), (f'"{prose.noun()}"', "value"), (f", {name()})", "name")], False
    if shape == "blank":
        return [], False
    remark = [(f"  # {prose.sentence()}", "remark")] if prose.chance(0.4) else []
    return [(f"{name()} = {name()}({name()}) + ", "name"), (prose.amount().strip("$%"), "value"), *remark], False
