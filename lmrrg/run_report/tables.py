"""The two result tables of the run report: metrics by system, and the classifier's AUC by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmrrg.evaluation.rows import MetricRow, groups_with_values
from lmrrg.metrics.clinical import positives
from lmrrg.studies import LABELS

_ARROWS = {"lower": "↓", "higher": "↑", "": ""}


def metric_table(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups of rows of the main table; rows without any value are left out."""
    systems = results["systems"]
    groups = []
    for title, rows in groups_with_values(results):
        groups.append({"title": title, "rows": [_metric_row(row, systems) for row in rows]})
    return groups


def _metric_row(row: MetricRow, systems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entries = [system["metrics"].get(row.key) for system in systems]
    # An oracle reads the answer: it is a bound, and not the best of the systems.
    is_oracle = [system["is_oracle"] for system in systems]
    compared = zip(entries, is_oracle, strict=True)
    best = _best_text(row, [entry["value"] for entry, oracle in compared if entry and not oracle])
    cells = []
    for entry, oracle in zip(entries, is_oracle, strict=True):
        text = row.text(entry["value"]) if entry else "–"
        is_best = text == best and not oracle
        cells.append({"value": text, "interval": _interval(row, entry), "best": is_best})
    return {
        "title": row.title,
        "better": row.better,
        "arrow": _ARROWS[row.better],
        "cells": cells,
    }


def _best_text(row: MetricRow, values: Sequence[float]) -> str | None:
    """Return the best value as printed, or None where no direction is better or all look equal.

    Compared as printed, so that systems with the same digits are all marked, or none.
    """
    if not row.better or len({row.text(value) for value in values}) < 2:
        return None
    return row.text(min(values) if row.better == "lower" else max(values))


def _interval(row: MetricRow, entry: Mapping[str, float] | None) -> str:
    """Return the bootstrap interval, where there is one and it is more than a point."""
    if not entry or "low" not in entry:
        return ""
    low = row.text(entry["low"])
    high = row.text(entry["high"])
    return f"{low} to {high}" if low != high else ""


def auc_table(results: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the AUC of each class and their mean, for the systems with a classifier.

    Args:
        results: the content of ``results.json``.
        reports: the records of one system, whose reference labels give the positive studies.
    """
    systems = [system for system in results["systems"] if system["auc"]]
    if not systems:
        return {"titles": [], "rows": []}
    policy = results["stamp"]["uncertain_policy"]
    truth = positives([record["reference_labels"] for record in reports], policy)
    rows: list[dict[str, Any]] = []
    for label, studies in zip(LABELS, truth.sum(axis=0).tolist(), strict=True):
        cells = [_auc_cell(system["auc"][label]) for system in systems]
        rows.append({"title": label, "positives": studies, "total": False, "cells": cells})
    means = [system["metrics"].get("auc_macro", {}).get("value") for system in systems]
    cells = [_auc_cell(mean) for mean in means]
    rows.append({"title": "Mean (macro)", "positives": "", "total": True, "cells": cells})
    return {"titles": [system["title"] for system in systems], "rows": rows}


def _auc_cell(auc: float | None) -> dict[str, Any]:
    """Return an AUC and the width of its bar, per cent; the bar starts at chance, 0.5."""
    if auc is None:
        return {"value": "–", "width": 0}
    return {"value": f"{auc:.3f}", "width": round(200 * max(0.0, auc - 0.5))}
