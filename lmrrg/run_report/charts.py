"""The two kinds of chart in the run report, drawn by matplotlib as SVG inside the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmrrg.run_report import inline_svg
from lmrrg.run_report.inline_svg import gid

WIDTH = 380
HEIGHT = 220
MAX_POINTS = 300
"""Points of a drawn curve; a longer one is drawn as the means of this many consecutive parts."""

_INTERVAL_HEIGHT = 92
_MAX_MARKS = 60  # marks with a tooltip on one curve; more would hide the line


@dataclass(frozen=True)
class Series:
    """One curve: its name in the legend and its points in data units; a NaN interrupts the line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Margins:
    """Pixels between the edges of a chart and its axes, which hold the labels."""

    left: int
    right: int
    top: int
    bottom: int


_LINE_MARGINS = Margins(left=66, right=12, top=12, bottom=44)
_INTERVAL_MARGINS = Margins(left=30, right=30, top=4, bottom=36)


def line_chart(series: Sequence[Series], x_label: str, y_label: str, chart_id: str) -> Markup:
    """Return an SVG line chart, 380 x 220 units, that scales with its column.

    Marks carry their values as tooltips. At most five series have a colour of their own.

    Args:
        series: the curves, in the order of the legend.
        x_label: title of the x axis.
        y_label: title of the y axis, with its unit.
        chart_id: name of the chart, different for each chart of a page.
    """
    power = _power_of_ten(value for one in series for value in one.y)
    if power:
        y_label = f"{y_label}, ×10{_superscript(power)}"
    shown = [_thinned(_divided(one, 10.0**power)) for one in series]
    names = ", ".join(one.name for one in series)
    with inline_svg.drawing_settings(chart_id):
        figure, axes = _empty_chart(HEIGHT, _LINE_MARGINS)
        _label_line_chart(figure, axes, shown, x_label, y_label)
        tooltips = {}
        for number, one in enumerate(shown):
            css_class = f"series s{number}"
            tooltips[css_class] = _draw_curve(axes, one, number, css_class)
        return inline_svg.render(figure, f"{y_label} by {x_label}: {names}", tooltips)


def interval_chart(difference: float, low: float, high: float, label: str, chart_id: str) -> Markup:
    """Return an SVG of a difference and its interval on a line with zero marked, 380 x 92 units.

    The interval has the text colour of the surrounding element.

    Args:
        difference: the measured value.
        low: lower end of its interval.
        high: upper end of its interval.
        label: title of the axis.
        chart_id: name of the chart, different for each chart of a page.
    """
    colour = inline_svg.CURRENT_COLOUR
    with inline_svg.drawing_settings(chart_id):
        figure, axes = _empty_chart(_INTERVAL_HEIGHT, _INTERVAL_MARGINS)
        ticks = _round_ticks([0.0, low, high, difference])
        axes.set_xlim(ticks[0], ticks[-1])
        axes.set_ylim(-1, 1)
        axes.set_yticks([])
        axes.set_xticks(ticks, [_number(tick) for tick in ticks])
        axes.set_xlabel(label, color=inline_svg.TEXT_COLOUR, parse_math=False)
        axes.grid(axis="x", color=inline_svg.GRID_COLOUR, linewidth=1, clip_on=False)
        _draw_zero(axes, [0, 0], [-1, 1])
        axes.plot([low, high], [0, 0], color=colour, linewidth=5, clip_on=False, gid=gid("range"))
        axes.plot(
            [difference],
            [0],
            marker="o",
            markersize=14,
            color=colour,
            markeredgecolor=inline_svg.PAPER_COLOUR,
            markeredgewidth=2,
            clip_on=False,
            gid=gid("dot"),
        )
        values = f"{_number(difference)}, interval {_number(low)} to {_number(high)}"
        return inline_svg.render(figure, f"{label}: {values}", {})


def _empty_chart(height: int, margins: Margins) -> tuple[Figure, Axes]:
    """Return a figure of :data:`WIDTH` x ``height`` units with axes that have no frame."""
    # A Figure without pyplot belongs to nobody else and is freed with its last reference.
    figure = Figure(figsize=(WIDTH / inline_svg.UNITS_PER_INCH, height / inline_svg.UNITS_PER_INCH))
    inner_width = WIDTH - margins.left - margins.right
    inner_height = height - margins.top - margins.bottom
    axes = figure.add_axes(
        (
            margins.left / WIDTH,
            margins.bottom / height,
            inner_width / WIDTH,
            inner_height / height,
        )
    )
    # Without these patches the colour of the page is the background.
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=7, labelcolor=inline_svg.TEXT_COLOUR)
    return figure, axes


