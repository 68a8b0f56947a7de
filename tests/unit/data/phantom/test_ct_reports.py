"""Reports of CT phantoms: they state the findings, vary, and the rule-based labeler agrees."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from lmrrg.data.phantom.ct.findings import KINDS, CTFinding, sample_findings
from lmrrg.data.phantom.ct.reports import LABELS_OF, ct_labels, write_ct_report
from lmrrg.data.phantom.drawn.reports import text_of
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS


def test_the_labeler_reads_the_true_labels():
    agreed = 0
    labelled = 0
    texts = set()
    for seed in range(600):
        rng = np.random.default_rng([1, seed])
        findings = sample_findings(rng)
        if seed % 4 == 0:
            findings = [
                replace(f, change=str(rng.choice(["new", "larger", "smaller", "unchanged"])))
                for f in findings
            ]
        report = write_ct_report(rng, findings)
        for section in (report.findings, report.impression):
            text = text_of(section)
            assert not re.search(r"[{}]|\s\s|\s[.,]", text)
            true, read = ct_labels(findings, section), label_report(text)
            labelled += len(true.keys() | read.keys())
            agreed += sum(true.get(label) == read.get(label) for label in true.keys() | read.keys())
        texts.add(text_of(report.findings))
    assert agreed / labelled > 0.97
    assert len(texts) > 590


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_finding_is_stated_with_its_side_in_many_words(kind):
    finding = CTFinding(
        kind, "left", {"cardiomegaly": "mild", "edema": "mild"}.get(kind, "small"), "mid"
    )
    wordings = set()
    for seed in range(80):
        report = write_ct_report(np.random.default_rng(seed), [finding])
        stating = [
            s
            for s in report.findings
            if not LABELS_OF[kind] or s.labels.get(LABELS_OF[kind][0], 0) != 0
        ]
        assert stating
        wordings.add(stating[0].text)
        if kind not in ("cardiomegaly", "edema", "hyperinflation", "endotracheal tube"):
            assert "left" in stating[0].text.lower()
    assert len(wordings) >= 8


def test_what_is_gone_is_said_to_be_gone():
    report = write_ct_report(np.random.default_rng(3), [], ["pneumothorax"])
    assert "pneumothorax has resolved" in text_of(report.findings)
    assert ct_labels([], report.findings)["Pneumothorax"] == 0


def test_labels_are_known_classes():
    assert {label for labels in LABELS_OF.values() for label in labels} <= set(LABELS)
