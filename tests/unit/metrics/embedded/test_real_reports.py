"""The embedded backend against true RadGraph F1 and silver labels of real reports.

Skipped where those files are not at hand.
"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from lmrrg.metrics.coherence.find import is_coherent
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, POSITIVE
from tests.support.paths import REAL_DATA

DATA = REAL_DATA
PAIRS, REPORTS = DATA / "metrics" / "radgraph_xl_pairs.csv", DATA / "iu_xray" / "reports.jsonl"


@pytest.mark.skipif(
    not PAIRS.is_file(), reason="needs report pairs with true RadGraph F1 ($LMRRG_TEST_DATA)"
)
def test_graph_agrees_with_radgraph() -> None:
    rows = list(csv.DictReader(PAIRS.open(encoding="utf-8")))
    parts = EmbeddedBackend().score(
        [row["hypothesis"] for row in rows], [row["reference"] for row in rows]
    )
    truth = np.array([[float(row["rg_e"]), float(row["rg_er"])] for row in rows])
    assert np.corrcoef(parts.rg_er, truth[:, 1])[0, 1] >= 0.96
    assert kendalltau(parts.rg_er, truth[:, 1]).statistic >= 0.82
    assert np.abs(parts.rg_e - truth[:, 0]).mean() <= 0.036


@pytest.mark.skipif(
    not REPORTS.is_file(), reason="needs reports with silver labels ($LMRRG_TEST_DATA)"
)
def test_labels_agree_with_the_silver_labels() -> None:
    studies = [json.loads(line) for line in REPORTS.open(encoding="utf-8")]
    hits = wrong = 0
    for study in studies:
        if study["chexbert_findings"] is not None:
            found, silver = label_report(study["findings"]), study["chexbert_findings"]
            for label in LABELS:
                pair = (found.get(label) == POSITIVE, silver.get(label) == POSITIVE)
                hits += pair == (True, True)
                wrong += pair in ((True, False), (False, True))
    assert 2 * hits / (2 * hits + wrong) >= 0.885


@pytest.mark.skipif(not REPORTS.is_file(), reason="needs real reports ($LMRRG_TEST_DATA)")
def test_radiologists_are_coherent() -> None:
    with REPORTS.open(encoding="utf-8") as lines:
        findings = [json.loads(line)["findings"] for line in lines]
    faulty = sum(not is_coherent(text) for text in findings)
    assert faulty <= 0.005 * sum(map(bool, findings))
