"""All metrics of one system in one call, stamped with every choice, and the comparison of two systems."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from lmrrg.files import atomic_writer
from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.bootstrap import Aggregate, Comparison, Interval, bootstrap_all, compare
from lmrrg.metrics.clinical import (
    UNCERTAIN_POLICIES,
    ClassScore,
    UncertainPolicy,
    class_table,
    f1_aggregates,
    positives,
)
from lmrrg.metrics.embedded.backend import RuleLabeler
from lmrrg.metrics.errors import MetricError, some_studies
from lmrrg.metrics.interfaces import Backend, Labeler, Labels
from lmrrg.metrics.parts import Array, Parts, is_empty
from lmrrg.metrics.radcliq import radcliq_v0, radcliq_v1
from lmrrg.metrics.text.conventions import Convention
from lmrrg.metrics.text.ngram import NLG_METRICS, nlg_scores
from lmrrg.studies import Section

RADCLIQ_METRICS = (*(part.name for part in fields(Parts)), "radcliq_v0", "radcliq_v1")
"""The metrics that a backend computes."""
CLINICAL_METRICS = tuple(
    f"{kind}_f1_{classes}_uncertain_{policy}"
    for policy in UNCERTAIN_POLICIES
    for classes in (14, 5)
    for kind in ("micro", "macro", "example")
)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "radcliq": RADCLIQ_METRICS,
    "clinical": CLINICAL_METRICS,
    "nlg": NLG_METRICS,
}
"""What may be asked for: a group's name or a single metric of it."""
METRIC_VERSIONS: Mapping[str, str] = {
    "radcliq": "v0 and v1 of Yu et al. 2023",
    "bleu": "pycocoevalcap 1.2",
    "rouge_l": "pycocoevalcap 1.2 (beta 1.2)",
    "meteor": "METEOR 1.5 (exact, stem, synonym, paraphrase; -l en -norm)",
    "cider": "CIDEr-D, pycocoevalcap 1.2 (sigma 6)",
    "bleu2": "RadCliQ tokenisation, smoothing 0.1",
    "f1": "scikit-learn, zero_division 0",
}
LOWER_IS_BETTER = frozenset({"radcliq_v0", "radcliq_v1"})


@dataclass(frozen=True)
class Stamp:
    """Every choice behind the numbers; two systems are comparable where their stamps are equal."""

    n: int
    section: str
    split: str
    convention: Mapping[str, object]
    backend: str | None
    backend_version: str | None
    reference_labels: str
    """ "labeler", or "given" where labels of the references were passed in."""
    labeler: str
    uncertain_policy: UncertainPolicy
    """The headline among the clinical metrics; both policies are always computed."""
    bootstrap: int
    seed: int
    versions: Mapping[str, str]
    """Of each metric's definition."""


