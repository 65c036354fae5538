"""Figures: charts, diagrams and plain pictures, drawn into a box of a sheet."""

import numpy as np

from blurgen.sources.pages.page import mix
from blurgen.sources.pages.sheet import Column, Sheet


def bar_chart(sheet: Sheet, box: Column) -> None:
    """Draw groups of bars, upright, with a scale, names and a legend."""
    style, prose = sheet.style, sheet.prose
    plot, font = _axes(sheet, box, grid=True)
    groups, series = prose.number(3, 6), prose.number(1, 3)
    pitch = plot.width / groups
    bar = pitch * prose.uniform(0.55, 0.8) / series
    for group in range(groups):
        start = plot.x + group * pitch + (pitch - bar * series) / 2
        for i in range(series):
            top = plot.bottom - plot.room * prose.uniform(0.12, 0.97)
            sheet.page.fill(start + i * bar, top, start + (i + 1) * bar - sheet.rule_px, plot.bottom, style.series[i])
        name = sheet.short_label(font, pitch - 0.5 * font.size_px)
        sheet.line(plot.x + (group + 0.5) * pitch, plot.bottom + 0.3 * font.size_px, name, font, anchor=0.5)


def line_chart(sheet: Sheet, box: Column) -> None:
    """Draw curves over a scale with a grid, their points marked or not."""
    style, prose = sheet.style, sheet.prose
    plot, font = _axes(sheet, box, grid=prose.chance(0.6))
    _ticks_below(sheet, plot, font)
    for i in range(prose.number(1, 4)):
        points = prose.number(6, 24)
        x = np.linspace(plot.x, plot.x + plot.width, points)
        walk = np.cumsum(prose.rng.normal(prose.uniform(-0.4, 0.4), 1, points))
        y = _into(walk, plot, 0.05 + 0.08 * i, 0.95)
        sheet.stroke(np.column_stack([x, y]), style.series[i], prose.pick((1.5, 2, 3)))
        if points < 14:
            for centre in zip(x, y, strict=True):
                sheet.page.disc(*centre, 4 * sheet.unit_px, style.series[i])


def scatter_plot(sheet: Sheet, box: Column) -> None:
    """Draw a cloud of points and the line through it."""
    style, prose = sheet.style, sheet.prose
    plot, font = _axes(sheet, box, grid=prose.chance(0.3))
    _ticks_below(sheet, plot, font)
    points = prose.number(25, 90)
    x = prose.rng.uniform(0.04, 0.96, points)
    slope = prose.uniform(-0.8, 0.8)
    y = np.clip(0.5 + slope * (x - 0.5) + prose.rng.normal(0, 0.12, points), 0.03, 0.97)
    for px, py in zip(plot.x + x * plot.width, plot.bottom - y * plot.room, strict=True):
        sheet.page.disc(px, py, 3.2 * sheet.unit_px, style.series[0])
    ends = np.array([0.04, 0.96])
    trend = np.column_stack([plot.x + ends * plot.width, plot.bottom - (0.5 + slope * (ends - 0.5)) * plot.room])
    sheet.stroke(trend, style.series[1], 2)


def pie_chart(sheet: Sheet, box: Column) -> None:
    """Draw a pie with a legend on its right."""
    style, prose = sheet.style, sheet.prose
    radius = min(0.46 * box.room, 0.24 * box.width)
    x, y = box.x + 0.28 * box.width, box.y + box.room / 2
    shares = prose.rng.dirichlet(np.full(4, 3.0))
    ends = np.concatenate([[0.0], np.cumsum(shares)]) * 2 * np.pi - np.pi / 2
    font = _label_font(sheet)
    for i, colour in enumerate(style.series):
        angles = np.linspace(ends[i], ends[i + 1], 40)
        rim = np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)])
        slice_ = np.vstack([rim, [[x, y]]])
        sheet.page.polygon(slice_, colour)
        sheet.stroke(slice_, style.paper, 2, closed=True)
        left, top = box.x + 0.58 * box.width, y + (i - 2) * 1.7 * font.size_px
        sheet.page.fill(left, top, left + 0.8 * font.size_px, top + 0.8 * font.size_px, colour)
        label = sheet.fit(f"{prose.label()} {100 * shares[i]:.0f}%", font, 0.4 * box.width - 1.3 * font.size_px)
        sheet.line(left + 1.3 * font.size_px, top, label, font)


def diagram(sheet: Sheet, box: Column) -> None:
    """Draw boxes joined by arrows, in one or two rows."""
    style, prose = sheet.style, sheet.prose
    columns, rows, font = prose.number(2, 4), prose.number(1, 2), _label_font(sheet)
    wide, high = box.width / columns, box.room / rows
    half = 0.34 * wide, min(0.3 * high, 1.6 * font.size_px)
    centres = [[(box.x + (c + 0.5) * wide, box.y + (r + 0.5) * high) for c in range(columns)] for r in range(rows)]
    for r, row in enumerate(centres):
        for c, (x, y) in enumerate(row):
            if c:
                _arrow(sheet, (row[c - 1][0] + half[0], y), (x - half[0], y))
            if r and prose.chance(0.6):
                _arrow(sheet, (x, centres[r - 1][c][1] + half[1]), (x, y - half[1]))
            colour = style.tint if prose.chance(0.7) else mix(style.paper, style.series[1], 0.35)
            sheet.page.fill(x - half[0], y - half[1], x + half[0], y + half[1], colour)
            sheet.page.frame(x - half[0], y - half[1], x + half[0], y + half[1], style.ink, sheet.rule_px)
            label = sheet.short_label(font, 2 * half[0] - 0.6 * font.size_px)
            sheet.line(x, y - 0.55 * font.size_px, label, font, anchor=0.5)


