"""Honest reports: the phantoms' or a file's, and pairs of a reference with one of several kinds."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmrrg.data.phantom.drawn.findings import sample_findings
from lmrrg.data.phantom.drawn.reports import text_of, write_report
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import POSITIVE

TEMPLATE = (
    "The heart size and mediastinal contours are within normal limits. The lungs are clear. There "
    "is no focal airspace consolidation. No pleural effusion or pneumothorax."
)


@dataclass(frozen=True)
class Pair:
    """A reference, and an honest report that was written without it (or is the reference)."""

    reference: str
    honest: str


def sentences(report: str) -> list[str]:
    """Return the sentences of a report with their stops."""
    found = re.split(r"(?<=[.!?])\s+(?=\S)", report.strip())
    return [sentence for sentence in found if sentence]


def study_reports(path: Path) -> list[str]:
    """Return the distinct findings of a file of studies that have three sentences or more."""
    studies = [json.loads(line) for line in path.open(encoding="utf-8")]
    findings = dict.fromkeys(study["findings"] for study in studies if study.get("findings"))
    return [text for text in findings if len(sentences(text)) >= 3]


def phantom_reports(count: int) -> list[str]:
    """Return the findings of drawn phantoms."""
    found: dict[str, None] = {}
    for number in range(count):
        rng = np.random.default_rng([17, number])
        report = write_report(rng, sample_findings(rng))
        found[text_of(report.sentences("findings"))] = None
    return list(found)


def with_one_error(report: str, rng: random.Random) -> str:
    """Return a report with its sides swapped, or without one sentence where it names no side."""
    other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    swapped = re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda match: other[match[0]], report)
    if swapped != report:
        return swapped
    kept = sentences(report)
    kept.pop(rng.randrange(len(kept)))
    return " ".join(kept)


def same_labels(reports: Sequence[str], chosen: Sequence[str], rng: random.Random) -> list[str]:
    """Return for each chosen report another one with the same positive labels, if there is one."""
    by_labels: dict[frozenset[str], list[str]] = {}
    positives = {report: _positives(report) for report in reports}
    for report in reports:
        by_labels.setdefault(positives[report], []).append(report)
    found: list[str] = []
    for report in chosen:
        alike = [other for other in by_labels[positives[report]] if other != report]
        found.append(rng.choice(alike or [other for other in reports if other != report]))
    return found


def _positives(report: str) -> frozenset[str]:
    return frozenset(name for name, value in label_report(report).items() if value == POSITIVE)


def honest_pairs(reports: Sequence[str], count: int) -> dict[str, list[Pair]]:
    """Return kind of honest report -> pairs of ``count`` studies, drawn with a fixed seed."""
    rng = random.Random(0)
    chosen = rng.sample(list(reports), min(count, len(reports)))
    honest = {
        "own report": chosen,
        "one error in half": [
            with_one_error(report, rng) if i % 4 < 2 else report for i, report in enumerate(chosen)
        ],
        "same labels": same_labels(reports, chosen, rng),
        "another study": [rng.choice([o for o in reports if o != r]) for r in chosen],
        "normal template": [TEMPLATE] * len(chosen),
    }
    return {
        kind: [Pair(reference, text) for reference, text in zip(chosen, texts, strict=True)]
        for kind, texts in honest.items()
    }
