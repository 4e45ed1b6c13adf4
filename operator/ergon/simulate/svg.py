"""Plots as SVG text: lines, stacked areas, bars and a waterfall. No library, no script, no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from ergon.planning.arrays import Floats

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c00", "#666666", "#9467bd")
"""Told apart by people who see fewer colours too (Okabe and Ito), then two more."""

WIDTH, HEIGHT = 860, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 10, 28
_MOST_POINTS = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot. `dashed` for a limit or a plan."""

    label: str
    values: Floats
    dashed: bool = False


def colour(number: int) -> str:
    """The n-th."""
    return COLOURS[number % len(COLOURS)]


def number(value: float) -> str:
    """A figure for an axis or a label."""
    if not math.isfinite(value):
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):,.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def lines(seconds: Floats, drawn: Sequence[Line], unit: str, limit: tuple[str, float] | None = None) -> str:
    """Lines over time, from 0 up; `limit` is a dashed line across with its name."""
    tops = [float(np.nanmax(line.values)) for line in drawn if len(line.values) and not np.isnan(line.values).all()]
    top = _nice(max([*tops, *([limit[1]] if limit else []), 1e-9]))
    frame = _Frame(seconds, top)
    body = [frame.axes(unit)]
    for place, line in enumerate(drawn):
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        body.append(f'<path d="{frame.path(line.values)}" fill="none" stroke="{colour(place)}" stroke-width="1.5"{dash}/>')
    if limit is not None:
        y = frame.y(limit[1])
        body.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#c00" stroke-dasharray="6 4"/>')
        body.append(f'<text x="{WIDTH - _RIGHT}" y="{y - 4:.1f}" text-anchor="end" fill="#c00">{escape(limit[0])}</text>')
    return _svg(body) + _legend([line.label for line in drawn])


def stacked(seconds: Floats, table: Floats, labels: Sequence[str], unit: str) -> str:
    """Areas on top of each other over time; a column of the table each, columns of zeros left out."""
    shown = [n for n in range(table.shape[1]) if len(table) and table[:, n].max() > 0]
    totals = table[:, shown].sum(axis=1) if shown else np.zeros(len(table))
    frame = _Frame(seconds, _nice(max(float(totals.max(initial=0.0)), 1e-9)))
    body, below = [frame.axes(unit)], np.zeros(len(table))
    for place, n in enumerate(shown):
        above = below + table[:, n]
        body.append(f'<path d="{frame.area(below, above)}" fill="{colour(place)}" fill-opacity="0.75"/>')
        below = above
    return _svg(body) + _legend([labels[n] for n in shown])


def bars(rows: Sequence[tuple[str, Sequence[float], str]], parts: Sequence[str], unit: str) -> str:
    """Bars of stacked parts: (name, the parts' values, a note behind the bar)."""
    top = max([sum(values) for _, values, _ in rows] + [1e-9])
    height, left, room = 26, 120, 250
    body = []
    for row, (name, values, note) in enumerate(rows):
        y, x = 4 + row * height, float(left)
        body.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        for place, value in enumerate(values):
            width = value / top * (WIDTH - left - room)
            title = f"<title>{escape(parts[place])}: {number(value)} {escape(unit)}</title>"
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(width, 0):.1f}" height="18" fill="{colour(place)}">{title}</rect>'
            )
            x += max(width, 0.0)
        body.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{number(sum(values))} {escape(unit)} {escape(note)}</text>')
    return _svg(body, 8 + height * len(rows)) + _legend(parts)


