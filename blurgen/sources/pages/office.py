"""Layouts of offices and shops: letters, forms, invoices, receipts, listings."""

import numpy as np

from blurgen.sources.pages import blocks
from blurgen.sources.pages.sheet import Column, Sheet
from blurgen.sources.pages.tables import draw_table
from blurgen.sources.pages.words import capitalised


def letter(sheet: Sheet) -> None:
    """Fill a page with a letter: sender, date, address, ragged paragraphs and a signature."""
    style, prose, unit = sheet.style, sheet.prose, sheet.unit_px
    body = sheet.margins(1.2)
    sender = (
        f"{prose.label()} & {prose.pick(prose.words['surname'])} {prose.pick(('Ltd', 'Brothers', 'Company', 'Office'))}"
    )
    head = style.font("bold", 1.7, style.display)
    anchor = prose.pick((0.0, 0.5, 1.0))
    sheet.line(body.x + anchor * body.width, body.y, sheet.fit(sender, head, body.width), head, style.accent, anchor)
    address = f"{prose.number(1, 240)} {prose.label()} Street, {prose.place()} {prose.number(10000, 99999)}"
    small = style.font("regular", 0.85, style.display)
    sheet.line(body.x + anchor * body.width, body.y + 2.1 * style.size_px, address, small, style.muted, anchor)
    sheet.rule(body.x, body.y + 3.6 * style.size_px, body.width, style.accent, 2)
    body = body.below(6 * style.size_px)
    recipient = prose.name()
    for text in (
        recipient,
        f"{prose.number(1, 240)} {prose.label()} Road",
        f"{prose.number(10000, 99999)} {prose.place()}",
    ):
        sheet.line(body.x, body.y, text, style.font())
        body = body.below(style.line_px)
    sheet.line(body.x + body.width, body.y - style.line_px, f"{prose.place()}, {prose.date()}", style.font(), anchor=1)
    body = body.below(2 * style.line_px)
    sheet.line(body.x, body.y, sheet.fit(f"Re: {prose.title()}", style.font("bold"), body.width), style.font("bold"))
    body = body.below(2 * style.line_px)
    sheet.line(body.x, body.y, f"Dear {recipient},", style.font())
    body = body.below(1.6 * style.line_px)
    closing = 5.5 * style.line_px + 8 * unit
    blocks.flow(sheet, [Column(body.x, body.y, body.width, body.bottom - closing)], {blocks.bullets: 0.12})
    _signature(sheet, Column(body.x, body.bottom - closing + 0.8 * style.line_px, body.width, body.bottom))


def form(sheet: Sheet) -> None:
    """Fill a page with the sections of a form: labelled boxes, some filled in, and boxes to tick."""
    style, prose, unit = sheet.style, sheet.prose, sheet.unit_px
    body = sheet.margins()
    body = body.below(
        sheet.lines(
            body, f"Form {prose.number(10, 999)}: {prose.title()}", style.font("bold", 1.5, style.display), style.accent
        )
    )
    body = body.below(0.6 * style.line_px)
    body = body.below(sheet.paragraph(body, sheet.styled(prose.paragraph(2)))[0] + 0.6 * style.line_px)
    section = 0
    while body.room > 11 * style.line_px:
        section += 1
        bar = 1.5 * style.size_px
        sheet.page.fill(body.x, body.y, body.x + body.width, body.y + bar, style.accent)
        sheet.line(
            body.x + 8 * unit,
            body.y + 0.25 * style.size_px,
            f"{section}. {capitalised(prose.noun())}",
            style.font("bold"),
            style.paper,
        )
        body = body.below(bar + 0.5 * style.size_px)
        for _ in range(prose.number(2, 3)):
            body = body.below(_form_row(sheet, body))
        if body.room > 6 * style.line_px:
            body = body.below(_tick_boxes(sheet, body))
    blocks.flow(sheet, [body], {})


