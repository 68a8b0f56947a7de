"""The template writer: what it learns from reports, and what it writes."""

from __future__ import annotations

import itertools

import pytest

from lmrrg.evaluation.baselines import BaselineError
from lmrrg.evaluation.template import FINDINGS, Template, learn_template, sentences_of_report
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.embedded.labeler import label_report

NORMAL = "The heart is normal in size. The lungs are clear. No pleural effusion."
REPORTS = [
    NORMAL,
    NORMAL,
    "The heart is enlarged. The lungs are clear. No pleural effusion.",
    "The heart is enlarged. There is a small left pleural effusion.",
    "The heart is normal in size. There is a small left pleural effusion.",
    "The heart is normal in size. There is a large right pleural effusion and edema.",
]


@pytest.fixture(scope="module")
def template() -> Template:
    return learn_template(REPORTS, EmbeddedBackend())


def test_sentences_state_one_finding_and_come_from_training_reports(template: Template) -> None:
    assert template.normal == tuple(sentences_of_report(NORMAL))
    # Edema is only ever stated together with an effusion.
    assert list(template.stated) == ["Cardiomegaly", "Pleural Effusion"]
    for finding, sentence in template.stated.items():
        assert label_report(sentence) == {finding: 1}
        assert any(sentence in report for report in REPORTS)
    assert template.stated["Pleural Effusion"] == "There is a small left pleural effusion."


def test_every_set_of_findings_is_stated_and_never_denied(template: Template) -> None:
    for count in range(len(template.stated) + 1):
        for findings in itertools.combinations(template.stated, count):
            written = template.write(findings)
            labels = label_report(written)
            assert {label for label in FINDINGS if labels.get(label) == 1} == set(findings)
            if "Pleural Effusion" in findings:
                assert "No pleural effusion" not in written
    assert template.write(["Edema"]) == template.write([]) == NORMAL


def test_a_sentence_that_reports_with_the_finding_do_not_have_is_left_out() -> None:
    with_edema = ["There is edema. The heart is enlarged."] * 3
    reports = [NORMAL, *with_edema]
    template = learn_template(reports, EmbeddedBackend())
    assert "The lungs are clear." in template.replaced["Edema"]


def test_training_reports_need_a_normal_one() -> None:
    with pytest.raises(BaselineError, match="no_normal_report"):
        learn_template(REPORTS[2:], EmbeddedBackend())
