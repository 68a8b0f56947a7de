"""Compute all metrics of one system in one call, stamped with every choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.bootstrap import Aggregate
from lmrrg.metrics.clinical import (
    CLINICAL_METRICS,
    UNCERTAIN_POLICIES,
    ClassScore,
    UncertainPolicy,
    class_table,
    clinical_aggregates,
    positives,
)
from lmrrg.metrics.coherence.fault import FAULT_KINDS, Fault
from lmrrg.metrics.coherence.find import new_faults
from lmrrg.metrics.embedded.backend import RuleLabeler
from lmrrg.metrics.embedded.reading.language import is_readable
from lmrrg.metrics.errors import MetricError, some_studies
from lmrrg.metrics.interfaces import Backend, Labeler, Labels
from lmrrg.metrics.parts import Array, Parts, is_empty
from lmrrg.metrics.radcliq import RADCLIQ_METRICS, radcliq_v0, radcliq_v1
from lmrrg.metrics.report_scores import ReportScores, Stamp
from lmrrg.metrics.text.conventions import Convention
from lmrrg.metrics.text.ngram import NLG_METRICS, nlg_scores
from lmrrg.studies import Section

GROUPS: Mapping[str, tuple[str, ...]] = {
    "radcliq": RADCLIQ_METRICS,
    "clinical": CLINICAL_METRICS,
    "coherence": ("coherence",),
    "nlg": NLG_METRICS,
}
"""What may be asked for: a group's name or a single metric of it."""
_ALL_METRICS = tuple(chain.from_iterable(GROUPS.values()))
METRIC_VERSIONS: Mapping[str, str] = {
    "radcliq": "v0 and v1 of Yu et al. 2023",
    "bleu": "pycocoevalcap 1.2",
    "rouge_l": "pycocoevalcap 1.2 (beta 1.2)",
    "meteor": "METEOR 1.5 (exact, stem, synonym, paraphrase; -l en -norm)",
    "cider": "CIDEr-D, pycocoevalcap 1.2 (sigma 6)",
    "bleu2": "RadCliQ tokenisation, smoothing 0.1",
    "f1": "scikit-learn, zero_division 0",
    "coherence": "1",
}