def invoice(sheet: Sheet) -> None:
    """Fill a page with parties, a long table with a total, and terms."""
    style, prose = sheet.style, sheet.prose
    body = sheet.margins()
    word = prose.pick(("Invoice", "Statement", "Order", "Delivery note", "Price list", "Report"))
    sheet.line(
        body.x, body.y, f"{word} {prose.number(1000, 99999)}", style.font("bold", 2.2, style.display), style.accent
    )
    sheet.line(body.x + body.width, body.y + 0.6 * style.size_px, prose.date(), style.font(), anchor=1)
    body = body.below(3.4 * style.size_px)
    for party in body.split(2, 30 * sheet.unit_px):
        address = (prose.name(), f"{prose.number(1, 99)} {prose.label()} Lane", prose.place())
        for i, text in enumerate(address):
            sheet.line(party.x, party.y + i * style.line_px, text, style.font("bold" if i == 0 else "regular"))
    body = body.below(4.2 * style.line_px)
    while body.room > 16 * style.line_px:
        body = body.below(draw_table(sheet, body, prose.number(7, 18)) + style.line_px)
        total = style.font("bold", 1.15)
        sheet.line(
            body.x + body.width,
            body.y,
            f"Total: {prose.number(100, 9999):,}.{prose.number(0, 99):02}",
            total,
            style.accent,
            1,
        )
        body = body.below(2.4 * style.line_px)
    blocks.flow(sheet, [body], {blocks.note: 0.2, blocks.bullets: 0.2})


def receipt(sheet: Sheet) -> None:
    """Fill a page with a list of goods and prices in a fixed pitch, as tills print them."""
    style, prose = sheet.style, sheet.prose
    body = sheet.margins(1.3)
    for text in (
        f"{prose.pick(prose.words['surname']).upper()} & SONS",
        f"{prose.place()}, {prose.label()} Square",
        prose.date(),
    ):
        sheet.line(body.x + body.width / 2, body.y, text, style.font("bold"), anchor=0.5)
        body = body.below(style.line_px)
    font = style.font()
    while body.room > 5 * style.line_px:
        body = body.below(0.6 * style.line_px)
        sheet.rule(body.x, body.y, body.width, style.muted)
        body = body.below(0.5 * style.line_px)
        for _ in range(prose.number(4, 9)):
            if body.room < 2.5 * style.line_px:
                break
            price = f"{prose.uniform(0.4, 120):.2f}"
            goods = f"{prose.number(1, 12)} x {prose.noun()}"
            sheet.line(
                body.x, body.y, sheet.fit(goods, font, body.width - font.width_px(price) - 2 * style.size_px), font
            )
            sheet.line(body.x + body.width, body.y, price, font, anchor=1)
            body = body.below(style.line_px)
        sheet.line(body.x, body.y, prose.pick(("TOTAL", "SUBTOTAL", "TAX 7.5%", "CASH")), style.font("bold"))
        sheet.line(body.x + body.width, body.y, f"{prose.uniform(20, 900):.2f}", style.font("bold"), anchor=1)
        body = body.below(style.line_px)
    sheet.line(body.x + body.width / 2, body.y + style.line_px, "Thank you!", style.font(), anchor=0.5)


def listing(sheet: Sheet) -> None:
    """Fill a page with a program, its lines numbered and coloured by kind."""
    style, prose = sheet.style, sheet.prose
    body = sheet.margins()
    header = f"{prose.identifier()}.py"
    sheet.line(body.x, body.y, header, style.font("bold"))
    sheet.rule(body.x, body.y + 1.3 * style.size_px, body.width, style.muted)
    body = body.below(2 * style.size_px)
    font, depth, row = style.font(), 0, prose.number(0, 200)
    gutter = font.width_px("0000 ")
    while body.room >= style.line_px:
        row += 1
        sheet.line(body.x + gutter - font.width_px("  "), body.y, str(row), font, style.muted, 1)
        depth = 0 if depth and prose.chance(0.12) else depth
        tokens, deeper = _statement(sheet, depth)
        _code_line(sheet, body.x + gutter + depth * font.width_px("    "), body, tokens)
        depth = min(depth + 1, 4) if deeper else max(0, depth - prose.chance(0.25))
        body = body.below(style.line_px)


def _code_line(sheet: Sheet, x: float, body: Column, tokens: list[tuple[str, str]]) -> None:
    """Set tokens (text, kind) one after the other, as far as the line goes."""
    style = sheet.style
    looks = {
        "word": (style.font("bold"), style.accent),
        "name": (style.font(), style.ink),
        "value": (style.font(), style.series[1]),
        "remark": (style.font("italic"), style.muted),
    }
    for text, kind in tokens:
        font, ink = looks[kind]
        if x + font.width_px(text) > body.x + body.width:
            break
        sheet.line(x, body.y, text, font, ink)
        x += font.width_px(text)


