"""Faults of a report: what is one, what is none, and what is left when one is repaired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from lmrrg.data.phantom.ct.findings import sample_findings as sample_ct
from lmrrg.data.phantom.ct.reports import write_ct_report
from lmrrg.data.phantom.drawn.findings import sample_findings as sample_drawn
from lmrrg.data.phantom.drawn.reports import text_of, write_report
from lmrrg.metrics.coherence.find import find_faults, is_coherent, new_faults, repairs

CASES = yaml.safe_load((Path(__file__).parent / "incoherent_reports.yaml").read_text())
PAIRS = [(kind, *pair) for kind, pairs in CASES.items() for pair in pairs]


@pytest.mark.parametrize(("kind", "clean", "faulty"), PAIRS)
def test_a_fault_is_found_and_only_there(kind: str, clean: str, faulty: str) -> None:
    assert find_faults(clean) == ()
    # What is stated twice in the same words may as well be called repeated.
    alike = {"stated_twice", "repeated"}
    allowed = alike if kind in alike else {kind}
    assert allowed & {fault.kind for fault in find_faults(faulty)}


def lines_of(name: str) -> list[str]:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("text", lines_of("faulty.txt"))
def test_more_faulty_reports(text: str) -> None:
    assert not is_coherent(text)


@pytest.mark.parametrize("text", lines_of("sound.txt"))
def test_more_reports_without_a_fault(text: str) -> None:
    assert is_coherent(text)


@pytest.mark.parametrize(
    "text",
    [
        "There is a large right and small left pleural effusion.",
        "Large right pleural effusion. Small left pleural effusion.",
        "No large effusion. Trace left effusion.",
        "No new consolidation. Unchanged consolidation in the right upper lobe.",
        "A right effusion. The effusion is small.",
        "No left pneumothorax. Small right pneumothorax.",
        "Left basilar atelectasis. Right upper lobe atelectasis.",
        "Two nodules in the right lung. Another nodule in the left upper lobe.",
        "A right chest tube in the right pleural effusion.",
        "A pacemaker is in place and there is a left pleural effusion.",
        "The lungs are otherwise clear. Consolidation in the left lower lobe.",
        "The lungs are clear. Calcified granuloma in the left upper lobe.",
        "Right greater than left pleural effusions.",
        "Mediastinal shift from right to left.",
        "",
        "xxxx",
    ],
)
def test_what_radiologists_write_is_no_fault(text: str) -> None:
    assert is_coherent(text)


def test_references_of_phantoms_have_no_fault() -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        assert is_coherent(text_of(write_report(rng, sample_drawn(rng)).findings))
        assert is_coherent(text_of(write_ct_report(rng, sample_ct(rng)).findings))


def test_what_the_reference_does_too_is_no_fault() -> None:
    said_twice = "No pneumothorax. Heart size is normal. No pneumothorax is seen."
    assert not is_coherent(said_twice)
    assert is_coherent(said_twice, reference=said_twice)
    contradicted = "No pneumothorax. Small right pneumothorax."
    assert [fault.kind for fault in new_faults(contradicted, said_twice)] == ["contradicted"]


def test_repairs_leave_out_one_side_of_each_fault() -> None:
    text = "Small effusion on the right. Lungs are clear. Large right effusion. Lungs are clear."
    assert sorted(repairs(text, find_faults(text))) == [
        "large right effusion . lungs are clear .",
        "lungs are clear . large right effusion .",
        "small effusion on the right . lungs are clear .",
        "small effusion on the right . lungs are clear .",
    ]


def test_of_three_statements_every_repair_keeps_one() -> None:
    text = "Small right effusion. Moderate right effusion. Large right effusion."
    assert sorted(repairs(text, find_faults(text))) == [
        "large right effusion .",
        "moderate right effusion .",
        "small right effusion .",
    ]


def test_a_repair_within_a_sentence_keeps_the_rest_of_it() -> None:
    text = "A pacemaker in the right pneumothorax. Mild edema."
    assert repairs(text, find_faults(text)) == [
        "in the right pneumothorax . mild edema .",
        "a pacemaker . mild edema .",
    ]


def test_a_very_long_report_is_read_in_time() -> None:
    text = "Small left effusion. No pneumothorax. " * 500
    assert len(repairs(text, find_faults(text))) <= 8


def test_what_one_repair_mends_is_one_fault() -> None:
    text = "There is mild cardiomegaly. Moderate enlargement of the cardiac silhouette is present."
    assert [fault.kind for fault in find_faults(text)] == ["exclusive"]
