"""From reports to results: scores, intervals, the comparison of PPO with SFT, and the files they are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.anatomy import REGIONS
from lmrrg.config.tree import Config
from lmrrg.evaluation.rows import ScoreNames, metric_groups, signed
from lmrrg.evaluation.systems import EvaluationSet, SystemReports
from lmrrg.files import atomic_writer
from lmrrg.metrics.bootstrap import bootstrap_ci, compare
from lmrrg.metrics.clinical import class_auc, positives
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.localisation import region_means, study_means
from lmrrg.metrics.parts import is_empty
from lmrrg.metrics.report_scores import ReportScores, compare_systems
from lmrrg.metrics.reward import RadCliQReward, RewardScores
from lmrrg.metrics.sanity import SanityFinding, check_reports
from lmrrg.metrics.suite import score_reports
from lmrrg.metrics.text.conventions import Convention
from lmrrg.metrics.text.ngram import NLG_METRICS
from lmrrg.studies import LABELS

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredSystem:
    """A system with everything that was measured on its reports."""

    system: SystemReports
    scores: Mapping[str, ReportScores]
    """By convention; the clinical metrics are in "raw" only, since they read the untouched text in any convention."""
    reward: RewardScores
    labels: list[dict[str, int]]
    """What the labeler reads from the generated reports."""
    extra: Mapping[str, Values]
    """Further metrics as one value per study; those of abnormal studies only are shorter."""
    auc: Mapping[str, float | None] | None
    sanity: list[SanityFinding]


def score_system(
    system: SystemReports,
    data: EvaluationSet,
    conventions: Mapping[str, Convention],
    backend: Backend,
    config: Config,
) -> ScoredSystem:
    """Score one system in every convention.

    Raises:
        MetricError: see :func:`lmrrg.metrics.suite.score_reports`.
    """
    reward = RadCliQReward(config.reward, backend).score(
        system.reports, data.references, None, system.finished
    )
    labels = [dict(found) for found in backend.labeler.label(system.reports)]
    policy = config.evaluation.uncertain_policy
    use = system.image_use
    return ScoredSystem(
        system=system,
        scores={
            name: score_reports(
                data.references,
                system.reports,
                convention=convention,
                backend=backend,
                study_ids=[study.id for study in data.studies],
                reference_labels=data.labels,
                metrics=_metric_names(name, config),
                uncertain_policy=policy,
                section=config.data.section,
                split=config.data.eval_split,
                bootstrap=config.evaluation.bootstrap,
                seed=config.seed,
            )
            for name, convention in conventions.items()
        },
        reward=reward,
        labels=labels,
        extra=_extra(system, data, reward, labels, config),
        auc=None
        if system.probabilities is None
        else class_auc(data.labels, system.probabilities, policy),
        sanity=check_reports(
            system.reports,
            data.references,
            finished=system.finished,
            blank_image=use.blank if use else None,
            other_patient=use.other if use else None,
        ),
    )


def system_record(scored: ScoredSystem, config: Config) -> dict[str, Any]:
    """One system in results.json."""
    system, raw = scored.system, scored.scores["raw"]
    return {
        "name": system.name,
        "title": system.title,
        "checkpoint": system.checkpoint,
        "metrics": _metrics(scored, config),
        "classes": {
            label: asdict(score)
            for label, score in raw.classes[config.evaluation.uncertain_policy].items()
        },
        "auc": None if scored.auc is None else dict(scored.auc),
        "localisation": region_means(system.localisation, REGIONS) if system.localisation else None,
        "texts": dict(raw.texts),
        "sanity": [asdict(finding) for finding in scored.sanity],
    }


def compare_records(a: ScoredSystem, b: ScoredSystem, config: Config) -> dict[str, Any]:
    """System A minus system B on the same studies: difference, interval and two p-values of every metric."""
    table: dict[str, Any] = {}
    for name in a.scores:
        compared = compare_systems(a.scores[name], b.scores[name], seed=config.seed)
        table |= {_key(name, metric): asdict(value) for metric, value in compared.items()}
    for metric in a.extra.keys() & b.extra.keys():
        resamples = config.evaluation.bootstrap
        compared_extra = compare(
            a.extra[metric], b.extra[metric], resamples=resamples, seed=config.seed
        )
        table[metric] = asdict(compared_extra)
    return {"a": a.system.name, "b": b.system.name, "metrics": table}


def guard_records(
    sft: ScoredSystem, ppo: ScoredSystem, comparison: Mapping[str, Any], config: Config
) -> list[Any]:
    """Whether PPO's gain is real and was not bought with collapse: a list of ``title``, ``sft``, ``ppo``, ``ok``.

    Without any abnormal study there is no guard about them.
    """
    before, after = _metrics(sft, config), _metrics(ppo, config)
    policy = config.evaluation.uncertain_policy
    wanted = {
        "distinct_ratio": "Distinct-report ratio no lower",
        "reward_abnormal": "Reward on abnormal studies no lower",
        f"micro_f1_14_uncertain_{policy}": "14-class F1 (micro) no lower",
        f"macro_f1_14_uncertain_{policy}": "14-class F1 (macro) no lower",
    }
    radcliq = comparison["metrics"]["radcliq_v1"]
    return [
        {
            "title": f"Mean {_backend_names(ppo).radcliq} lower, 95% interval without 0",
            "sft": before["radcliq_v1"]["value"],
            "ppo": after["radcliq_v1"]["value"],
            "ok": radcliq["high"] < 0,
        },
        *[
            {
                "title": title,
                "sft": before[key]["value"],
                "ppo": after[key]["value"],
                "ok": after[key]["value"] >= before[key]["value"],
            }
            for key, title in wanted.items()
            if key in before and key in after
        ],
    ]


def write_reports(path: Path, scored: ScoredSystem, data: EvaluationSet) -> None:
    """Write what a system wrote, one JSON record per study, with its scores and the labels of both sides."""
    columns = scored.scores["raw"].columns
    shown = ("radcliq_v1", "radgraph", "bertscore", "semb")
    with atomic_writer(path) as out:
        for row, study in enumerate(data.studies):
            record: dict[str, Any] = {
                "id": study.id,
                "notice": RESEARCH_USE_ONLY,
                "report": scored.system.reports[row],
                "reference": data.references[row],
                "finished": scored.system.finished[row],
                "labels": scored.labels[row],
                "reference_labels": data.labels[row],
                "backend": scored.scores["raw"].stamp.backend,
                "reward": float(scored.reward.reward[row]),
                **{name: float(columns[name][row]) for name in shown},
            }
            if scored.system.probabilities is not None:
                record["probabilities"] = dict(
                    zip(LABELS, scored.system.probabilities[row].tolist(), strict=True)
                )
            out.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def results_table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table, metrics down and systems across, with intervals."""
    stamp, systems = results["stamp"], results["systems"]
    lines = [
        f"**{results['notice']}**",
        "",
        f"{stamp['studies']} studies of split {stamp['split']}, section {stamp['section']}, "
        f"backend {stamp['backend']['name']}, seed {stamp['seed']}; 95% bootstrap intervals in brackets.",
    ]
    for title, rows in metric_groups(stamp["uncertain_policy"], stamp["backend"]["name"]):
        present = [row for row in rows if any(row.key in system["metrics"] for system in systems)]
        if not present:
            continue
        lines += [
            "",
            f"| {title} | " + " | ".join(s["title"] for s in systems) + " |",
            "|---" * (len(systems) + 1) + "|",
        ]
        for row in present:
            cells = [_cell(row.text, system["metrics"].get(row.key)) for system in systems]
            arrow = {"lower": " ↓", "higher": " ↑", "": ""}[row.better]
            lines.append(f"| {row.title}{arrow} | " + " | ".join(cells) + " |")
    lines += _region_lines([system for system in systems if system.get("localisation")])
    return "\n".join(lines + _comparison_lines(results)) + "\n"


