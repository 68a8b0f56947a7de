"""The run report: one self-contained HTML page, made from the files of a run and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors.numpy import load_file

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.evaluation.evaluate import read_results
from lmrrg.evaluation.examples import REGION_RULE
from lmrrg.evaluation.rows import NOTES, MetricRow, ScoreNames, metric_groups, signed
from lmrrg.evaluation.systems import EvaluationError
from lmrrg.files import atomic_writer
from lmrrg.manifest import read_studies
from lmrrg.metrics.clinical import positives
from lmrrg.run.layout import RunLayout
from lmrrg.run_report.audit import audit_studies
from lmrrg.run_report.charts import interval_chart
from lmrrg.run_report.curves import training_curves
from lmrrg.run_report.examples import example_cards
from lmrrg.studies import LABELS

_ARROWS = {"lower": "↓", "higher": "↑", "": ""}


def write_report(run_dir: Path, config: Config | None = None) -> Path:
    """Write ``run_dir/report.html`` and return its path; needs a finished evaluation.

    ``config`` defaults to the one saved with the run.

    Raises:
        EvaluationError: ``no_results``, ``bad_results`` or ``no_comparison``.
        StudyError: the manifest is missing or damaged. ImageError: an example's image is unreadable.
    """
    layout = RunLayout(Path(run_dir))
    config = config or load_config(layout.settings)
    results = read_results(layout.results)
    if not results.get("comparison"):
        raise EvaluationError("no_comparison", f"{run_dir} has no comparison of SFT and PPO")
    page = _environment().get_template("report.html").render(_context(layout, config, results))
    with atomic_writer(layout.report) as out:
        out.write(page)
    return layout.report


def _context(layout: RunLayout, config: Config, results: Mapping[str, Any]) -> dict[str, Any]:
    stamp, systems = results["stamp"], results["systems"]
    studies = read_studies(layout.studies)
    reports = {name: _read_reports(layout.reports(name)) for name in ("sft", "ppo")}
    attention = load_file(layout.region_attention)["attention"]
    titles = {system["name"]: system["title"] for system in systems}
    return {
        "run": _read_json(layout.record),
        "stamp": stamp,
        "created": f"{datetime.fromisoformat(stamp['created']):%d %B %Y, %H:%M} UTC",
        "systems": systems,
        "headline": _headline(results),
        "guards": [
            guard | {"sft": signed(guard["sft"]), "ppo": signed(guard["ppo"])}
            for guard in results["guards"]
        ],
        "warnings": [
            f"{system['title']}: {finding['message']}"
            for system in systems
            if system["checkpoint"]
            for finding in system["sanity"]
        ],
        "groups": _table(results),
        "notes": [{"title": title, "text": text} for title, text in NOTES],
        "auc": _auc_table(results, list(reports["ppo"].values())),
        "curves": training_curves(layout.root, ScoreNames.of(stamp["backend"]["name"])),
        "example_rule": results["examples"]["rule"],
        "region_rule": REGION_RULE,
        "attention_system": titles[results["examples"]["attention"]],
        "examples": example_cards(
            results["examples"]["ids"], studies, reports, titles, attention, stamp
        ),
        "audit": audit_studies(studies, stamp["section"], _read_json(layout.studies_audit)),
        "config_yaml": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        "stamp_json": json.dumps(stamp, indent=2),
    }


def _environment() -> Environment:
    # Report texts and study ids are foreign text: everything is escaped unless it is Markup of our own charts.
    return Environment(
        loader=PackageLoader("lmrrg.run_report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _headline(results: Mapping[str, Any]) -> dict[str, Any]:
    value = results["comparison"]["metrics"]["radcliq_v1"]
    label = f"PPO − SFT, mean {results['stamp']['metric_title']} (left is better)"
    means = {
        system["name"]: system["metrics"]["radcliq_v1"]["value"] for system in results["systems"]
    }
    if value["high"] < 0:
        kind, title = "better", "PPO writes clinically better reports than SFT"
    elif value["low"] > 0:
        kind, title = "worse", "PPO writes clinically worse reports than SFT"
    else:
        kind, title = "open", "No difference between PPO and SFT could be shown"
    return {
        "kind": kind,
        "title": title,
        "difference": signed(value["difference"], plus=True),
        "low": signed(value["low"], plus=True),
        "high": signed(value["high"], plus=True),
        "p_bootstrap": _p_value(value["p_bootstrap"], results["stamp"]["bootstrap"]),
        "p_permutation": _p_value(value["p_permutation"], results["stamp"]["bootstrap"]),
        "sft": signed(means["sft"]),
        "ppo": signed(means["ppo"]),
        "chart": interval_chart(value["difference"], value["low"], value["high"], label),
    }


def _p_value(p: float, resamples: int) -> str:
    """A p-value as far as its resamples can tell."""
    return f"< {1 / resamples:.2g}" if p < 1 / resamples else f"= {p:.2g}"


def _table(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    stamp, systems = results["stamp"], results["systems"]
    groups = []
    for title, rows in metric_groups(stamp["uncertain_policy"], stamp["backend"]["name"]):
        present = [row for row in rows if any(row.key in system["metrics"] for system in systems)]
        if present:
            groups.append({"title": title, "rows": [_table_row(row, systems) for row in present]})
    return groups


def _table_row(row: MetricRow, systems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entries = [system["metrics"].get(row.key) for system in systems]
    texts = [row.text(entry["value"]) if entry else "–" for entry in entries]
    values = [entry["value"] for entry in entries if entry]
    best = None
    if row.better and len({row.text(value) for value in values}) > 1:
        best = row.text(min(values) if row.better == "lower" else max(values))
    return {
        "title": row.title,
        "better": row.better,
        "arrow": _ARROWS[row.better],
        "cells": [
            {"value": text, "interval": _interval(row, entry), "best": text == best}
            for text, entry in zip(texts, entries, strict=True)
        ],
    }


def _interval(row: MetricRow, entry: Mapping[str, float] | None) -> str:
    """The bootstrap interval, where there is one and it is more than a point."""
    if not entry or "low" not in entry:
        return ""
    low, high = row.text(entry["low"]), row.text(entry["high"])
    return f"{low} to {high}" if low != high else ""


def _auc_table(results: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    systems = [system for system in results["systems"] if system["auc"]]
    truth = positives(
        [record["reference_labels"] for record in reports], results["stamp"]["uncertain_policy"]
    )
    rows = [
        {
            "title": label,
            "positives": int(truth[:, i].sum()),
            "total": False,
            "cells": [_auc_cell(s["auc"][label]) for s in systems],
        }
        for i, label in enumerate(LABELS)
    ]
    means = [s["metrics"].get("auc_macro", {}).get("value") for s in systems]
    rows.append(
        {
            "title": "Mean (macro)",
            "positives": "",
            "total": True,
            "cells": [_auc_cell(mean) for mean in means],
        }
    )
    return {"titles": [system["title"] for system in systems], "rows": rows if systems else []}


def _auc_cell(value: float | None) -> dict[str, Any]:
    """The bar starts at chance, 0.5."""
    return (
        {"value": "–", "width": 0}
        if value is None
        else {"value": f"{value:.3f}", "width": _above_chance(value)}
    )


def _above_chance(auc: float) -> int:
    return round(200 * max(0.0, auc - 0.5))


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_reports(path: Path) -> dict[str, dict[str, Any]]:
    with path.open(
        encoding="utf-8"
    ) as lines:  # not splitlines(), which also splits at separators inside a text
        records = [json.loads(line) for line in lines]
    return {record["id"]: record for record in records}
