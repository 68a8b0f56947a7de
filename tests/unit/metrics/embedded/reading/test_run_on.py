"""A text without stops has the labels and the score of its prose, and earns nothing by it."""

from __future__ import annotations

import pytest

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.embedded.reading.run_on import cut_run_on
from lmrrg.metrics.radcliq import radcliq_v1

REPORTS = [
    "The heart is enlarged. There is no pneumothorax. There is a small left pleural effusion.",
    "The lungs are clear. No pleural effusion is seen. There is a fracture of the left clavicle.",
    "There is a large right pneumothorax. The heart size is normal. No effusion is identified.",
]


@pytest.mark.parametrize("report", REPORTS)
def test_stops_do_not_matter(report: str) -> None:
    run_on = report.replace(".", "")
    assert label_report(run_on) == label_report(report)
    parts = EmbeddedBackend().score([run_on], [report])
    assert -radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)[0] == pytest.approx(
        1.44, abs=0.1
    )


@pytest.mark.parametrize("report", REPORTS)
def test_a_wrong_report_gains_nothing_without_stops(report: str) -> None:
    for reference in REPORTS:
        if reference == report:
            continue
        parts = EmbeddedBackend().score([report, report.replace(".", "")], [reference] * 2)
        honest, cheat = -radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
        assert cheat - honest < 0.05


@pytest.mark.parametrize(
    "sentence",
    [
        "there are airspace opacities left greater than right with a small right effusion",
        "no evidence of focal consolidation large pleural effusion or pneumothorax in the lungs",
        "the cardiac silhouette demonstrates stable mild tortuosity of the thoracic aorta",
        "if there is concern for a fracture of the ribs dedicated views of the ribs are advised",
    ],
)
def test_a_long_sentence_stays_whole(sentence: str) -> None:
    assert cut_run_on([sentence]) == [sentence]
