"""Tables: columns of words, dates and numbers, aligned and ruled in several manners."""

from dataclasses import dataclass

from blurgen.sources.pages.fonts import Font
from blurgen.sources.pages.sheet import Column, Sheet
from blurgen.sources.pages.words import Prose, capitalised

_MANNERS = ("booktabs", "grid", "zebra", "rows", "plain")


@dataclass(frozen=True)
class _Field:
    """One column of a table: its cells with the head first, where they stand, and how they align."""

    cells: list[str]
    width: float
    anchor: float


def draw_table(sheet: Sheet, column: Column, rows: int) -> float:
    """Draw a table of as many rows as have room, across the column or narrower; return its height."""
    style, prose = sheet.style, sheet.prose
    font, bold = style.font("regular", style.table_scale), style.font("bold", style.table_scale)
    step = font.size_px * prose.uniform(1.35, 1.8)
    rows = min(rows, int(column.room / step) - 1)
    if rows < 1:
        return 0.0
    fields = _draw_fields(prose, font, bold, rows, column.width)
    natural = sum(field.width for field in fields)
    spread = column.width / natural if prose.chance(0.6) or natural > 0.8 * column.width else 1.0
    left = column.x + (column.width - natural * spread) * prose.pick((0.0, 0.5))
    box = Column(left, column.y, natural * spread, column.y + step * (rows + 1))
    edges = [left]
    for field in fields:
        edges.append(edges[-1] + field.width * spread)
    manner = prose.pick(_MANNERS)
    head_ink = _draw_ruling(sheet, box, edges, step, manner)
    padding = 0.45 * font.size_px
    # Row by row, as a table is read.
    for row in range(rows + 1):
        y = column.y + row * step + (step - font.size_px) / 2
        for field, x0, x1 in zip(fields, edges, edges[1:], strict=False):
            x = x0 + padding + field.anchor * (x1 - x0 - 2 * padding)
            style_of_row = (bold, head_ink) if row == 0 else (font, None)
            sheet.line(x, y, field.cells[row], *style_of_row, field.anchor)
    return box.bottom - box.y


def _draw_fields(prose: Prose, font: Font, bold: Font, rows: int, width: float) -> list[_Field]:
    """Return columns until the width is used up: labels first, then figures and words."""
    fields, used = [], 0.0
    for i in range(prose.number(3, 7)):
        kind = "label" if i == 0 else prose.pick(_KINDS)
        cells = [prose.label(), *(_CELLS[kind](prose) for _ in range(rows))]
        needed = max(bold.width_px(cells[0]), *(font.width_px(cell) for cell in cells[1:])) + 1.5 * font.size_px
        if used + needed > width:
            continue
        fields.append(_Field(cells, needed, 0.0 if kind in ("label", "word", "date") else 1.0))
        used += needed
    if fields:
        return fields
    cells = ["", *(str(prose.number(10, 99)) for _ in range(rows))]
    return [_Field(cells, 3 * font.size_px, 1.0)]


def _draw_ruling(sheet: Sheet, box: Column, edges: list[float], step: float, manner: str):
    """Draw what lies under the cells of a table; return the ink of its head."""
    style, page = sheet.style, sheet.page
    rows = round((box.bottom - box.y) / step)
    right = box.x + box.width
    if manner == "zebra":
        for row in range(0, rows, 2):
            page.fill(box.x, box.y + row * step, right, box.y + (row + 1) * step, style.tint)
    if manner == "grid":
        page.fill(box.x, box.y, right, box.y + step, style.tint)
        for x in edges:
            page.fill(x, box.y, x + sheet.rule_px, box.bottom + sheet.rule_px, style.muted)
    if manner in ("grid", "rows"):
        for row in range(rows + 1):
            sheet.rule(box.x, box.y + row * step, box.width, style.muted)
    if manner == "rows":
        page.fill(box.x, box.y, right, box.y + step, style.accent)
        return style.paper
    if manner == "booktabs":
        sheet.rule(box.x, box.y, box.width, weight=2)
        sheet.rule(box.x, box.y + step, box.width)
        sheet.rule(box.x, box.bottom, box.width, weight=2)
    return style.accent if manner == "plain" else style.ink


_CELLS = {
    "label": lambda prose: capitalised(prose.noun()),
    "word": lambda prose: prose.label(),
    "date": lambda prose: f"{prose.year()}-{prose.number(1, 12):02}-{prose.number(1, 28):02}",
    "count": lambda prose: str(prose.number(1, 999)),
    "price": lambda prose: f"{prose.uniform(0.5, 900):.2f}",
    "measure": lambda prose: f"{prose.uniform(0, 1):.3f}",
    "large": lambda prose: f"{prose.number(1000, 99999):,}",
    "share": lambda prose: f"{prose.uniform(0, 100):.1f}%",
}
_KINDS = ("word", "date", "count", "price", "measure", "large", "share", "price", "measure")
