"""The records of an evaluation in ``results.json`` and in the report files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.anatomy import REGIONS
from lmrrg.evaluation.rows import ScoreNames
from lmrrg.evaluation.scoring import ScoredSystem, ScoringSetup
from lmrrg.evaluation.study_set import EvaluationSet
from lmrrg.files import atomic_writer
from lmrrg.metrics.bootstrap import bootstrap_ci, compare
from lmrrg.metrics.clinical import positives
from lmrrg.metrics.localisation import region_means
from lmrrg.metrics.report_scores import compare_systems, finite_or_none
from lmrrg.metrics.text.ngram import NLG_METRICS
from lmrrg.studies import LABELS

_COHERENCE_MARGIN = 0.01
"""How much lower the share of coherent reports may be after PPO."""


def system_record(scored: ScoredSystem, setup: ScoringSetup) -> dict[str, Any]:
    """Return the record of one system in ``results.json``."""
    system = scored.system
    raw = scored.scores["raw"]
    classes = raw.classes[setup.evaluation.uncertain_policy]
    return {
        "name": system.name,
        "title": system.title,
        "checkpoint": system.checkpoint,
        "is_oracle": system.is_oracle,
        "metrics": _metrics(scored, setup),
        # The table of the chosen policy only; the F1 metrics above have both.
        "classes": {label: asdict(score) for label, score in classes.items()},
        "auc": None if scored.auc is None else dict(scored.auc),
        "localisation": region_means(system.localisation, REGIONS) if system.localisation else None,
        "texts": dict(raw.texts),
        "operating_points": scored.operating_points,
        "sanity": [asdict(finding) for finding in scored.sanity],
    }


def compare_records(a: ScoredSystem, b: ScoredSystem, setup: ScoringSetup) -> dict[str, Any]:
    """Compare system A with system B on the same studies.

    Each metric has the difference A minus B, its interval and two p-values.
    """
    table: dict[str, Any] = {}
    for convention in a.scores:
        compared = compare_systems(a.scores[convention], b.scores[convention], seed=setup.seed)
        for metric, comparison in compared.items():
            table[_key(convention, metric)] = asdict(comparison)
    for metric, values in a.study_values.items():
        if metric in b.study_values:
            comparison = compare(
                values,
                b.study_values[metric],
                resamples=setup.evaluation.bootstrap,
                seed=setup.seed,
            )
            table[metric] = asdict(comparison)
    return {"a": a.system.name, "b": b.system.name, "metrics": table}


def guard_records(
    sft: Mapping[str, Any],
    ppo: Mapping[str, Any],
    comparison: Mapping[str, Any],
    uncertain_policy: str,
    backend: str,
) -> list[dict[str, Any]]:
    """Check that PPO's gain is real, and that no other metric paid for it.

    Without an abnormal study there is no guard about abnormal studies.

    Args:
        sft: the :func:`system_record` of SFT.
        ppo: the :func:`system_record` of PPO.
        comparison: the :func:`compare_records` of PPO and SFT.
        uncertain_policy: the policy of the F1 metrics.
        backend: name of the metric backend.

    Returns:
        Records with ``title``, ``sft``, ``ppo`` and ``ok``.
    """
    before = sft["metrics"]
    after = ppo["metrics"]
    # A clinical score can rise while the model collapses to a few reports, or to normal ones.
    titles = {
        "distinct_ratio": "Distinct-report ratio no lower",
        "reward_abnormal": "Reward on abnormal studies no lower",
        f"micro_f1_14_uncertain_{uncertain_policy}": "14-class F1 (micro) no lower",
        f"macro_f1_14_uncertain_{uncertain_policy}": "14-class F1 (macro) no lower",
    }
    guards = [
        {
            "title": f"Mean {ScoreNames.of(backend).radcliq} lower, 95% interval without 0",
            "sft": before["radcliq_v1"]["value"],
            "ppo": after["radcliq_v1"]["value"],
            "ok": comparison["metrics"]["radcliq_v1"]["high"] < 0,
        }
    ]
    for metric, title in titles.items():
        if metric in before and metric in after:
            old = before[metric]["value"]
            new = after[metric]["value"]
            guards.append({"title": title, "sft": old, "ppo": new, "ok": new >= old})
    old = before["coherence"]["value"]
    new = after["coherence"]["value"]
    guards.append(
        {
            "title": "Share of coherent reports at most 1 point lower",
            "sft": old,
            "ppo": new,
            # Both are counts divided by the same number: without a margin for rounding, a
            # difference of exactly 1 point might fail.
            "ok": new >= old - _COHERENCE_MARGIN - 1e-9,
        }
    )
    return guards


def beaten_by_a_constant(systems: Sequence[Mapping[str, Any]], backend: str) -> list[str]:
    """Return a sentence for each trained system that scores no better than one constant report.

    Args:
        systems: the :func:`system_record` of each system.
        backend: name of the metric backend.
    """
    constants = [
        system["metrics"]["radcliq_v1"]["value"]
        for system in systems
        if system["name"] in ("constant", "best_constant")
    ]
    if not constants:  # one checkpoint alone
        return []
    best = min(constants)
    metric = ScoreNames.of(backend).radcliq
    sentences = []
    for system in systems:
        value = system["metrics"]["radcliq_v1"]["value"]
        if system["checkpoint"] and value >= best:
            sentences.append(
                f"{system['title']} is no better than one report for everybody: "
                f"{metric} {value:.3f}, the best constant report has {best:.3f}."
            )
    return sentences


def failed_checks(systems: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the title and message of each failed sanity check of the trained systems.

    A constant report fails the checks by design, so those of the baselines are left out.
    """
    return [
        f"{system['title']}: {finding['message']}"
        for system in systems
        if system["checkpoint"]
        for finding in system["sanity"]
    ]


