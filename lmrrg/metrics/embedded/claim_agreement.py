"""Compare the claims of two reports as a reader would: by the errors between them (ours).

The weights of the findings are in ``lexicons/claims.yaml``; what an error costs is in the
constants below. All of them were set by hand from what such an error means in a reading room.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from lmrrg.metrics.embedded.claims import Claim, claim_lexicon
from lmrrg.metrics.embedded.sentences import ABSENT


class _SetCost(NamedTuple):
    """What a difference between two attributes costs; each attribute is a set of letters."""

    unsaid: float
    """One report does not mention the attribute."""
    overlapping: float
    """The sets have a letter in common: "left" for "bilateral"."""
    disjoint: float
    """The sets contradict each other: "left" for "right"."""


_SIDE_COST = _SetCost(unsaid=0.1, overlapping=0.6, disjoint=0.8)
_ZONE_COST = _SetCost(unsaid=0.07, overlapping=0.1, disjoint=0.55)
_UNSAID_SEVERITY_COST = 0.07
_SEVERITY_COST = (0.0, 0.15, 0.6, 0.75)
"""By the steps between two severities."""
_CHANGE_COST = 0.25
_DOUBT_CREDIT = 0.6
"""Credit for a finding that one report asserts and the other only suspects."""
_LEAST_LIKENESS = 0.1
"""Credit for naming the right finding with every attribute wrong."""
_KIN_CREDIT = 0.45
"""Credit for a relative of a finding, such as an opacity for a pneumonia."""
_CONTRADICTION = 0.3
"""Extra errors for a finding that the other report denies, in units of its weight."""
_PRIOR = 0.4
"""Weight of agreeing on nothing wrong: two normal reports have an F1 of 1, and no F1 is 0."""
_ERROR_SCALE = 1.0
"""Weighted errors that halve the second half of the agreement."""


def claim_agreement(a: dict[str, Claim], b: dict[str, Claim]) -> float:
    """Return the clinical agreement of two reports in [0, 1]; it is symmetric.

    Half of it is a weighted F1 of the findings, half is 1 / (1 + weighted errors). ``a`` and ``b``
    are what :func:`~lmrrg.metrics.embedded.claims.merge_claims` returns.

    >>> from lmrrg.metrics.embedded.claims import merge_claims, sentence_claims
    >>> def claims(sentence):
    ...     return merge_claims(list(sentence_claims(sentence)))
    >>> truth = claims("small left effusion")
    >>> round(claim_agreement(truth, claims("tiny effusion on the left")), 3)
    0.872
    >>> round(claim_agreement(truth, claims("small right effusion")), 3)
    0.444
    >>> round(claim_agreement(truth, claims("no effusion")), 3)
    0.335
    """
    weight = claim_lexicon().weight
    affirmed_a = _affirmed(a)
    affirmed_b = _affirmed(b)
    matched = 0.0
    errors = 0.0
    for finding, claim in affirmed_a.items():
        if finding in affirmed_b:
            likeness = attribute_likeness(claim, affirmed_b[finding])
            matched += weight[finding] * likeness
            errors += weight[finding] * (1 - likeness)
    only_a = _weights(affirmed_a.keys() - affirmed_b.keys())
    only_b = _weights(affirmed_b.keys() - affirmed_a.keys())
    credit, forgiven = _kin_credit(only_a, only_b)
    # A finding of one side alone that the other side mentions is one that the other denies.
    contradicted = sum([w for finding, w in only_a.items() if finding in b])
    contradicted += sum([w for finding, w in only_b.items() if finding in a])
    errors += sum(only_a.values()) + sum(only_b.values()) - forgiven + _CONTRADICTION * contradicted
    total = sum([weight[finding] for finding in affirmed_a])
    total += sum([weight[finding] for finding in affirmed_b])
    f1 = (2 * (matched + credit) + _PRIOR) / (total + _CONTRADICTION * contradicted + _PRIOR)
    return 0.5 * f1 + 0.5 / (1 + errors / _ERROR_SCALE)


def attribute_likeness(a: Claim, b: Claim) -> float:
    """Return how alike two claims of one finding are, from 0.1 to 1.

    Compared are side, severity, zone, change and doubt.

    >>> from lmrrg.metrics.embedded.claims import sentence_claims
    >>> small, large = (sentence_claims(f"{size} effusion")[0] for size in ("small", "large"))
    >>> attribute_likeness(small, small), attribute_likeness(small, large)
    (1.0, 0.4)
    """
    likeness = 1.0
    likeness -= _set_cost(a.sides, b.sides, _SIDE_COST)
    likeness -= _severity_cost(a.severity, b.severity)
    likeness -= _set_cost(a.zones, b.zones, _ZONE_COST)
    # An unmentioned change costs nothing: many reports have no study to compare with.
    if a.change and b.change and a.change.isdisjoint(b.change):
        likeness -= _CHANGE_COST
    if a.assertion != b.assertion:
        likeness -= 1 - _DOUBT_CREDIT
    return max(likeness, _LEAST_LIKENESS)


def _set_cost(a: frozenset[str], b: frozenset[str], cost: _SetCost) -> float:
    if a == b:
        return 0.0
    if not a or not b:
        return cost.unsaid
    return cost.disjoint if a.isdisjoint(b) else cost.overlapping


def _severity_cost(a: int, b: int) -> float:
    if a == b:
        return 0.0
    return _SEVERITY_COST[abs(a - b)] if a and b else _UNSAID_SEVERITY_COST


def _affirmed(claims: dict[str, Claim]) -> dict[str, Claim]:
    """Return the claims of findings that are asserted or suspected."""
    return {finding: claim for finding, claim in claims.items() if claim.assertion != ABSENT}


def _weights(findings: Set[str]) -> dict[str, float]:
    """Return finding -> weight, the gravest first.

    The order decides which findings stand for which relatives. It must depend neither on the order
    of a report nor on Python's hash seed.
    """
    weight = claim_lexicon().weight
    return {f: weight[f] for f in sorted(findings, key=lambda f: (-weight[f], f))}


def _kin_credit(only_a: dict[str, float], only_b: dict[str, float]) -> tuple[float, float]:
    """Return the credit for findings that stand for a relative, and the errors that it forgives.

    Each finding stands for one relative at most.
    """
    kin = claim_lexicon().kin
    free = dict(only_b)
    credit = 0.0
    forgiven = 0.0
    for finding, weight in only_a.items():
        relative = next((other for other in free if kin[other] == kin[finding]), None)
        if relative is not None:
            lesser = min(weight, free.pop(relative))
            credit += _KIN_CREDIT * lesser
            # Without the credit, both findings would be errors.
            forgiven += 2 * _KIN_CREDIT * lesser
    return credit, forgiven