def _statement(sheet: Sheet, depth: int) -> tuple[list[tuple[str, str]], bool]:
    """Return the tokens of a line of code, and whether the next one stands deeper."""
    prose, name = sheet.prose, sheet.prose.identifier
    shape = prose.number(0, 8) if depth else prose.pick((0, 0, 3, 7, 8))
    if shape == 0:
        return [("def ", "word"), (f"{name()}({name()}, {name()}={prose.number(0, 99)}):", "name")], True
    if shape == 1:
        return [("for ", "word"), (name(), "name"), (" in ", "word"), (f"{name()}.{name()}():", "name")], True
    if shape == 2:
        return [("if ", "word"), (f"{name()} >= ", "name"), (str(prose.number(0, 255)), "value"), (":", "name")], True
    if shape == 3:
        return [(f"# {prose.sentence()}", "remark")], False
    if shape == 4:
        return [("return ", "word"), (f"{name()}[{name()}] * {name()}", "name")], False
    if shape == 5:
        return [(f"{name()}.{name()}(", "name"), (f'"{prose.noun()}"', "value"), (f", {name()})", "name")], False
    if shape == 6:
        return [], False
    return [(f"{name()} = {name()}({name()}) + ", "name"), (prose.amount().strip("$%"), "value")], False


def _signature(sheet: Sheet, column: Column) -> None:
    """Set the end of a letter: a greeting, a scrawl, a name."""
    style, prose = sheet.style, sheet.prose
    greeting = prose.pick(("Yours sincerely,", "Kind regards,", "Yours faithfully,", "With best wishes,"))
    sheet.line(column.x, column.y, greeting, style.font())
    steps = np.linspace(0, 1, 60)
    width, height = prose.uniform(5, 9) * style.size_px, 0.7 * style.line_px
    swing = sum(np.sin(steps * prose.uniform(8, 45) + prose.uniform(0, 7)) for _ in range(3)) / 3
    x = column.x + width * steps + 0.3 * style.size_px * np.sin(steps * 30)
    sheet.stroke(np.column_stack([x, column.y + 2.3 * style.line_px + height * swing]), style.series[0], 2)
    sheet.line(column.x, column.y + 3.5 * style.line_px, prose.name(), style.font())


def _form_row(sheet: Sheet, column: Column) -> float:
    """Draw one to three labelled boxes side by side, some filled in; return the height."""
    style, prose, unit = sheet.style, sheet.prose, sheet.unit_px
    label, value = style.font("regular", 0.8), style.font("italic", 1.0, style.mono)
    height = 1.9 * style.size_px
    for field in column.split(prose.number(1, 3), 16 * unit):
        sheet.line(field.x, field.y, sheet.fit(capitalised(prose.noun()), label, field.width), label)
        top = field.y + 1.1 * style.size_px
        sheet.page.frame(field.x, top, field.x + field.width, top + height, style.muted, sheet.rule_px)
        if prose.chance(0.7):
            entry = prose.pick((prose.name, prose.date, prose.place, prose.quantity))()
            entry = sheet.fit(entry, value, field.width - 16 * unit)
            sheet.line(field.x + 8 * unit, top + (height - style.size_px) / 2, entry, value)
    return height + 1.7 * style.size_px


def _tick_boxes(sheet: Sheet, column: Column) -> float:
    """Draw a row of boxes with their labels, some ticked; return the height."""
    style, prose = sheet.style, sheet.prose
    font, side = style.font(), 0.8 * style.size_px
    for choice in column.split(prose.number(2, 4), style.size_px):
        sheet.page.frame(choice.x, choice.y, choice.x + side, choice.y + side, style.ink, sheet.rule_px)
        if prose.chance(0.4):
            corners = np.array([[0.2, 0.5], [0.45, 0.78], [0.85, 0.1]]) * side + (choice.x, choice.y)
            sheet.stroke(corners, style.accent, 2)
        sheet.line(
            choice.x + 1.4 * style.size_px,
            choice.y,
            sheet.fit(prose.label(), font, choice.width - 1.6 * style.size_px),
            font,
        )
    return 1.8 * style.line_px