def write_reports(path: Path, scored: ScoredSystem, evaluated: EvaluationSet) -> None:
    """Write one JSON record per study: report, reference, scores, and the labels of both."""
    raw = scored.scores["raw"]
    probabilities = scored.system.probabilities
    with atomic_writer(path) as out:
        for row, study in enumerate(evaluated.studies):
            record: dict[str, Any] = {
                "id": study.id,
                "notice": RESEARCH_USE_ONLY,
                "report": scored.system.reports[row],
                "reference": evaluated.references[row],
                "finished": scored.system.finished[row],
                "labels": scored.labels[row],
                "reference_labels": evaluated.labels[row],
                "backend": raw.stamp.backend,
                "reward": float(scored.reward.reward[row]),
            }
            for metric in ("radcliq_v1", "radgraph", "bertscore", "semb", "coherence"):
                record[metric] = finite_or_none(raw.columns[metric][row])
            if probabilities is not None:
                record["probabilities"] = dict(
                    zip(LABELS, probabilities[row].tolist(), strict=True)
                )
            # A text of a real data set may have any character; escapes would make it unreadable.
            out.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def _metrics(scored: ScoredSystem, setup: ScoringSetup) -> dict[str, dict[str, float]]:
    """Return every metric of a system: ``value``, and ``low`` and ``high`` where it is a mean."""
    table: dict[str, dict[str, float]] = {}
    for convention, scores in scored.scores.items():
        for metric, interval in scores.intervals.items():
            table[_key(convention, metric)] = asdict(interval)
    for metric, values in scored.study_values.items():
        interval = bootstrap_ci(values, resamples=setup.evaluation.bootstrap, seed=setup.seed)
        table[metric] = asdict(interval)
    for metric in ("distinct_reports", "distinct_ratio", "mean_words"):
        table[metric] = {"value": float(scored.scores["raw"].texts[metric])}
    table["distinct_finding_sets"] = {"value": float(_finding_sets(scored, setup))}
    # A class without positive or without negative studies has no AUC.
    known = [auc for auc in (scored.auc or {}).values() if auc is not None]
    if known:
        table["auc_macro"] = {"value": float(np.mean(known))}
    return table


def _finding_sets(scored: ScoredSystem, setup: ScoringSetup) -> int:
    """Return how many different sets of findings the reports name; none is a set, too."""
    found = positives(scored.labels, setup.evaluation.uncertain_policy)
    is_finding = [label != "No Finding" for label in LABELS]
    return len(np.unique(found[:, is_finding], axis=0))


def _key(convention: str, metric: str) -> str:
    """Return the name of a metric in the results; n-gram metrics carry their convention."""
    return f"{convention}.{metric}" if metric in NLG_METRICS else metric
