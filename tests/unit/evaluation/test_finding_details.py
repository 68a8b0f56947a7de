"""Side and severity of phantom findings against the truth, on reports that are right by design."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from lmrrg.data.phantom.ct.findings import sample_findings as sample_ct_findings
from lmrrg.data.phantom.ct.reports import write_ct_report
from lmrrg.data.phantom.drawn.findings import sample_findings
from lmrrg.data.phantom.drawn.reports import text_of, write_report
from lmrrg.evaluation.finding_details import finding_details
from lmrrg.metrics.bootstrap import bootstrap_ci, compare
from lmrrg.studies import Study


def _study(*findings: tuple[str, str, str]) -> Study:
    truth = [
        {"type": kind, "side": side, "severity": severity} for kind, side, severity in findings
    ]
    return Study("s", "p", (), truth={"findings": truth})


SMALL_LEFT = _study(("pleural effusion", "left", "small"))


@pytest.mark.parametrize(
    ("report", "side", "severity"),
    [
        ("There is a small left pleural effusion.", 1, 1),
        ("Trace effusion on the left.", 1, 1),
        ("There is a small right pleural effusion.", 0, 1),
        ("There is a large left pleural effusion.", 1, 0),
        ("Small bilateral effusions.", 0, 1),
        ("Small left and moderate right effusion.", 0, 0),
        ("There is a pleural effusion.", 0, 0),
        ("Large right pneumothorax. Small left effusion.", 1, 1),
    ],
)
def test_the_named_effusion_is_judged(report: str, side: float, severity: float) -> None:
    details = finding_details([SMALL_LEFT], [report])
    assert (details["side"].value, details["severity"].value) == (side, severity)


@pytest.mark.parametrize(
    ("study", "report"),
    [
        (SMALL_LEFT, "No pleural effusion."),
        (SMALL_LEFT, "The lungs are clear."),
        (SMALL_LEFT, ""),
        (Study("real", "p", ()), "There is a small left pleural effusion."),
        (_study(("hyperinflation", "", "")), "Hyperinflation of both lungs."),
    ],
)
def test_what_is_not_named_or_not_known_is_not_counted(study: Study, report: str) -> None:
    assert finding_details([study], [report]) == {}


def test_findings_without_a_single_side_or_severity_count_for_the_other_measure_only() -> None:
    edema = _study(("edema", "bilateral", "severe"))
    nodule = _study(("nodule", "right", ""))
    details = finding_details([edema, nodule], ["Marked edema.", "Nodule in the left mid zone."])
    assert details["severity"].rows.tolist() == [[1, 1], [0, 0]]
    assert details["side"].rows.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("sample", "write"), [(sample_findings, write_report), (sample_ct_findings, write_ct_report)]
)
def test_every_detail_of_a_phantoms_own_report_is_read_as_it_was_meant(
    sample: Callable[[np.random.Generator], Sequence[Any]], write: Callable[..., Any]
) -> None:
    studies = []
    reports = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        findings = sample(rng)
        facts = [asdict(finding) for finding in findings]
        truth = [fact | {"type": fact.pop("kind")} for fact in facts]
        studies.append(Study(str(seed), "p", (), truth={"findings": truth}))
        reports.append(text_of(write(rng, findings).findings))
    details = finding_details(studies, reports)
    assert {name: one.value for name, one in details.items()} == {"side": 1, "severity": 1}
    one_sided = [
        fact
        for study in studies
        for fact in study.truth["findings"]  # type: ignore[attr-defined]
        if fact["side"] in ("right", "left")
        # Drawn with a side that no report speaks of.
        and fact["type"] != "endotracheal tube"
    ]
    assert details["side"].rows[:, 1].sum() == len(one_sided)


def test_shares_have_intervals_and_compare_studies_in_pairs() -> None:
    studies = [SMALL_LEFT] * 40
    right = ["Small left effusion."] * 40
    half = ["Small left effusion.", "Small right effusion."] * 20
    sides = [finding_details(studies, reports)["side"] for reports in (half, right)]
    interval = bootstrap_ci(sides[0], resamples=300)
    assert interval.value == 0.5
    assert 0.3 < interval.low < 0.45 < 0.55 < interval.high < 0.7
    compared = compare(*sides, resamples=300)
    assert compared.difference == -0.5
    assert compared.high < 0
