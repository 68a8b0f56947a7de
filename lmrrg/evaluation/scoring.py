"""Scores of one system's reports: metrics in every text convention, reward, image use, collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmrrg.config.evaluation import EvaluationConfig
from lmrrg.config.reward import RewardConfig
from lmrrg.evaluation.finding_details import finding_details
from lmrrg.evaluation.operating_points import operating_curve
from lmrrg.evaluation.rows import OWN
from lmrrg.evaluation.study_set import EvaluationSet
from lmrrg.evaluation.systems import ImageUse, SystemReports
from lmrrg.metrics.backends import pair_scores
from lmrrg.metrics.bootstrap import Aggregate
from lmrrg.metrics.clinical import class_auc, positives
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.interfaces import Backend, PairScorer
from lmrrg.metrics.localisation import study_means
from lmrrg.metrics.parts import is_empty
from lmrrg.metrics.report_scores import ReportScores
from lmrrg.metrics.reward import RadCliQReward, RewardScores
from lmrrg.metrics.sanity import SanityFinding, check_reports
from lmrrg.metrics.suite import score_reports
from lmrrg.metrics.text.conventions import Convention
from lmrrg.metrics.text.ngram import NLG_METRICS
from lmrrg.studies import LABELS, Section, Split

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ScoringSetup:
    """How the reports of an evaluation are scored; the same for every system that is compared."""

    conventions: Mapping[str, Convention]
    """Text conventions by name; "raw" is always among them."""
    backend: Backend
    reward: RewardConfig
    evaluation: EvaluationConfig
    section: Section
    split: Split
    seed: int
    """Seed of the bootstrap."""
    own_metrics: Mapping[str, PairScorer] = field(default_factory=dict)
    """The functions of ``evaluation.extra_metrics`` by name."""


@dataclass(frozen=True)
class ScoredSystem:
    """A system with everything that was measured on its reports."""

    system: SystemReports
    scores: Mapping[str, ReportScores]
    """Scores by convention. "raw" has the clinical metrics, which always read untouched text."""
    reward: RewardScores
    labels: list[dict[str, int]]
    """The labels that the labeler reads from the generated reports."""
    study_values: Mapping[str, Values | Aggregate]
    """Further metrics: one value per study, some of a subset of the studies, or an aggregate."""
    auc: Mapping[str, float | None] | None
    """AUC of each class; None for a system without a classifier."""
    sanity: list[SanityFinding]
    operating_points: list[dict[str, Any]]
    """From :func:`~lmrrg.evaluation.operating_points.operating_curve`; empty without a curve."""


def score_system(
    system: SystemReports, evaluated: EvaluationSet, setup: ScoringSetup
) -> ScoredSystem:
    """Score one system in every convention.

    Raises:
        MetricError: see :func:`lmrrg.metrics.suite.score_reports`; ``judge_missing``, the judge
            of the reward left reports without a score.
    """
    # The reward of PPO, penalties included, also for systems that were not trained with it.
    reward = RadCliQReward(setup.reward, setup.backend).score(
        system.reports, evaluated.references, None, system.finished
    )
    if reward.judge_missing.any():
        # A mean over the others would be the reward of an easier data set.
        raise MetricError(
            "judge_missing",
            f"the judge left {reward.judge_missing.sum()} of {len(reward.reward)} reports without "
            "a score: evaluate again, its answers so far are kept",
        )
    labels = [dict(found) for found in setup.backend.labeler.label(system.reports)]
    scores = {name: _report_scores(system, evaluated, name, setup) for name in setup.conventions}
    auc = None
    if system.probabilities is not None:
        policy = setup.evaluation.uncertain_policy
        auc = class_auc(evaluated.labels, system.probabilities, policy)
    use = system.image_use
    return ScoredSystem(
        system=system,
        scores=scores,
        reward=reward,
        labels=labels,
        study_values={
            **_study_values(system, evaluated, reward, labels, setup),
            **finding_details(evaluated.studies, system.reports),
        },
        auc=auc,
        sanity=check_reports(
            system.reports,
            evaluated.references,
            finished=system.finished,
            blank_image=use.blank if use else None,
            other_patient=use.other if use else None,
        ),
        operating_points=operating_curve(
            system.at_points, evaluated, setup.backend, setup.evaluation.uncertain_policy
        ),
    )


def metric_names(convention: str, evaluation: EvaluationConfig) -> list[str]:
    """Return the metrics to compute in a convention.

    These are the n-gram metrics, and for "raw" also those that no convention changes.
    """
    ngram = [metric for metric in NLG_METRICS if metric != "meteor" or evaluation.meteor]
    return ngram if convention != "raw" else ["radcliq", "clinical", "coherence", *ngram]


def _report_scores(
    system: SystemReports, evaluated: EvaluationSet, convention: str, setup: ScoringSetup
) -> ReportScores:
    scores = score_reports(
        evaluated.references,
        system.reports,
        convention=setup.conventions[convention],
        backend=setup.backend,
        study_ids=[study.id for study in evaluated.studies],
        reference_labels=evaluated.labels,
        metrics=metric_names(convention, setup.evaluation),
        uncertain_policy=setup.evaluation.uncertain_policy,
        section=setup.section,
        split=setup.split,
        bootstrap=setup.evaluation.bootstrap,
        seed=setup.seed,
    )
    # An evaluation is about RadCliQ, which reads English only; `lmrrg score` still counts words.
    if scores.unscored:
        raise MetricError("unreadable", "no reference is an English report of the chest")
    return scores


def _study_values(
    system: SystemReports,
    evaluated: EvaluationSet,
    reward: RewardScores,
    labels: Sequence[Mapping[str, int]],
    setup: ScoringSetup,
) -> dict[str, Values]:
    """Return the metrics that :func:`score_reports` does not compute, one value per study."""
    found = positives(labels, setup.evaluation.uncertain_policy)
    is_finding = [label != "No Finding" for label in LABELS]
    values: dict[str, ArrayLike] = {
        "reward": reward.reward,
        "all_normal": ~found[:, is_finding].any(axis=1),
        "unfinished": [not finished for finished in system.finished],
        "empty": [is_empty(text) for text in system.reports],
    }
    # The mean over no study would be NaN, which a results file cannot hold.
    if any(evaluated.abnormal):
        values["reward_abnormal"] = reward.reward[evaluated.abnormal]
    for name, scorer in setup.own_metrics.items():
        values[OWN + name] = _own_values(name, scorer, system.reports, evaluated.references)
    if system.image_use is not None:
        values |= _image_use_values(system.reports, system.image_use)
    if system.localisation:
        for name, means in study_means(system.localisation).items():
            values[f"region_{name}"] = means
    return {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}


def _own_values(
    name: str, scorer: PairScorer, reports: Sequence[str], references: Sequence[str]
) -> Values:
    values = pair_scores(scorer, name, reports, references)
    missing = int((~np.isfinite(values)).sum())
    if missing:
        # A mean over the others would be the score of an easier data set.
        raise MetricError(
            "own_code", f"{name} has no number for {missing} of {len(values)} reports"
        )
    return values


def _image_use_values(reports: Sequence[str], use: ImageUse) -> dict[str, ArrayLike]:
    return {
        "changed_blank": _changed(reports, use.blank),
        "changed_other": _changed(reports, use.other),
        "nll_right": use.nll_right,
        "nll_gap": use.nll_other - use.nll_right,
    }


def _changed(reports: Sequence[str], others: Sequence[str]) -> list[bool]:
    return [report != other for report, other in zip(reports, others, strict=True)]
