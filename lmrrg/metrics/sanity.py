"""Signs that a system ignores the image or does not write reports, whatever its scores are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmrrg.metrics.embedded.reading.language import is_readable
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import is_empty


@dataclass(frozen=True)
class SanityLimits:
    """From which fraction of the studies on a check fails; 0.1 is 10%."""

    distinct_of_references: float = 0.1
    """Fewer distinct reports than this fraction of the distinct references."""
    unfinished: float = 0.05
    """More reports than this that did not end with EOS."""
    same_for_blank_image: float = 0.5
    """More studies than this whose report is identical for a blank or noise image."""
    same_for_other_patient: float = 0.9
    """The same for another patient's image.

    More is allowed, because two normal studies may share a report.
    """


@dataclass(frozen=True)
class SanityFinding:
    """One failed check; ``code`` is stable."""

    code: str
    message: str


class SanityError(ValueError):
    """An evaluation whose reports fail a sanity check.

    ``findings`` holds every failed check, ``code`` is that of the first.
    """

    def __init__(self, findings: Sequence[SanityFinding]):
        super().__init__("; ".join(f"{finding.code}: {finding.message}" for finding in findings))
        self.findings = tuple(findings)
        self.code = findings[0].code


def check_reports(
    reports: Sequence[str],
    references: Sequence[str],
    *,
    finished: Sequence[bool] | None = None,
    blank_image: Sequence[str] | None = None,
    other_patient: Sequence[str] | None = None,
    limits: SanityLimits | None = None,
) -> list[SanityFinding]:
    """Check N generated reports; an empty list means that nothing is wrong.

    ``finished`` is True for reports that ended with EOS. ``blank_image`` and ``other_patient`` are
    the reports of the same system for the same N studies when its input is a blank (or noise)
    image, or another patient's image.

    A system that writes one report for everybody:

    >>> found = check_reports(["Clear."] * 3, ["Clear.", "Small effusion.", "Pneumonia."])
    >>> found[0].code, found[0].message
    ('few_distinct_reports', '1 distinct reports for 3 studies with 3 references')

    Raises:
        MetricError: ``length_mismatch``.
    """
    limits = limits or SanityLimits()
    for other in (references, finished, blank_image, other_patient):
        if other is not None and len(other) != len(reports):
            raise MetricError(
                "length_mismatch",
                f"a sanity check of {len(reports)} reports got {len(other)} items",
            )
    findings = [
        _few_distinct(reports, references, limits),
        _empty(reports),
        _unreadable(reports, references),
        _unfinished(finished, limits),
        _same(reports, blank_image, limits.same_for_blank_image, "a blank image"),
        _same(reports, other_patient, limits.same_for_other_patient, "another patient's image"),
    ]
    return [finding for finding in findings if finding]


def require_sane(findings: Sequence[SanityFinding]) -> None:
    """Raise :class:`SanityError` where there is any finding.

    >>> require_sane([SanityFinding("empty_reports", "1 of 2 reports are empty")])
    Traceback (most recent call last):
        ...
    lmrrg.metrics.sanity.SanityError: empty_reports: 1 of 2 reports are empty
    """
    if findings:
        raise SanityError(findings)


def _few_distinct(
    reports: Sequence[str], references: Sequence[str], limits: SanityLimits
) -> SanityFinding | None:
    distinct = len(set(reports))
    possible = len(set(references))
    # One distinct report fails even where 10% of the references would be less than two.
    if possible < 2 or distinct >= max(2.0, limits.distinct_of_references * possible):
        return None
    return SanityFinding(
        "few_distinct_reports",
        f"{distinct} distinct reports for {len(reports)} studies with {possible} references",
    )


def _empty(reports: Sequence[str]) -> SanityFinding | None:
    count = sum(map(is_empty, reports))
    if not count:
        return None
    return SanityFinding("empty_reports", f"{count} of {len(reports)} reports are empty")


def _unreadable(reports: Sequence[str], references: Sequence[str]) -> SanityFinding | None:
    generated = sum(not is_empty(text) and not is_readable(text) for text in reports)
    truth = sum(not is_empty(text) and not is_readable(text) for text in references)
    if not generated + truth:
        return None
    return SanityFinding(
        "unreadable",
        "RadCliQ and the findings are read from English reports of the chest only: "
        f"{truth} of {len(references)} references (not scored) and {generated} of {len(reports)} "
        "reports have too few known words",
    )


def _unfinished(finished: Sequence[bool] | None, limits: SanityLimits) -> SanityFinding | None:
    count = 0 if finished is None else sum(not end for end in finished)
    if finished is None or count <= limits.unfinished * len(finished):
        return None
    return SanityFinding(
        "unfinished_reports", f"{count} of {len(finished)} reports did not end with EOS"
    )


def _same(
    reports: Sequence[str], others: Sequence[str] | None, limit: float, what: str
) -> SanityFinding | None:
    if others is None:
        return None
    count = sum(a == b for a, b in zip(reports, others, strict=True))
    if count <= limit * len(reports):
        return None
    return SanityFinding(
        "image_ignored", f"{count} of {len(reports)} reports are word for word the same for {what}"
    )
