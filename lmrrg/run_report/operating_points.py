"""The operating points in the run report: what the generated reports name, and RadCliQ along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmrrg.evaluation.operating_points import OPERATING_COLUMNS
from lmrrg.run_report.charts import Series, line_chart

_CHARTS = (
    ("Precision and recall", "recall", "precision", "recall, 13 findings", "precision"),
    ("F1 by threshold", "threshold", "f1_13", "threshold", "F1, 13 findings"),
    ("{metric} by recall", "recall", "radcliq_v1", "recall, 13 findings", "{metric}"),
)
"""Title, keys of both axes in a record, and titles of both axes of each chart."""


def operating_curves(systems: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Return charts and tables of all systems that have operating points.

    Args:
        systems: records of the systems in the results.
        metric: name of the RadCliQ that the backend computes.

    Returns:
        ``names`` of the systems, ``charts`` (title and SVG), ``columns`` and ``tables`` (title and
        rows of text); all empty where no system has operating points.
    """
    curves = {one["title"]: one["operating_points"] for one in systems if has_points(one)}
    charts = []
    for number, (title, x, y, x_label, y_label) in enumerate(_CHARTS if curves else ()):
        series = [_series(name, points, x, y) for name, points in curves.items()]
        svg = line_chart(series, x_label, y_label.format(metric=metric), f"operating{number}")
        charts.append({"title": title.format(metric=metric), "svg": svg})
    tables = [{"title": name, "rows": _rows(points)} for name, points in curves.items()]
    return {
        "names": list(curves),
        "charts": charts,
        "columns": ["threshold", *OPERATING_COLUMNS],
        "tables": tables,
    }


def has_points(system: Mapping[str, Any]) -> bool:
    """Return whether a system's record has operating points; older results have no such key."""
    return bool(system.get("operating_points"))


def _series(name: str, points: Sequence[Mapping[str, float]], x: str, y: str) -> Series:
    return Series(name, [point[x] for point in points], [point[y] for point in points])


def _rows(points: Sequence[Mapping[str, float]]) -> list[list[str]]:
    rows = []
    for point in points:
        cells = [format(point[key], form) for key, form in OPERATING_COLUMNS.values()]
        rows.append([f"{point['threshold']:g}", *cells])
    return rows