def score_reports(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    convention: Convention,
    backend: Backend | None,
    study_ids: Sequence[str] | None = None,
    reference_labels: Sequence[Labels] | None = None,
    labeler: Labeler | None = None,
    metrics: Collection[str] | None = None,
    uncertain_policy: UncertainPolicy = "positive",
    section: Section | str = "unstated",
    split: str = "unstated",
    bootstrap: int = 1000,
    seed: int = 0,
) -> ReportScores:
    """Score one system's reports against the references, row by row.

    The convention applies to the n-gram metrics only; RadCliQ and the clinical metrics always read
    the untouched text. An empty hypothesis is allowed and gets the worst scores.

    The clinical metrics know English only. A reference that they cannot read is left out of RadCliQ
    (NaN in its columns) and, unless its labels are given, of the clinical metrics; a metric for
    which no reference is left is in ``unscored``. A hypothesis that they cannot read has no labels.

    >>> from lmrrg.metrics.embedded.backend import EmbeddedBackend
    >>> from lmrrg.metrics.text.conventions import Raw
    >>> truth = ["Small left pleural effusion.", "No acute disease."]
    >>> written = ["Small left pleural effusion.", "Small effusion."]
    >>> metrics = ["radcliq", "rouge_l"]
    >>> options = {"convention": Raw(), "backend": EmbeddedBackend(), "metrics": metrics}
    >>> scores = score_reports(truth, written, **options)
    >>> scores.columns["radcliq_v1"].round(4).tolist()  # lower is better
    [-1.4407, 1.9962]
    >>> scores.intervals["rouge_l"].value
    0.5

    Args:
        references: The radiologists' reports [N].
        hypotheses: The generated reports [N].
        convention: How texts are prepared for the n-gram metrics.
        backend: What computes RadCliQ; None is allowed where no metric of "radcliq" is wanted.
        study_ids: The ids of the N studies; None: their row numbers.
        reference_labels: Labels that replace what the labeler reads from the references.
        labeler: None: the backend's own, or the rules without a backend.
        metrics: Names of metrics or of :data:`GROUPS`; None: all.
        uncertain_policy: The policy of the class table in the summary.
        section: Which part of the report the references are, for the stamp.
        split: Which split the studies are from, for the stamp.
        bootstrap: Number of resamples of the intervals.
        seed: Seed of the resampling.

    Raises:
        MetricError: ``length_mismatch``, ``no_studies``, ``missing_text`` (not a string),
            ``empty_reference``, ``duplicate_id``, ``unknown_metric``, ``no_metrics``,
            ``no_backend``, ``bad_bootstrap`` or ``unscored`` (the backend could not score a pair).
    """
    wanted = select_metrics(metrics)
    if study_ids is None:
        study_ids = list(map(str, range(len(references))))
    if labeler is None:
        labeler = RuleLabeler() if backend is None else backend.labeler
    _check_lengths(references, hypotheses, study_ids, reference_labels)
    _check_texts(references, hypotheses, study_ids)
    if bootstrap < 1:
        raise MetricError(
            "bad_bootstrap", f"{bootstrap} resamples give no interval: take 1 or more"
        )
    columns: dict[str, Array] = {}
    aggregates: dict[str, Aggregate] = {}
    classes: dict[str, dict[str, ClassScore]] = {}
    readable = np.array([is_readable(text) for text in references])
    if not wanted.isdisjoint(RADCLIQ_METRICS):
        columns |= _radcliq_columns(backend, hypotheses, references, readable)
        if readable.any():
            means = {name: Aggregate.mean(column[readable]) for name, column in columns.items()}
            aggregates |= means
    if not wanted.isdisjoint(CLINICAL_METRICS):
        truth, found = _label_pairs(labeler, references, hypotheses, reference_labels, readable)
        if truth:
            aggregates |= clinical_aggregates(truth, found)
            classes = _class_tables(truth, found)
    faults = list(map(new_faults, hypotheses, references))
    if "coherence" in wanted:
        columns["coherence"] = np.array([not found for found in faults], dtype=np.float64)
        aggregates["coherence"] = Aggregate.mean(columns["coherence"])
    if not wanted.isdisjoint(NLG_METRICS):
        prepared_hypotheses = list(map(convention.hypothesis, hypotheses))
        prepared_references = list(map(convention.reference, references))
        nlg = nlg_scores(prepared_hypotheses, prepared_references, wanted)
        columns |= nlg[0]
        aggregates |= nlg[1]
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
        study_ids=tuple(study_ids),
        # A group is computed as a whole; only what was asked for is kept.
        columns={name: column for name, column in columns.items() if name in wanted},
        aggregates={name: aggregate for name, aggregate in aggregates.items() if name in wanted},
        texts=_text_counts(references, hypotheses, readable) | _fault_counts(faults),
        classes=classes,
        unscored=tuple(name for name in _ALL_METRICS if name in wanted - aggregates.keys()),
    )


def select_metrics(names: Collection[str] | None) -> frozenset[str]:
    """Return the metrics that ``names`` (groups or single metrics; None: all) stand for.

    >>> sorted(select_metrics(["nlg"]))
    ['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider', 'meteor', 'rouge_l']

    Raises:
        MetricError: ``unknown_metric``, or ``no_metrics`` for an empty selection.
    """
    chosen: set[str] = set()
    for name in _ALL_METRICS if names is None else names:
        if name not in GROUPS and name not in _ALL_METRICS:
            allowed = ", ".join([*GROUPS, *_ALL_METRICS])
            raise MetricError("unknown_metric", f"{name!r} is not one of {allowed}")
        chosen |= set(GROUPS.get(name, (name,)))
    if not chosen:
        raise MetricError(
            "no_metrics",
            f"no metric is selected; name groups ({', '.join(GROUPS)}) or single metrics",
        )
    return frozenset(chosen)


def _check_lengths(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str],
    labels: Sequence[Labels] | None,
) -> None:
    """Refuse lists that do not belong together."""
    same = len(references) == len(hypotheses) == len(ids)
    if not same or (labels is not None and len(labels) != len(ids)):
        raise MetricError(
            "length_mismatch",
            f"{len(references)} references, {len(hypotheses)} hypotheses, {len(ids)} ids",
        )
    if not ids:
        raise MetricError("no_studies", "there is nothing to score")
    if len(set(ids)) != len(ids):
        raise MetricError("duplicate_id", f"{len(ids) - len(set(ids))} study ids occur twice")


