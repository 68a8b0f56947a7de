"""Write a report from labels alone, with sentences learnt from training reports (ours).

What such a report scores is due to the labels: it shows how far a language model gets beyond its
image classifier, and, from the true labels, how far any labels could take it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmrrg.evaluation.baselines import BaselineError, best_constant_report, spread
from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.radcliq import radcliq_v1
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, is_abnormal

FINDINGS = tuple(label for label in LABELS if label != "No Finding")
"""The 13 classes that a template states; a report that states none is a normal one."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_JUDGES = 100
"""Training sentences or reports that a choice is scored against."""


@dataclass(frozen=True)
class Template:
    """The sentences of a template writer.

    Attributes:
        stated: the sentence that states each finding; one that no training sentence states alone
            is missing and never written.
        normal: the sentences of a report without any finding.
        replaced: the sentences of ``normal`` that are left out beside each finding of ``stated``.
    """

    stated: Mapping[str, str]
    normal: tuple[str, ...]
    replaced: Mapping[str, frozenset[str]]

    def write(self, findings: Collection[str]) -> str:
        """Return the report that states these findings, and of the rest that it is normal."""
        written = [finding for finding in self.stated if finding in findings]
        left_out = frozenset().union(*(self.replaced[finding] for finding in written))
        kept = [sentence for sentence in self.normal if sentence not in left_out]
        return " ".join([*(self.stated[finding] for finding in written), *kept])


def learn_template(reports: Sequence[str], backend: Backend) -> Template:
    """Learn the sentences of a template from training reports.

    - A finding's sentence is one that states it and no other class, by the labeler: the one with
      the best mean score by the metric against others of that kind.
    - The normal report is the best constant one among reports without any positive or uncertain
      class.
    - A normal sentence is left out beside a finding where it denies it, or where training reports
      with that finding score better without it.

    Raises:
        BaselineError: ``no_normal_report``, or as
            :func:`~lmrrg.evaluation.baselines.best_constant_report`.
    """
    labels = backend.labeler.label(reports)
    normal = [
        report
        for report, found in zip(reports, labels, strict=True)
        if found and not is_abnormal(found, count_uncertain=True)
    ]
    if not normal:
        raise BaselineError(
            "no_normal_report",
            "no training report is without any abnormal finding",
        )
    stated = {
        finding: best_constant_report(sentences, backend, judges=_JUDGES)
        for finding, sentences in _sentences_by_finding(reports, backend).items()
    }
    kept = tuple(sentences_of_report(best_constant_report(normal, backend)))
    replaced = {}
    for finding, sentence in stated.items():
        with_finding = [
            report
            for report, found in zip(reports, labels, strict=True)
            if found.get(finding) == POSITIVE
        ]
        # A labeler may find less in a report than in its sentence alone.
        references = spread(with_finding or [sentence], _JUDGES)
        replaced[finding] = _replaced(finding, sentence, kept, references, backend)
    return Template(stated, kept, replaced)


def sentences_of_report(report: str) -> list[str]:
    """Return the sentences of a report as they are written.

    >>> sentences_of_report("Heart size is 5.5 cm. Clear lungs.")
    ['Heart size is 5.5 cm.', 'Clear lungs.']
    """
    return [sentence for sentence in _SENTENCE_END.split(report.strip()) if sentence]


def _sentences_by_finding(reports: Sequence[str], backend: Backend) -> dict[str, list[str]]:
    """Return the training sentences that state one finding and no other class, by finding.

    A sentence that occurs in several reports is there as often.
    """
    sentences = [sentence for report in reports for sentence in sentences_of_report(report)]
    distinct = list(dict.fromkeys(sentences))
    label_of = dict(zip(distinct, backend.labeler.label(distinct), strict=True))
    found = defaultdict(list)
    for sentence in sentences:
        labels = label_of[sentence]
        if len(labels) == 1 and POSITIVE in labels.values():
            found[next(iter(labels))].append(sentence)
    return {finding: found[finding] for finding in FINDINGS if finding in found}


def _replaced(
    finding: str, stated: str, normal: Sequence[str], judges: Sequence[str], backend: Backend
) -> frozenset[str]:
    """Return the normal sentences that are left out beside a finding; ``judges`` are reports."""
    denying = {
        sentence
        for sentence, labels in zip(normal, backend.labeler.label(normal), strict=True)
        if labels.get(finding) == NEGATIVE
    }
    others = [sentence for sentence in normal if sentence not in denying]
    reports = [" ".join([stated, *others])]
    reports += [" ".join([stated, *_without(others, sentence)]) for sentence in others]
    parts = score_parts(
        backend,
        [report for report in reports for _ in judges],
        [judge for _ in reports for judge in judges],
    )
    scores = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
    whole, *without = np.nanmean(scores.reshape(len(reports), len(judges)), axis=1)
    worse = [sentence for sentence, score in zip(others, without, strict=True) if score < whole]
    return frozenset([*denying, *worse])


def _without(sentences: Sequence[str], left_out: str) -> list[str]:
    return [sentence for sentence in sentences if sentence != left_out]