def landscape(sheet: Sheet, box: Column) -> None:
    """Draw a picture: hills in haze below a sky with a sun, in the inks of the page."""
    style, prose = sheet.style, sheet.prose
    sky, earth = mix(style.paper, style.series[1], 0.3), style.series[0]
    left, right, rows = round(box.x), round(box.x + box.width), round(box.room)
    fade = np.linspace(0.25, 1, rows)[:, None, None]
    sheet.page.pixels[round(box.y) : round(box.y) + rows, left:right] = np.rint(
        np.float64(style.paper) * (1 - fade[::-1]) + np.float64(sky) * fade[::-1]
    )
    sun = box.x + prose.uniform(0.2, 0.8) * box.width, box.y + 0.25 * box.room
    sheet.page.disc(*sun, 0.07 * box.room, mix(style.paper, style.series[2], 0.6))
    x = np.linspace(left, right - 1, 80)
    for layer in range(1, 5):
        waves = sum(np.sin(x / box.width * 2 * np.pi * k + prose.uniform(0, 7)) / k for k in (0.7, 1.6, 3.1, 6.4, 13))
        ridge = box.y + box.room * (0.35 + 0.14 * layer) + waves * 0.05 * box.room
        corners = [[right - 1, box.bottom - 1], [left, box.bottom - 1]]
        sheet.page.polygon(
            np.vstack([np.column_stack([x, np.minimum(ridge, box.bottom)]), corners]), mix(sky, earth, 0.22 * layer)
        )


FIGURES = (bar_chart, line_chart, scatter_plot, pie_chart, diagram, landscape)


def _label_font(sheet: Sheet):
    return sheet.style.font("regular", sheet.style.table_scale * 0.92, sheet.style.display)


def _axes(sheet: Sheet, box: Column, grid: bool):
    """Draw a scale on the left and the frame of a plot; return the area inside and the font of its labels."""
    style, prose, font = sheet.style, sheet.prose, _label_font(sheet)
    steps, unit = prose.number(3, 5), prose.pick((0.1, 0.2, 0.25, 1, 2, 5, 10, 20, 25, 100, 500))
    labels = [f"{i * unit:g}" for i in range(steps + 1)]
    margin = max(font.width_px(label) for label in labels) + 0.8 * font.size_px
    plot = Column(
        box.x + margin,
        box.y + 0.7 * font.size_px,
        box.width - margin - 0.5 * font.size_px,
        box.bottom - 1.6 * font.size_px,
    )
    for i, label in enumerate(labels):
        y = plot.bottom - i / steps * plot.room
        sheet.line(plot.x - 0.4 * font.size_px, y - 0.55 * font.size_px, label, font, anchor=1)
        sheet.rule(plot.x - 4 * sheet.unit_px, y, 4 * sheet.unit_px)
        if grid and i:
            sheet.rule(plot.x, y, plot.width, mix(style.paper, style.ink, 0.2))
    sheet.rule(plot.x, plot.bottom, plot.width)
    sheet.page.fill(plot.x, plot.y, plot.x + sheet.rule_px, plot.bottom, style.ink)
    return plot, font


def _ticks_below(sheet: Sheet, plot: Column, font) -> None:
    start, unit = sheet.prose.pick(((0, 1), (0, 10), (1950, 10), (2000, 5), (0, 0.2)))
    ticks = max(2, min(6, int(plot.width / (4 * font.size_px))))
    for i in range(ticks):
        x = plot.x + (i + 0.5) * plot.width / ticks
        sheet.page.fill(x, plot.bottom, x + sheet.rule_px, plot.bottom + 4 * sheet.unit_px, sheet.style.ink)
        sheet.line(x, plot.bottom + 0.35 * font.size_px, f"{start + i * unit:g}", font, anchor=0.5)


def _into(values: np.ndarray, plot: Column, low: float, high: float) -> np.ndarray:
    """Return values as heights on the page, their range between two shares of the plot's height."""
    scaled = (values - values.min()) / max(np.ptp(values), 1e-9)
    return plot.bottom - (low + (high - low) * scaled) * plot.room


def _arrow(sheet: Sheet, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow along an axis."""
    start, end = np.array(start), np.array(end)
    along = (end - start) / max(np.abs(end - start).sum(), 1e-9)
    head = 9 * sheet.unit_px
    neck, side = end - head * along, 0.45 * head * along[::-1]
    sheet.stroke([start, neck], sheet.style.ink, 1.5)
    sheet.page.polygon(np.array([end, neck + side, neck - side]), sheet.style.ink)