def _region_lines(systems: Sequence[Mapping[str, Any]]) -> list[str]:
    """Region by region: attention inside it and the pointing game, each with its level of chance."""
    if not systems:
        return []
    titles = [
        f"{one['title']}, {what}" for one in systems for what in ("attention inside", "pointing")
    ]
    lines = [
        "",
        "| Region (chance) | studies | " + " | ".join(titles) + " |",
        "|---" * (len(titles) + 2) + "|",
    ]
    for name, row in systems[0]["localisation"].items():
        found = [one["localisation"][name] for one in systems]
        cells = [
            f"{100 * r[k]:.1f}% ({100 * r[f'{k}_chance']:.1f}%)"
            for r in found
            for k in ("mass", "pointing")
        ]
        lines.append(f"| {name} | {row['studies']} | " + " | ".join(cells) + " |")
    return lines


def _comparison_lines(results: Mapping[str, Any]) -> list[str]:
    if not results.get("comparison"):
        return []
    value = results["comparison"]["metrics"]["radcliq_v1"]
    lines = [
        "",
        f"PPO − SFT, mean {results['stamp']['metric_title']}: {signed(value['difference'], plus=True)} "
        f"(95% interval {signed(value['low'], plus=True)} to {signed(value['high'], plus=True)}, "
        f"permutation p {value['p_permutation']:.4f}; lower is better)",
        "",
    ]
    for guard in results["guards"]:
        verdict = "yes" if guard["ok"] else "NO"
        lines.append(
            f"- {guard['title']}: **{verdict}** (SFT {signed(guard['sft'])}, PPO {signed(guard['ppo'])})"
        )
    return lines


