"""Clinical efficacy: precision, recall and F1 of labels of generated and real reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmrrg.metrics.bootstrap import Aggregate
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.interfaces import Labels
from lmrrg.metrics.parts import Array
from lmrrg.studies import LABELS, POSITIVE, UNCERTAIN

Ratio = Callable[[Array], Array]
"""A measure of the counts (hits, false, missed) in the last axis."""
UncertainPolicy = Literal["positive", "negative"]
UNCERTAIN_POLICIES: tuple[UncertainPolicy, ...] = ("positive", "negative")
FIVE_LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The classes of CheXpert's competition."""
_FIVE = [LABELS.index(label) for label in FIVE_LABELS]
_MEASURES = ("precision", "recall", "f1")
_AVERAGES = ("micro", "macro", "weighted", "example")
UNCERTAIN_CLASS = "class"
"""The suffix of metrics for which a finding in doubt is a class of its own, beside its presence."""
CLINICAL_METRICS = (
    # The F1 that every table prints come first, then the rest.
    *(
        f"{kind}_f1_{classes}_uncertain_{policy}"
        for policy in UNCERTAIN_POLICIES
        for classes in (14, 5)
        for kind in ("micro", "macro", "example")
    ),
    *(f"weighted_f1_{n}_uncertain_{policy}" for policy in UNCERTAIN_POLICIES for n in (14, 5)),
    *(f"{kind}_f1_{n}_uncertain_{UNCERTAIN_CLASS}" for n in (14, 5) for kind in _AVERAGES),
    *(
        f"{kind}_{measure}_{classes}_uncertain_{policy}"
        for policy in (*UNCERTAIN_POLICIES, UNCERTAIN_CLASS)
        for classes in (14, 5)
        for kind in _AVERAGES
        for measure in ("precision", "recall")
    ),
)


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class (0 where undefined).

    ``references`` and ``hypotheses`` count the reports that have the class.
    """

    precision: float
    recall: float
    f1: float
    references: int
    hypotheses: int


def positives(labels: Sequence[Labels], policy: UncertainPolicy) -> NDArray[np.bool_]:
    """Return which classes count as present [N, 14]; a blank or negative class is absent.

    >>> uncertain = [{"Edema": -1, "Pneumonia": 0}]
    >>> int(positives(uncertain, "positive").sum()), int(positives(uncertain, "negative").sum())
    (1, 0)
    """
    present = (POSITIVE, UNCERTAIN) if policy == "positive" else (POSITIVE,)
    table = np.zeros((len(labels), len(LABELS)), dtype=bool)
    for row, found in enumerate(labels):
        table[row] = [found.get(label) in present for label in LABELS]
    return table


def positives_and_uncertain(labels: Sequence[Labels]) -> NDArray[np.bool_]:
    """Return which classes are present and which are uncertain [N, 28]: first the 14 present ones.

    >>> table = positives_and_uncertain([{"Edema": -1, "Pneumonia": 1}])
    >>> int(table[:, :14].sum()), int(table[:, 14:].sum())
    (1, 1)
    """
    present = positives(labels, "negative")
    return np.concatenate([present, positives(labels, "positive") & ~present], axis=1)


def clinical_aggregates(
    truth: Sequence[Labels], predicted: Sequence[Labels]
) -> dict[str, Aggregate]:
    """Return every one of :data:`CLINICAL_METRICS` for the labels of N reports on both sides."""
    table: dict[str, Aggregate] = {}
    for policy in UNCERTAIN_POLICIES:
        found = f1_aggregates(positives(truth, policy), positives(predicted, policy))
        table |= {f"{name}_uncertain_{policy}": aggregate for name, aggregate in found.items()}
    found = f1_aggregates(positives_and_uncertain(truth), positives_and_uncertain(predicted))
    return table | {f"{name}_uncertain_{UNCERTAIN_CLASS}": each for name, each in found.items()}


def f1_aggregates(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, Aggregate]:
    """Return precision, recall and F1 over the 14 and the 5 classes, with four averages.

    The averages are micro, macro, weighted (by the number of references with the class) and
    example-based. Both tables are [N, 14], or [N, 28] with a second column for each class.
    Undefined terms count 0, as in scikit-learn with ``zero_division=0``: a class (macro) or a
    report (example-based) without any positive on either side scores 0, even where both agree that
    there is nothing.

    >>> truth = positives([{"Edema": 1}, {"Edema": 1, "Fracture": 1}], "positive")
    >>> found = positives([{"Edema": 1}, {"Pneumonia": 1}], "positive")
    >>> scores = f1_aggregates(truth, found)
    >>> scores["micro_f1_14"].value  # 1 hit, 1 false, 2 missed
    0.4
    >>> scores["micro_f1_5"].value  # only Edema is among the five
    0.6667

    Raises:
        MetricError: ``length_mismatch``.
    """
    if truth.shape != predicted.shape:
        raise MetricError(
            "length_mismatch", f"labels of shape {truth.shape} against {predicted.shape}"
        )
    table: dict[str, Aggregate] = {}
    groups = range(0, truth.shape[1], len(LABELS))
    every = list(range(truth.shape[1]))
    five = [start + column for start in groups for column in _FIVE]
    for count, columns in ((14, every), (5, five)):
        confusion = _confusion(truth[:, columns], predicted[:, columns])
        reports = confusion.sum(axis=1)
        # A table of means has one row per study, so the three counts of each class are laid out in
        # its columns; `_class_mean` separates them again.
        flat = confusion.reshape(len(truth), -1)
        for measure, ratio in _RATIOS.items():
            table[f"micro_{measure}_{count}"] = Aggregate(reports, ratio)
            table[f"macro_{measure}_{count}"] = Aggregate(flat, _class_mean(ratio))
            table[f"weighted_{measure}_{count}"] = Aggregate(flat, _weighted_mean(ratio))
            table[f"example_{measure}_{count}"] = Aggregate.mean(ratio(reports))
    return table


def class_table(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, ClassScore]:
    """Return precision, recall and F1 of each of the 14 classes, from two tables [N, 14]."""
    totals = _confusion(truth, predicted).sum(axis=0)
    return dict(zip(LABELS, map(_class_score, totals), strict=True))


def class_auc(
    labels: Sequence[Labels], probabilities: Array, policy: UncertainPolicy
) -> dict[str, float | None]:
    """Return the ROC AUC of each class for a classifier's probabilities [N, 14].

    It is None where all studies have the class, or none has it.

    Raises:
        MetricError: ``length_mismatch`` or ``nan_scores``.
    """
    from sklearn.metrics import roc_auc_score

    if probabilities.shape != (len(labels), len(LABELS)):
        raise MetricError(
            "length_mismatch",
            f"probabilities of shape {probabilities.shape} for {len(labels)} studies",
        )
    if not np.isfinite(probabilities).all():
        raise MetricError("nan_scores", "a class probability is not a number")
    truth = positives(labels, policy)
    areas: dict[str, float | None] = {}
    for column, label in enumerate(LABELS):
        present = truth[:, column]
        both_values = 0 < present.sum() < len(present)
        areas[label] = (
            float(roc_auc_score(present, probabilities[:, column])) if both_values else None
        )
    return areas


def _class_score(counts: Array) -> ClassScore:
    hit, false, missed = counts
    return ClassScore(
        precision=float(_precision(counts)),
        recall=float(_recall(counts)),
        f1=float(_f1(counts)),
        references=int(hit + missed),
        hypotheses=int(hit + false),
    )


def _confusion(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Array:
    """Return true positives, false positives and false negatives [N, classes, 3]."""
    return np.stack([truth & predicted, ~truth & predicted, truth & ~predicted], axis=-1).astype(
        np.float64
    )


def _f1(counts: Array) -> Array:
    hit, false, missed = np.moveaxis(counts, -1, 0)
    return _ratio(2 * hit, 2 * hit + false + missed)


def _precision(counts: Array) -> Array:
    hit, false, _ = np.moveaxis(counts, -1, 0)
    return _ratio(hit, hit + false)


def _recall(counts: Array) -> Array:
    hit, _, missed = np.moveaxis(counts, -1, 0)
    return _ratio(hit, hit + missed)


def _class_mean(ratio: Ratio) -> Ratio:
    """Return a function from counts [..., classes * 3] to the mean over the classes [...]."""
    return lambda counts: ratio(_by_class(counts)).mean(axis=-1)


def _weighted_mean(ratio: Ratio) -> Ratio:
    """Return the same with each class weighted by the references that have it."""

    def mean(counts: Array) -> Array:
        classes = _by_class(counts)
        support = classes[..., 0] + classes[..., 2]
        return _ratio((ratio(classes) * support).sum(axis=-1), support.sum(axis=-1))

    return mean


def _by_class(counts: Array) -> Array:
    return counts.reshape(*counts.shape[:-1], -1, 3)


def _ratio(top: Array, bottom: Array) -> Array:
    """Return top / bottom, 0 where the divisor is 0."""
    return np.divide(
        top,
        bottom,
        out=np.zeros_like(np.asarray(bottom, dtype=np.float64)),
        where=np.asarray(bottom) > 0,
    )


_RATIOS: Mapping[str, Ratio] = dict(zip(_MEASURES, (_precision, _recall, _f1), strict=True))