def _label_line_chart(
    figure: Figure, axes: Axes, series: Sequence[Series], x_label: str, y_label: str
) -> None:
    """Set the range, ticks and titles of both axes, and the zero line where zero is in sight."""
    x_low, x_high = _value_range(value for one in series for value in one.x)
    y_ticks = _round_ticks([value for one in series for value in one.y])
    # Steps end where training ended, so the x axis keeps to the data and drops the ticks outside.
    x_ticks = _locator(integer=True).tick_values(x_low, x_high)
    x_ticks = [float(tick) for tick in x_ticks if x_low <= tick <= x_high]
    axes.set_xlim(x_low, x_high)
    axes.set_ylim(y_ticks[0], y_ticks[-1])
    axes.set_xticks(x_ticks, [_number(tick) for tick in x_ticks])
    axes.set_yticks(y_ticks, [_number(tick) for tick in y_ticks])
    axes.grid(axis="y", color=inline_svg.GRID_COLOUR, linewidth=1, clip_on=False)
    if y_ticks[0] < 0 < y_ticks[-1]:
        _draw_zero(axes, [x_low, x_high], [0, 0])
    axes.set_xlabel(x_label, color=inline_svg.TEXT_COLOUR, parse_math=False)
    axes.set_ylabel(y_label, color=inline_svg.TEXT_COLOUR, parse_math=False)
    # By default the title stands beside the widest tick label; charts of a column should line up.
    middle = (_LINE_MARGINS.bottom + HEIGHT - _LINE_MARGINS.top) / 2
    axes.yaxis.set_label_coords(17 / WIDTH, middle / HEIGHT, transform=figure.transFigure)


def _draw_curve(axes: Axes, series: Series, number: int, css_class: str) -> list[str]:
    """Draw one curve with marks, and return the tooltips of its marks."""
    finite = np.flatnonzero(np.isfinite(series.x) & np.isfinite(series.y))
    marked = finite[:: max(1, math.ceil(len(finite) / _MAX_MARKS))].tolist()
    axes.plot(
        series.x,
        series.y,
        color=inline_svg.SERIES_COLOURS[number % len(inline_svg.SERIES_COLOURS)],
        linewidth=2,
        marker="o",
        markersize=4.8,
        markeredgewidth=0,
        markevery=marked,
        clip_on=False,  # a point on the edge keeps its whole mark
        gid=gid(css_class),
    )
    return [f"{series.name} at {_number(series.x[i])}: {_number(series.y[i])}" for i in marked]


def _draw_zero(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(
        x,
        y,
        color=inline_svg.ZERO_COLOUR,
        linewidth=1,
        linestyle=(0, (4, 3)),
        clip_on=False,
        gid=gid("zero"),
    )


def _power_of_ten(values: Iterable[float]) -> int:
    """Return the power of ten to take out of tick labels; 0 where they are short as they are."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0.0 or 1e-2 <= largest < 1e5:
        return 0
    return math.floor(math.log10(largest))


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _divided(series: Series, divisor: float) -> Series:
    return Series(series.name, series.x, [value / divisor for value in series.y])


def _thinned(series: Series) -> Series:
    """Return the means of consecutive parts where a curve has more points than can be seen."""
    if len(series.x) <= MAX_POINTS:
        return series
    return Series(series.name, _part_means(series.x), _part_means(series.y))


def _part_means(values: Sequence[float]) -> list[float]:
    parts = np.array_split(np.asarray(values, dtype=float), MAX_POINTS)
    return [float(part.mean()) for part in parts]


def _value_range(values: Iterable[float]) -> tuple[float, float]:
    """Return the smallest and the largest finite value, pulled apart where they are equal."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low = min(finite)
    high = max(finite)
    if low == high:  # a constant curve needs an axis of some length
        spread = abs(low) * 0.1 or 1.0
        return low - spread, high + spread
    return low, high


def _locator(*, integer: bool = False) -> MaxNLocator:
    # The default steps include 3, 4, 6 and 8, whose multiples are harder to read.
    return MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=integer)


def _round_ticks(values: Iterable[float]) -> list[float]:
    """Return ticks at round values; the first and the last one enclose all finite ``values``."""
    ticks = _locator().tick_values(*_value_range(values))
    return [float(tick) for tick in ticks]


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
