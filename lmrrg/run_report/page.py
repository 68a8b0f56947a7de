"""The run report: one self-contained HTML page, made only from the files of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors.numpy import load_file

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.evaluate import read_results
from lmrrg.evaluation.examples import REGION_RULE
from lmrrg.evaluation.results import beaten_by_a_constant, failed_checks
from lmrrg.evaluation.rows import NOTES, ScoreNames, signed
from lmrrg.files import atomic_writer
from lmrrg.manifest import read_studies
from lmrrg.model.checkpoint import EYE
from lmrrg.policy.credited_reports import read_credited
from lmrrg.run.layout import RunLayout
from lmrrg.run.record import sft_of_run
from lmrrg.run_report.audit import audit_studies
from lmrrg.run_report.charts import interval_chart
from lmrrg.run_report.credit import credit_section
from lmrrg.run_report.curves import training_curves
from lmrrg.run_report.examples import example_cards, example_groups
from lmrrg.run_report.eye import eye_section
from lmrrg.run_report.operating_points import operating_curves
from lmrrg.run_report.tables import auc_table, metric_table

_SHOWN = ("best_constant", "sft", "ppo")
"""The systems whose reports stand beside the reference in the examples."""


def write_report(run_dir: Path, config: Config | None = None) -> Path:
    """Write ``run_dir/report.html`` of an evaluated run and return its path.

    Args:
        run_dir: folder of the run.
        config: settings to show; by default those saved with the run.

    Raises:
        EvaluationError: ``no_results``, ``bad_results`` or ``no_comparison``.
        StudyError: the manifest is missing or damaged.
        ImageError: the image of an example cannot be read.
        FeatureError: ``encoder_weights``, the eye in the SFT model is damaged.
        PPOError: ``credited_reports``, the file of PPO's credited reports is damaged.
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
    """Return the variables of the template, everything already formatted as text."""
    stamp = results["stamp"]
    systems = results["systems"]
    examples = results["examples"]
    studies = read_studies(layout.studies)
    reports = {name: _read_reports(layout.reports(name)) for name in _SHOWN}
    attention = load_file(layout.region_attention)["attention"]
    titles = {system["name"]: system["title"] for system in systems}
    imported = _read_json(layout.studies_audit)
    return {
        "run": _read_json(layout.record),
        "stamp": stamp,
        "created": f"{datetime.fromisoformat(stamp['created']):%d %B %Y, %H:%M} UTC",
        "systems": systems,
        "headline": _headline(results),
        "guards": _guards(results),
        "warnings": failed_checks(systems),
        "groups": metric_table(results),
        "left_out": results["left_out"],
        "notes": [{"title": title, "text": text} for title, text in NOTES],
        "auc": auc_table(results, list(reports["ppo"].values())),
        "operating": operating_curves(systems, stamp["metric_title"]),
        "eye": eye_section(sft_of_run(layout.root) / EYE),
        "curves": training_curves(layout.root, ScoreNames.of(stamp["backend"]["name"])),
        "example_rule": examples["rule"],
        "region_rule": REGION_RULE,
        "attention_system": titles[examples["attention"]],
        "example_groups": example_groups(
            examples["groups"],
            example_cards(examples["ids"], studies, reports, titles, attention, stamp, config.data),
        ),
        "credit": credit_section(read_credited(layout.ppo_credited)),
        "audit": audit_studies(studies, stamp["section"], imported),
        "config_yaml": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        "stamp_json": json.dumps(stamp, indent=2),
    }


def _environment() -> Environment:
    # Report texts and study ids come from outside: everything is escaped except the Markup of our
    # own charts. A missing variable is an error, so that nothing disappears from the page silently.
    return Environment(
        loader=PackageLoader("lmrrg.run_report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _headline(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the main result: a verdict that claims no more than the interval shows."""
    stamp = results["stamp"]
    value = results["comparison"]["metrics"]["radcliq_v1"]
    means = {
        system["name"]: system["metrics"]["radcliq_v1"]["value"] for system in results["systems"]
    }
    # Lower is better, so an interval below zero is in favour of PPO.
    if value["high"] < 0:
        kind = "better"
        title = "PPO writes clinically better reports than SFT"
    elif value["low"] > 0:
        kind = "worse"
        title = "PPO writes clinically worse reports than SFT"
    else:
        kind = "open"
        title = "No difference between PPO and SFT could be shown"
    label = f"PPO − SFT, mean {stamp['metric_title']} (left is better)"
    return {
        "kind": kind,
        "beaten": beaten_by_a_constant(results["systems"], stamp["backend"]["name"]),
        "title": title,
        "difference": signed(value["difference"], plus=True),
        "low": signed(value["low"], plus=True),
        "high": signed(value["high"], plus=True),
        "p_bootstrap": _p_value(value["p_bootstrap"], stamp["bootstrap"]),
        "p_permutation": _p_value(value["p_permutation"], stamp["bootstrap"]),
        "sft": signed(means["sft"]),
        "ppo": signed(means["ppo"]),
        "chart": interval_chart(
            value["difference"], value["low"], value["high"], label, chart_id="headline"
        ),
    }


def _p_value(p: float, resamples: int) -> str:
    """Return a p-value with the resolution of its resamples, e.g. "= 0.25" or "< 0.001"."""
    return f"< {1 / resamples:.2g}" if p < 1 / resamples else f"= {p:.2g}"


def _guards(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        guard | {"sft": signed(guard["sft"]), "ppo": signed(guard["ppo"])}
        for guard in results["guards"]
    ]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_reports(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of one system by study id."""
    # Not splitlines(): it also splits at separators such as U+2028 inside a report.
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {record["id"]: record for record in records}