def _cell(text: Any, entry: Mapping[str, float] | None) -> str:
    if entry is None:
        return "–"
    interval = f" [{text(entry['low'])}, {text(entry['high'])}]" if "low" in entry else ""
    return text(entry["value"]) + interval


def _metrics(scored: ScoredSystem, config: Config) -> dict[str, dict[str, float]]:
    table = {
        _key(name, metric): asdict(interval)
        for name, scores in scored.scores.items()
        for metric, interval in scores.intervals.items()
    }
    for metric, values in scored.extra.items():
        table[metric] = asdict(
            bootstrap_ci(values, resamples=config.evaluation.bootstrap, seed=config.seed)
        )
    facts = scored.scores["raw"].texts
    table |= {
        name: {"value": float(facts[name])}
        for name in ("distinct_reports", "distinct_ratio", "mean_words")
    }
    known = [value for value in (scored.auc or {}).values() if value is not None]
    return table | ({"auc_macro": {"value": float(np.mean(known))}} if known else {})


def _backend_names(scored: ScoredSystem) -> ScoreNames:
    return ScoreNames.of(str(scored.scores["raw"].stamp.backend))


def _metric_names(convention: str, config: Config) -> list[str]:
    """The n-gram metrics in every convention, the others once."""
    ngram = [metric for metric in NLG_METRICS if metric != "meteor" or config.evaluation.meteor]
    return ngram if convention != "raw" else ["radcliq", "clinical", *ngram]


def _key(convention: str, metric: str) -> str:
    """N-gram metrics carry their convention."""
    return f"{convention}.{metric}" if metric in NLG_METRICS else metric


def _extra(
    system: SystemReports,
    data: EvaluationSet,
    reward: RewardScores,
    labels: Sequence[Mapping[str, int]],
    config: Config,
) -> dict[str, Values]:
    found = positives(labels, config.evaluation.uncertain_policy)
    findings = [label != "No Finding" for label in LABELS]
    values: dict[str, Any] = {
        "reward": reward.reward,
        "all_normal": ~found[:, findings].any(axis=1),
        "unfinished": [not end for end in system.finished],
        "empty": [is_empty(text) for text in system.reports],
    }
    if any(data.abnormal):
        values["reward_abnormal"] = reward.reward[data.abnormal]
    if system.image_use is not None:
        use = system.image_use
        values["changed_blank"] = [a != b for a, b in zip(system.reports, use.blank, strict=True)]
        values["changed_other"] = [a != b for a, b in zip(system.reports, use.other, strict=True)]
        values["nll_right"] = use.nll_right
        values["nll_gap"] = use.nll_other - use.nll_right
    if system.localisation:
        values |= {
            f"region_{name}": column for name, column in study_means(system.localisation).items()
        }
    return {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}