@dataclass(frozen=True)
class ReportScores:
    """The scores of N reports of one system."""

    stamp: Stamp
    study_ids: tuple[str, ...]
    columns: Mapping[str, Array]
    """Per-report scores [N] by metric."""
    aggregates: Mapping[str, Aggregate]
    """Corpus-level metrics, ready to be resampled."""
    texts: Mapping[str, float]
    """Plain facts about the generated texts: distinct reports, empty reports, lengths in words."""
    classes: Mapping[str, Mapping[str, ClassScore]] = field(default_factory=dict)
    """Per-class scores by uncertain policy."""

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Every corpus-level metric with its bootstrap interval."""
        return bootstrap_all(self.aggregates, resamples=self.stamp.bootstrap, seed=self.stamp.seed)

    @cached_property
    def summary(self) -> dict[str, object]:
        """What goes into a results file: ``stamp``, ``metrics`` (value, low, high), ``classes`` and ``texts``."""
        metrics = {name: self._entry(name, interval) for name, interval in self.intervals.items()}
        if "radcliq_v1" in self.intervals:
            inverse = _inverse(self.intervals["radcliq_v1"])
            metrics["inverse_mean_radcliq_v1"] = inverse | {"backend": self.stamp.backend}
        classes = {
            policy: {label: asdict(score) for label, score in table.items()}
            for policy, table in self.classes.items()
        }
        return {
            "stamp": asdict(self.stamp),
            "metrics": metrics,
            "classes": classes,
            "texts": dict(self.texts),
        }

    @property
    def per_report(self) -> list[dict[str, object]]:
        """One record per report: ``study_id``, ``convention``, ``backend`` and ``backend_version`` as in the stamp, and
        every per-report metric."""
        stamp = self.stamp
        choices = {
            "convention": stamp.convention,
            "backend": stamp.backend,
            "backend_version": stamp.backend_version,
        }
        return [
            {"study_id": study_id}
            | choices
            | {name: float(column[row]) for name, column in self.columns.items()}
            for row, study_id in enumerate(self.study_ids)
        ]

    def save(self, path: Path) -> None:
        """Write :attr:`summary` as JSON, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path) as out:
            json.dump(self.summary, out, indent=2, allow_nan=False)
            out.write("\n")

    def save_per_report(self, path: Path) -> None:
        """Write :attr:`per_report` as JSONL, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path) as out:
            for record in self.per_report:
                out.write(json.dumps(record, allow_nan=False) + "\n")

    def _entry(self, name: str, interval: Interval) -> dict[str, object]:
        entry: dict[str, object] = asdict(interval)
        return entry | {"backend": self.stamp.backend} if name in RADCLIQ_METRICS else entry


def score_reports(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    convention: Convention,
    backend: Backend | None,
    study_ids: Sequence[str] | None = None,
    reference_labels: Sequence[Mapping[str, int]] | None = None,
    labeler: Labeler | None = None,
    metrics: Collection[str] | None = None,
    uncertain_policy: UncertainPolicy = "positive",
    section: Section | str = "unstated",
    split: str = "unstated",
    bootstrap: int = 1000,
    seed: int = 0,
) -> ReportScores:
    """Score one system's reports against the references, row by row.

    The convention changes what the n-gram metrics see; RadCliQ and the clinical metrics always read the untouched text.
    An empty hypothesis is allowed and scores worst. ``metrics`` holds names or :data:`GROUPS` (None: all);
    ``backend`` may be None where nothing of "radcliq" is asked for. ``reference_labels`` replace what the
    labeler (None: the backend's own, the rules without a backend) reads from the references.

    Raises:
        MetricError: ``length_mismatch``, ``no_studies``, ``missing_text`` (not a string), ``empty_reference``,
            ``duplicate_id``, ``unknown_metric``, ``no_metrics``, ``no_backend``, ``bad_bootstrap`` or ``unscored``
            (the backend gave up on a pair).
    """
    wanted = select_metrics(metrics)
    ids = (
        tuple(study_ids)
        if study_ids is not None
        else tuple(str(row) for row in range(len(references)))
    )
    if labeler is None:
        labeler = RuleLabeler() if backend is None else backend.labeler
    _check(references, hypotheses, ids, reference_labels)
    if bootstrap < 1:
        raise MetricError(
            "bad_bootstrap", f"{bootstrap} resamples give no interval: take 1 or more"
        )
    columns: dict[str, Array] = {}
    aggregates: dict[str, Aggregate] = {}
    classes: dict[str, dict[str, ClassScore]] = {}
    if wanted & set(RADCLIQ_METRICS):
        columns |= _radcliq_columns(backend, hypotheses, references)
        aggregates |= {name: Aggregate.mean(column) for name, column in columns.items()}
    if wanted & set(CLINICAL_METRICS):
        truth = labeler.label(references) if reference_labels is None else reference_labels
        scores, classes = _clinical(truth, labeler.label(hypotheses))
        aggregates |= scores
    if wanted & set(NLG_METRICS):
        seen = (
            [convention.hypothesis(text) for text in hypotheses],
            [convention.reference(text) for text in references],
        )
        nlg_columns, nlg_aggregates = nlg_scores(*seen, wanted)
        columns |= nlg_columns
        aggregates |= nlg_aggregates
    stamp = Stamp(
        n=len(references),
        section=section,
        split=split,
        convention=convention.describe(),
        backend=None if backend is None else backend.name,
        backend_version=None if backend is None else backend.version,
        reference_labels="given" if reference_labels is not None else "labeler",
        labeler=labeler.name,
        uncertain_policy=uncertain_policy,
        bootstrap=bootstrap,
        seed=seed,
        versions=METRIC_VERSIONS,
    )
    return ReportScores(
        stamp=stamp,
        study_ids=ids,
        columns={name: column for name, column in columns.items() if name in wanted},
        aggregates={name: aggregate for name, aggregate in aggregates.items() if name in wanted},
        texts=_text_facts(references, hypotheses),
        classes=classes,
    )


def compare_systems(a: ReportScores, b: ReportScores, *, seed: int = 0) -> dict[str, Comparison]:
    """Every metric of system A minus system B on the same studies, with paired intervals and tests.

    Raises:
        MetricError: ``not_comparable`` where the studies or a choice in the stamps differ.
    """
    ours, theirs = asdict(a.stamp), asdict(b.stamp)
    differing = [key for key, value in ours.items() if value != theirs[key]]
    if a.study_ids != b.study_ids:
        differing.append("study_ids")
    if differing:
        raise MetricError(
            "not_comparable", f"the two systems were scored with different {', '.join(differing)}"
        )
    resamples = a.stamp.bootstrap
    return {
        name: compare(a.aggregates[name], b.aggregates[name], resamples=resamples, seed=seed)
        for name in a.aggregates
        if name in b.aggregates
    }


def select_metrics(names: Collection[str] | None) -> frozenset[str]:
    """The metrics that ``names`` (groups or single metrics; None: all) stand for.

    Raises:
        MetricError: ``unknown_metric``, or ``no_metrics`` for an empty selection.
    """
    every = {metric for group in GROUPS.values() for metric in group}
    chosen: set[str] = set()
    for name in every if names is None else names:
        if name not in GROUPS and name not in every:
            allowed = ", ".join(
                [*GROUPS, *(metric for group in GROUPS.values() for metric in group)]
            )
            raise MetricError("unknown_metric", f"{name!r} is not one of {allowed}")
        chosen |= set(GROUPS.get(name, (name,)))
    if not chosen:
        raise MetricError(
            "no_metrics",
            f"no metric is selected; name groups ({', '.join(GROUPS)}) or single metrics",
        )
    return frozenset(chosen)


def _check(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str],
    labels: Sequence[Mapping[str, int]] | None,
) -> None:
    if not len(references) == len(hypotheses) == len(ids) or (
        labels is not None and len(labels) != len(ids)
    ):
        raise MetricError(
            "length_mismatch",
            f"{len(references)} references, {len(hypotheses)} hypotheses, {len(ids)} ids",
        )
    if not ids:
        raise MetricError("no_studies", "there is nothing to score")
    if len(set(ids)) != len(ids):
        raise MetricError("duplicate_id", f"{len(ids) - len(set(ids))} study ids occur twice")
    for what, texts in (("reference", references), ("hypothesis", hypotheses)):
        missing = [
            study for study, text in zip(ids, texts, strict=True) if not isinstance(text, str)
        ]
        if missing:
            raise MetricError(
                "missing_text", f"no {what} text (NaN or null) for {some_studies(missing)}"
            )
    empty = [study for study, text in zip(ids, references, strict=True) if is_empty(text)]
    if empty:
        raise MetricError("empty_reference", f"the reference is empty for {some_studies(empty)}")


def _radcliq_columns(
    backend: Backend | None, hypotheses: Sequence[str], references: Sequence[str]
) -> dict[str, Array]:
    if backend is None:
        raise MetricError("no_backend", "RadCliQ and its parts need a backend")
    parts = score_parts(backend, hypotheses, references)
    columns: dict[str, Array] = {part.name: getattr(parts, part.name) for part in fields(Parts)}
    columns["radcliq_v0"] = radcliq_v0(parts.radgraph, parts.bertscore, parts.semb, parts.bleu2)
    columns["radcliq_v1"] = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
    unscored = ~np.isfinite(np.stack(list(columns.values()))).all(axis=0)
    if unscored.any():
        raise MetricError(
            "unscored", f"backend {backend.name} could not score {int(unscored.sum())} pairs"
        )
    return columns


def _clinical(
    truth_labels: Sequence[Labels], found_labels: Sequence[Labels]
) -> tuple[dict[str, Aggregate], dict[str, dict[str, ClassScore]]]:
    aggregates: dict[str, Aggregate] = {}
    classes: dict[str, dict[str, ClassScore]] = {}
    for policy in UNCERTAIN_POLICIES:
        truth, found = positives(truth_labels, policy), positives(found_labels, policy)
        table = f1_aggregates(truth, found)
        aggregates |= {f"{name}_uncertain_{policy}": aggregate for name, aggregate in table.items()}
        classes[policy] = class_table(truth, found)
    return aggregates, classes


def _text_facts(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    return {
        "distinct_reports": len(set(hypotheses)),
        "distinct_ratio": len(set(hypotheses)) / len(hypotheses),
        "distinct_references": len(set(references)),
        "empty_reports": sum(is_empty(text) for text in hypotheses),
        "mean_words": float(np.mean([len(text.split()) for text in hypotheses])),
        "mean_reference_words": float(np.mean([len(text.split()) for text in references])),
    }


def _inverse(mean: Interval) -> dict[str, object]:
    """1/mean as the ReXrank board prints it; without an interval where the mean's includes 0, its pole."""
    bounded = mean.low > 0 or mean.high < 0
    return {
        "value": 1 / mean.value if mean.value else None,
        "low": 1 / mean.high if bounded else None,
        "high": 1 / mean.low if bounded else None,
    }
