"""The curve over operating points: every figure against a slow count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from lmrrg.evaluation.operating_points import OPERATING_COLUMNS, operating_curve
from lmrrg.metrics.clinical import positives
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.suite import score_reports
from lmrrg.metrics.text.conventions import Raw
from lmrrg.studies import LABELS
from tests.conftest import SENTENCES

REFERENCES = [f"{a} {b}" for a, b in zip(SENTENCES, SENTENCES[3:] + SENTENCES[:3], strict=True)]


@pytest.fixture(scope="module")
def evaluated() -> Any:
    labels = [label_report(text) for text in REFERENCES]
    return SimpleNamespace(references=REFERENCES, labels=labels)


def test_each_point_measures_its_own_reports(evaluated: Any):
    reports = {0.5: ["The lungs are clear."] * 8, 0.1: REFERENCES[::-1], 0.3: REFERENCES}
    curve = operating_curve(reports, evaluated, EmbeddedBackend(), "positive")
    assert [record["threshold"] for record in curve] == [0.1, 0.3, 0.5]
    truth = positives(evaluated.labels, "positive")
    columns = [k for k, label in enumerate(LABELS) if label != "No Finding"]
    for record in curve:
        written = reports[record["threshold"]]
        found = positives([label_report(text) for text in written], "positive")
        flat = truth[:, columns].ravel(), found[:, columns].ravel()
        assert record["precision"] == pytest.approx(precision_score(*flat, zero_division=0))
        assert record["recall"] == pytest.approx(recall_score(*flat))
        assert record["f1_13"] == pytest.approx(f1_score(*flat))
        macro = f1_score(truth, found, average="macro", zero_division=0)
        assert record["macro_14"] == pytest.approx(macro)
        scores = score_reports(
            written,
            REFERENCES,
            metrics=["radcliq"],
            convention=Raw(),
            backend=EmbeddedBackend(),
        )
        assert record["radcliq_v1"] == pytest.approx(scores.columns["radcliq_v1"].mean())
        assert record["distinct_reports"] == len(set(written))
        assert record["distinct_finding_sets"] == len({tuple(row) for row in found[:, columns]})
        assert {key for key, _ in OPERATING_COLUMNS.values()} < record.keys()
    assert curve[1]["f1_13"] == curve[1]["f1_5"] == 1
    assert curve[2]["f1_13"] == 0
    assert np.argmin([record["radcliq_v1"] for record in curve]) == 1


def test_without_points_there_is_no_curve(evaluated: Any):
    assert operating_curve({}, evaluated, EmbeddedBackend(), "positive") == []
