"""Whether a report names the side and the severity of a phantom's findings (ours).

The 14 classes know neither, and only of a phantom is it known which is right. The reports are read
by the rules of the embedded metric, whatever backend scores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmrrg.metrics.bootstrap import Aggregate
from lmrrg.metrics.embedded.claims import Claim, sentence_claims
from lmrrg.metrics.embedded.sentences import ABSENT, sentences_of
from lmrrg.studies import Study

_CLAIMS = {
    "cardiomegaly": {"cardiomegaly"},
    "pleural effusion": {"effusion"},
    "pneumothorax": {"pneumothorax"},
    "consolidation": {"consolidation", "opacity"},
    "edema": {"edema"},
    "atelectasis": {"atelectasis"},
    "nodule": {"nodule"},
    "rib fracture": {"fracture"},
    "pacemaker": {"pacemaker"},
    "central line": {"central_line"},
}
"""The findings of the claims that name each kind of a phantom's findings."""
_SIDES = {"right": {"r"}, "left": {"l"}}
_SEVERITIES = {
    "small": {1, 2},
    "mild": {1, 2},
    "moderate": {3},
    "large": {4},
    "severe": {4},
}
"""The severities of a claim that say the same; 1 is a trace."""

_SAME_SEVERITY = {
    "moderately severe": "moderate",
    "minor": "small",
    "sizable": "large",
    "pronounced": "marked",
}
"""Words of the CT phantoms' reports that the claims' lexicon does not know, and ones that it does.
"""

Truth = Mapping[str, Any]
"""One of the ``findings`` of a phantom's ``truth``."""


def finding_details(studies: Sequence[Study], reports: Sequence[str]) -> dict[str, Aggregate]:
    """Return "side" and "severity": the share of findings for which a report names the right one.

    Counted are the true findings on one side, or with a severity, that the report names. A report
    that names no side is as wrong as one that names the other or both; so is one without a
    severity, or with two. A measure of which nothing can be counted is missing, as for real films.

    >>> study = Study("s", "p", (), truth={"findings": [
    ...     {"type": "pleural effusion", "side": "left", "severity": "small"}]})
    >>> details = finding_details([study] * 2, ["Small left effusion.", "Left effusion."])
    >>> details["side"].value, details["severity"].value
    (1.0, 0.5)
    """
    rights: dict[str, Callable[[Truth, Sequence[Claim]], bool | None]] = {
        "side": _side_is_right,
        "severity": _severity_is_right,
    }
    rows = {name: np.zeros((len(studies), 2)) for name in rights}
    for number, (study, report) in enumerate(zip(studies, reports, strict=True)):
        findings: Any = study.truth.get("findings", ())
        claims = _claims(report) if findings else []
        for finding in findings:
            names = _CLAIMS.get(finding["type"], set())
            naming = [claim for claim in claims if claim.finding in names]
            for name, is_right in rights.items():
                verdict = is_right(finding, naming) if naming else None
                if verdict is not None:
                    rows[name][number] += verdict, 1
    return {name: Aggregate(table, _share) for name, table in rows.items() if table[:, 1].any()}


def _claims(report: str) -> list[Claim]:
    """Return the claims of a report that deny nothing."""
    text = report.lower()
    for words, known in _SAME_SEVERITY.items():
        text = text.replace(words, known)
    claims = chain.from_iterable(map(sentence_claims, sentences_of(text)))
    return [claim for claim in claims if claim.assertion != ABSENT]


def _side_is_right(finding: Truth, claims: Sequence[Claim]) -> bool | None:
    """Return whether the claims name the finding's side alone; None where it is not one-sided."""
    side = _SIDES.get(finding.get("side", ""))
    return None if side is None else set().union(*(claim.sides for claim in claims)) == side


def _severity_is_right(finding: Truth, claims: Sequence[Claim]) -> bool | None:
    """Return whether all severities that the claims name are right; None where it has none."""
    right = _SEVERITIES.get(finding.get("severity", ""))
    if right is None:
        return None
    named = {claim.severity for claim in claims if claim.severity}
    return bool(named) and named <= right


def _share(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return right / counted, 0 where a resample counts nothing."""
    right, counted = np.moveaxis(means, -1, 0)
    return np.divide(right, counted, out=np.zeros_like(counted), where=counted > 0)
