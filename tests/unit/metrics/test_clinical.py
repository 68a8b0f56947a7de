"""Clinical F1 against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score

from lmrrg.metrics.clinical import (
    CLINICAL_METRICS,
    FIVE_LABELS,
    class_auc,
    class_table,
    clinical_aggregates,
    f1_aggregates,
    positives,
)
from lmrrg.metrics.errors import MetricError
from lmrrg.studies import LABELS

FIVE = [LABELS.index(label) for label in FIVE_LABELS]


@pytest.fixture
def tables() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.random((120, 14)) < rng.uniform(0.0, 0.4, size=14)
    predicted = truth ^ (rng.random((120, 14)) < 0.1)
    truth[:, 8] = predicted[:, 8] = False  # a class that nobody has
    return truth, predicted


@pytest.mark.parametrize("average", ["micro", "macro", "samples"])
@pytest.mark.parametrize("classes", [14, 5])
def test_f1_equals_sklearn(
    tables: tuple[np.ndarray, np.ndarray], average: str, classes: int
) -> None:
    truth, predicted = tables
    columns = list(range(14)) if classes == 14 else FIVE
    expected = f1_score(truth[:, columns], predicted[:, columns], average=average, zero_division=0)
    name = {"samples": "example"}.get(average, average)
    assert f1_aggregates(truth, predicted)[f"{name}_f1_{classes}"].value == pytest.approx(expected)


def test_class_table_equals_sklearn(tables: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = tables
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, zero_division=0
    )
    for i, (label, score) in enumerate(class_table(truth, predicted).items()):
        assert label == LABELS[i]
        assert (score.precision, score.recall, score.f1) == pytest.approx(
            (precision[i], recall[i], f1[i])
        )
        assert (score.references, score.hypotheses) == (support[i], predicted[:, i].sum())


def test_uncertain_policies() -> None:
    labels = [{"Edema": -1, "Pneumonia": 1, "Fracture": 0}]
    as_positive, as_negative = positives(labels, "positive")[0], positives(labels, "negative")[0]
    assert [LABELS[i] for i in np.flatnonzero(as_positive)] == ["Edema", "Pneumonia"]
    assert [LABELS[i] for i in np.flatnonzero(as_negative)] == ["Pneumonia"]


def test_auc_equals_sklearn_and_is_none_for_a_constant_class() -> None:
    rng = np.random.default_rng(1)
    labels = [{label: int(rng.random() < 0.5) for label in LABELS[:-1]} for _ in range(40)]
    probabilities = rng.random((40, 14))
    table = class_auc(labels, probabilities, "positive")
    assert table[LABELS[-1]] is None
    for i, label in enumerate(LABELS[:-1]):
        assert table[label] == pytest.approx(
            roc_auc_score([row[label] for row in labels], probabilities[:, i])
        )


def test_refusals() -> None:
    with pytest.raises(MetricError, match="length_mismatch"):
        f1_aggregates(np.zeros((2, 14), bool), np.zeros((3, 14), bool))
    with pytest.raises(MetricError, match="length_mismatch"):
        class_auc([{}], np.zeros((2, 14)), "positive")
    with pytest.raises(MetricError, match="nan_scores"):
        class_auc([{}], np.full((1, 14), np.nan), "positive")


def test_nothing_warns_without_any_positive() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = f1_aggregates(np.zeros((3, 14), bool), np.zeros((3, 14), bool))
    assert all(aggregate.value == 0 for aggregate in table.values())


@pytest.mark.parametrize("policy", ["positive", "negative", "class"])
def test_every_average_equals_scikit_learn(policy: str) -> None:
    rng = np.random.default_rng(5)
    sides = [
        [
            {label: int(value) for label, value in zip(LABELS, row, strict=True) if value < 2}
            for row in rng.choice([-1, 0, 1, 2], p=[0.1, 0.3, 0.2, 0.4], size=(40, 14))
        ]
        for _ in range(2)
    ]
    ours = clinical_aggregates(*sides)
    assert ours.keys() == set(CLINICAL_METRICS)
    for count, labels in ((14, LABELS), (5, FIVE_LABELS)):
        present = {"positive": [(1, -1)], "negative": [(1,)], "class": [(1,), (-1,)]}[policy]
        truth, found = (
            np.array([[row.get(n) in values for values in present for n in labels] for row in side])
            for side in sides
        )
        for ours_name, theirs in (
            ("micro", "micro"),
            ("macro", "macro"),
            ("weighted", "weighted"),
            ("example", "samples"),
        ):
            expected = precision_recall_fscore_support(
                truth, found, average=theirs, zero_division=0
            )
            for measure, value in zip(("precision", "recall", "f1"), expected, strict=False):
                name = f"{ours_name}_{measure}_{count}_uncertain_{policy}"
                assert ours[name].value == pytest.approx(value, abs=1e-12)
