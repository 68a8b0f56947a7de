"""Charts of the run report as inline SVG: no script, no font, no file outside the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 380, 220
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 12, 44
MOST_POINTS = 300  # longer curves are drawn as means of equal stretches
MOST_MARKS = 60


@dataclass(frozen=True)
class Series:
    """One curve: its name in the legend, and points in data units; a NaN interrupts the line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """Maps data values to pixels, with round tick values."""

    ticks: list[float]
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(series: Sequence[Series], x_label: str, y_label: str) -> Markup:
    """An SVG line chart, 380 x 220 units, that scales with its column; points carry their values as tooltips."""
    power = _power([v for one in series for v in one.y])
    shown = [_thin(Series(one.name, one.x, [v / 10.0**power for v in one.y])) for one in series]
    y_label = f"{y_label}, ×10{_superscript(power)}" if power else y_label
    x = _axis([v for s in shown for v in s.x], LEFT, WIDTH - RIGHT, whole=True)
    y = _axis([v for s in shown for v in s.y], HEIGHT - BOTTOM, TOP)
    parts = [_grid(x, y), _labels(x_label, y_label)]
    parts += [_curve(one, number, x, y) for number, one in enumerate(shown)]
    name = escape(f"{y_label} by {x_label}: {', '.join(s.name for s in series)}")
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    )


def interval_chart(difference: float, low: float, high: float, label: str) -> Markup:
    """A difference and its interval on a line with zero marked, 380 x 92 units."""
    x = _axis([0.0, low, high, difference], 30, WIDTH - 30)
    ticks = "".join(
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="10" y2="52"/>'
        f'<text class="tick" x="{x(t):.1f}" y="66" text-anchor="middle">{_number(t)}</text>'
        for t in x.ticks
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} 92" role="img" aria-label="{escape(label)}: {_number(difference)}, '
        f'interval {_number(low)} to {_number(high)}">{ticks}'
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="4" y2="56"/>'
        f'<line class="range" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="31" y2="31"/>'
        f'<circle class="dot" cx="{x(difference):.1f}" cy="31" r="7"/>'
        f'<text class="axis" x="{WIDTH / 2}" y="86" text-anchor="middle">{escape(label)}</text></svg>'
    )


def _power(values: Sequence[float]) -> int:
    """The power of ten to take out of tick labels: 0 for values that are readable as they are."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 0 if largest == 0.0 or 1e-2 <= largest < 1e5 else math.floor(math.log10(largest))


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _thin(series: Series) -> Series:
    """Means of equal stretches where a curve has more points than can be seen."""
    stretches = min(len(series.x), MOST_POINTS)
    if len(series.x) <= MOST_POINTS:
        return series
    x = [
        float(np.mean(part))
        for part in np.array_split(np.asarray(series.x, dtype=float), stretches)
    ]
    y = [
        float(np.mean(part))
        for part in np.array_split(np.asarray(series.y, dtype=float), stretches)
    ]
    return Series(series.name, x, y)


def _axis(values: Sequence[float], start: float, end: float, *, whole: bool = False) -> Axis:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:  # a flat curve still gets an axis around it
        spread = abs(low) * 0.1 or 1.0
        low, high = low - spread, high + spread
    ticks = [float(t) for t in MaxNLocator(nbins=5, integer=whole).tick_values(low, high)]
    return (
        Axis(ticks, ticks[0], ticks[-1], start, end)
        if not whole
        else _tight(ticks, low, high, start, end)
    )


def _tight(ticks: list[float], low: float, high: float, start: float, end: float) -> Axis:
    return Axis([tick for tick in ticks if low <= tick <= high], low, high, start, end)


def _grid(x: Axis, y: Axis) -> str:
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y(t) + 4:.1f}" text-anchor="end">{_number(t)}</text>'
        for t in y.ticks
    ]
    lines += [
        f'<text class="tick" x="{x(t):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{_number(t)}</text>'
        for t in x.ticks
    ]
    if y.low < 0 < y.high:
        lines.append(
            f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>'
        )
    return "".join(lines)


def _labels(x_label: str, y_label: str) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text class="axis" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )


def _curve(series: Series, number: int, x: Axis, y: Axis) -> str:
    points = [(px, py) for px, py in zip(series.x, series.y, strict=True) if math.isfinite(px)]
    path, pen_down = [], False
    for px, py in points:
        if math.isfinite(py):
            path.append(f"{'L' if pen_down else 'M'}{x(px):.1f} {y(py):.1f}")
        pen_down = math.isfinite(py)
    drawn = [(px, py) for px, py in points if math.isfinite(py)]
    every = max(1, math.ceil(len(drawn) / MOST_MARKS))
    marks = "".join(
        f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="2.4"><title>{escape(series.name)} at {_number(px)}: '
        f"{_number(py)}</title></circle>"
        for px, py in drawn[::every]
    )
    return f'<g class="series s{number}"><path d="{"".join(path)}"/>{marks}</g>'


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