def _check_texts(references: Sequence[str], hypotheses: Sequence[str], ids: Sequence[str]) -> None:
    """Refuse missing texts and empty references, and name the studies."""
    for kind, texts in (("reference", references), ("hypothesis", hypotheses)):
        # A data frame gives NaN, a float, where a text is missing.
        missing = [
            study for study, text in zip(ids, texts, strict=True) if not isinstance(text, str)
        ]
        if missing:
            raise MetricError(
                "missing_text", f"no {kind} text (NaN or null) for {some_studies(missing)}"
            )
    empty = [study for study, text in zip(ids, references, strict=True) if is_empty(text)]
    if empty:
        raise MetricError("empty_reference", f"the reference is empty for {some_studies(empty)}")


def _radcliq_columns(
    backend: Backend | None,
    hypotheses: Sequence[str],
    references: Sequence[str],
    readable: NDArray[np.bool_],
) -> dict[str, Array]:
    """Return RadCliQ and its parts, each [N]; NaN where the reference is not readable."""
    if backend is None:
        raise MetricError("no_backend", "RadCliQ and its parts need a backend")
    rows = np.flatnonzero(readable)
    parts = score_parts(
        backend, [hypotheses[row] for row in rows], [references[row] for row in rows]
    )
    scored: dict[str, Array] = {part.name: getattr(parts, part.name) for part in fields(Parts)}
    scored["radcliq_v0"] = radcliq_v0(parts.radgraph, parts.bertscore, parts.semb, parts.bleu2)
    scored["radcliq_v1"] = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
    # A mean over the other pairs would be the score of an easier data set, so one pair is enough.
    failed = ~np.isfinite(np.stack(list(scored.values()))).all(axis=0)
    if failed.any():
        raise MetricError(
            "unscored", f"backend {backend.name} could not score {int(failed.sum())} pairs"
        )
    columns: dict[str, Array] = {}
    for name, values in scored.items():
        columns[name] = np.full(len(references), np.nan)
        columns[name][rows] = values
    return columns


def _label_pairs(
    labeler: Labeler,
    references: Sequence[str],
    hypotheses: Sequence[str],
    reference_labels: Sequence[Labels] | None,
    readable: NDArray[np.bool_],
) -> tuple[list[Labels], list[Labels]]:
    """Return the labels of both sides, without the studies whose reference cannot be labelled."""
    found = _labels_of_readable(labeler, hypotheses)
    if reference_labels is not None:
        return list(reference_labels), found
    rows = np.flatnonzero(readable)
    truth = labeler.label([references[row] for row in rows])
    return list(truth), [found[row] for row in rows]


def _labels_of_readable(labeler: Labeler, reports: Sequence[str]) -> list[Labels]:
    """Return the labels of generated reports; none for one that the labeler cannot read."""
    pairs = zip(reports, labeler.label(reports), strict=True)
    # Without this, a report of unknown words would be one without findings, like a normal one. An
    # empty report is the labeler's to judge.
    return [found if is_empty(text) or is_readable(text) else {} for text, found in pairs]


def _class_tables(
    truth_labels: Sequence[Labels], found_labels: Sequence[Labels]
) -> dict[str, dict[str, ClassScore]]:
    """Return the scores of each class, for both policies."""
    return {
        policy: class_table(positives(truth_labels, policy), positives(found_labels, policy))
        for policy in UNCERTAIN_POLICIES
    }


def _text_counts(
    references: Sequence[str], hypotheses: Sequence[str], readable: NDArray[np.bool_]
) -> dict[str, float]:
    """Return how many reports are distinct, empty or unreadable, and the mean lengths in words."""
    unread = sum(not is_empty(text) and not is_readable(text) for text in hypotheses)
    return {
        "distinct_reports": len(set(hypotheses)),
        "distinct_ratio": len(set(hypotheses)) / len(hypotheses),
        "distinct_references": len(set(references)),
        "empty_reports": sum(map(is_empty, hypotheses)),
        "unreadable_reports": unread,
        "unreadable_references": int((~readable).sum()),
        "mean_words": _mean_words(hypotheses),
        "mean_reference_words": _mean_words(references),
    }


def _fault_counts(faults: Sequence[Sequence[Fault]]) -> dict[str, float]:
    """Return how many reports have any fault, and a fault of each kind."""
    reports: Counter[str] = Counter()
    for found in faults:
        reports.update({fault.kind for fault in found})
    counts = {f"{kind}_reports": reports[kind] for kind in FAULT_KINDS}
    return {"incoherent_reports": sum(map(bool, faults)), **counts}


def _mean_words(texts: Sequence[str]) -> float:
    """Return the mean number of words of some texts."""
    return float(np.mean([len(text.split()) for text in texts]))