def waterfall(steps: Sequence[tuple[str, float]], unit: str) -> str:
    """From the first total down (or up) to the last, one step a policy: (what the step is, the total after it)."""
    top = _nice(max([total for _, total in steps] + [1e-9]))
    width = (WIDTH - _LEFT - _RIGHT) / max(len(steps), 1)
    plot = HEIGHT - _TOP - _BOTTOM
    body: list[str] = []
    before = 0.0
    for place, (name, total) in enumerate(steps):
        x = _LEFT + place * width + width * 0.15
        high, low = max(before, total), min(before, total)
        if place in (0, len(steps) - 1):
            high, low = total, 0.0
        y, tall = _TOP + plot * (1 - high / top), plot * (high - low) / top
        fill = colour(0) if place in (0, len(steps) - 1) else colour(2) if total <= before else colour(5)
        said = number(total) if place in (0, len(steps) - 1) else f"{(total / before - 1) * 100:+.0f} %" if before else ""
        body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width * 0.7:.1f}" height="{max(tall, 1):.1f}" fill="{fill}"/>')
        body.append(f'<text x="{x + width * 0.35:.1f}" y="{max(y - 3, 10):.1f}" text-anchor="middle">{said}</text>')
        body.append(
            f'<text x="{x + width * 0.35:.1f}" y="{HEIGHT - 10}" text-anchor="middle">'
            f"{escape(name)}<title>{number(total)} {escape(unit)}</title></text>"
        )
        before = total
    return _svg(body)


class _Frame:
    """A plot's axes: time to the right, from 0 to `top` upward."""

    def __init__(self, seconds: Floats, top: float) -> None:
        self.seconds, self.top = seconds, top
        self.start = float(seconds[0]) if len(seconds) else 0.0
        self.length = max(float(seconds[-1]) - self.start, 1.0) if len(seconds) else 1.0

    def x(self, seconds: float) -> float:
        """Pixels from the left."""
        return _LEFT + (seconds - self.start) / self.length * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return _TOP + (1 - min(value / self.top, 1.05)) * (HEIGHT - _TOP - _BOTTOM)

    def path(self, values: Floats) -> str:
        """A line, broken where values are unknown."""
        made, pen = [], "M"
        for at, value in zip(*_thinned(self.seconds, values), strict=True):
            if math.isnan(value):
                pen = "M"
                continue
            made.append(f"{pen}{self.x(at):.1f} {self.y(value):.1f}")
            pen = "L"
        return "".join(made)

    def area(self, below: Floats, above: Floats) -> str:
        """What lies between two lines."""
        at, high = _thinned(self.seconds, above)
        _, low = _thinned(self.seconds, below)
        up = [f"{self.x(t):.1f} {self.y(v):.1f}" for t, v in zip(at, high, strict=True)]
        down = [f"{self.x(t):.1f} {self.y(v):.1f}" for t, v in zip(at, low, strict=True)]
        return "M" + "L".join([*up, *reversed(down)]) + "Z"

    def axes(self, unit: str) -> str:
        """Lines and figures."""
        made = [f'<text x="4" y="{_TOP + 4}">{escape(unit)}</text>']
        for part in range(5):
            value = self.top * part / 4
            y = self.y(value)
            made.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
            made.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
        step = next((s for s in (300, 900, 3600, 10800, 21600, 86400, 604800) if self.length / s <= 9), 2592000)
        first = math.ceil(self.start / step) * step
        for at in np.arange(first, self.start + self.length + 1, step):
            made.append(f'<text x="{self.x(float(at)):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{_time(float(at))}</text>')
        return "".join(made)


def _thinned(seconds: Floats, values: Floats) -> tuple[list[float], list[float]]:
    """At most so many points: means of equal parts; a part of unknown values stays unknown."""
    count = min(len(seconds), len(values))
    every = max(1, math.ceil(count / _MOST_POINTS))
    if every == 1:
        return seconds[:count].tolist(), values[:count].tolist()
    at, made = [], []
    for first in range(0, count, every):
        part = values[first : first + every]
        known = part[~np.isnan(part)]
        at.append(float(seconds[first : first + every].mean()))
        made.append(float(known.mean()) if len(known) else math.nan)
    return at, made


def _time(seconds: float) -> str:
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    clock = f"{hours}:{rest // 60:02d}"
    return f"day {days}" if days and not hours and not rest else f"{days}d {clock}" if days else clock


def _nice(top: float) -> float:
    """A round figure at or above."""
    power = 10.0 ** math.floor(math.log10(top))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10, 12) if step * power >= top * 0.999999)


def _svg(body: Sequence[str], height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(body)}</svg>'


def _legend(labels: Sequence[str]) -> str:
    items = "".join(f'<span><i style="background:{colour(n)}"></i>{escape(label)}</span>' for n, label in enumerate(labels))
    return f'<p class="legend">{items}</p>'
