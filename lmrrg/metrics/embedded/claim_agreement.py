"""Compare the claims of two reports as a reader would: by the errors between them (ours).

The weights of the findings are in ``lexicons/claims.yaml``; what an error costs is in the
constants below. All of them were set by hand from what such an error means in a reading room.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import NamedTuple

from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.claims import Claim
from lmrrg.metrics.embedded.sentences import ABSENT

Claims = dict[str, tuple[Claim, ...]]
"""Finding -> its distinct claims in one report."""
_STABLE = frozenset("s")
_IMPROVED = frozenset("i")
_LEAST_SIZE = 0.1
"""Smaller measures, in mm, count as this one, so that a ratio exists."""


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
_SEVERITY_COST = (0.0, 0.2, 0.6, 0.75)
"""By the steps between two severities."""
_CHANGE_COST = 0.4
"""Both reports name a course, and not the same."""
_INVENTED_CHANGE_COST = 0.45
"""A finding is new, worse or better than before, and the reference compares with nothing."""
_INVENTED_STABLE_COST = 0.1
_OMITTED_CHANGE_COST = 0.1
_SIZE_COST = 0.35
"""For a size e times as large; 0.24 for one twice as large."""
_GREATEST_SIZE_COST = 0.85
_UNSAID_SIZE_COST = 0.05
_NUMBER_COST = 0.2
_PLACE_COST = _SetCost(unsaid=0.07, overlapping=0.15, disjoint=0.4)
_MALPOSITION_COST = 0.85
"""A device that ends where it should, in one report, and where it should not, in the other."""
_ANOTHER = 0.7
"""What one more claim of a finding weighs that both reports name, in units of its weight."""
_DOUBT_CREDIT = 0.6
"""Credit for a finding that one report asserts and the other only suspects."""
_LEAST_LIKENESS = 0.1
"""Credit for naming the right finding with every attribute wrong."""
_KIN_CREDIT = 0.45
"""Credit for a relative of a finding, such as an opacity for a pneumonia."""
_CONTRADICTION = 0.3
"""Extra errors for a finding that the other report denies, in units of its weight."""
_LEAST_INVENTED = 0.6
"""What an invented finding weighs at least: to a reader, none is free."""
_INVENTED_RESOLUTION = 0.6
"""A finding has gone, and the reference compares it with nothing, in units of its weight."""
_PRIOR = 0.4
"""Weight of agreeing on nothing wrong: two normal reports have an F1 of 1, and no F1 is 0."""
_ERROR_SCALE = 1.0
"""Weighted errors that halve the second half of the agreement."""


class ClaimAgreement(NamedTuple):
    """How the claims of two reports compare."""

    agreement: float
    """From 0 to 1."""
    invented: float
    """Weight of what the hypothesis asserts and the reference, in no related form, does not."""


def claim_agreement(hypothesis: Claims, reference: Claims, unnamed: float = 0.0) -> ClaimAgreement:
    """Compare the claims of two reports.

    Half of the agreement is a weighted F1 of the findings, half is 1 / (1 + weighted errors). It
    is symmetric but for a course that only one report names and for invented findings, none of
    which weighs less than 0.6.

    Args:
        hypothesis: what :func:`~lmrrg.metrics.embedded.claims.merge_claims` returns.
        reference: the same of the other report.
        unnamed: weight of the hypothesis' invented findings that are no claims.

    >>> from lmrrg.metrics.embedded.claims import merge_claims, sentence_claims
    >>> def claims(sentence):
    ...     return merge_claims(sentence_claims(sentence))
    >>> truth = claims("small left effusion")
    >>> round(claim_agreement(claims("tiny effusion on the left"), truth).agreement, 3)
    0.833
    >>> round(claim_agreement(claims("small right effusion"), truth).agreement, 3)
    0.444
    >>> round(claim_agreement(claims("no effusion"), truth).agreement, 3)
    0.335
    """
    weight = claim_lexicon().weight
    affirmed_a = _affirmed(hypothesis)
    affirmed_b = _affirmed(reference)
    matched = 0.0
    errors = 0.0
    total = 0.0
    for finding, claims in affirmed_a.items():
        if finding in affirmed_b:
            match = _match(claims, affirmed_b[finding])
            matched += weight[finding] * match.matched
            errors += weight[finding] * match.errors
            total += weight[finding] * match.total
    only_a = _weights(affirmed_a.keys() - affirmed_b.keys())
    only_b = _weights(affirmed_b.keys() - affirmed_a.keys())
    kin = _kin_credit(only_a, only_b)
    invented = _of_other_families(kin.unrelated, affirmed_b)
    # A finding of one side alone that the other side mentions is one that the other denies.
    contradicted = sum([w for finding, w in only_a.items() if finding in reference])
    contradicted += sum([w for finding, w in only_b.items() if finding in hypothesis])
    # An invented finding of a new family weighs at least the minimum.
    more = [max(0.0, _LEAST_INVENTED - only_a[finding]) for finding in invented]
    invented_weight = unnamed + sum(more) + sum([only_a[finding] for finding in invented])
    alone = sum(only_a.values()) + unnamed + sum(more) + sum(only_b.values())
    false = _CONTRADICTION * contradicted + _INVENTED_RESOLUTION * _resolved(hypothesis, reference)
    errors += alone - kin.forgiven + false
    total += alone + false
    f1 = (2 * (matched + kin.credit) + _PRIOR) / (total + _PRIOR)
    return ClaimAgreement(0.5 * f1 + 0.5 / (1 + errors / _ERROR_SCALE), invented_weight)


def _resolved(hypothesis: Claims, reference: Claims) -> float:
    """Return the weight of findings that the hypothesis alone says were there and have gone."""
    weight = claim_lexicon().weight
    gone = 0.0
    for finding, claims in hypothesis.items():
        if claims[0].assertion != ABSENT or claims[0].change.isdisjoint(_IMPROVED):
            continue
        if not any([claim.change for claim in reference.get(finding, ())]):
            gone += weight[finding]
    return gone


class _Match(NamedTuple):
    """How the claims of one finding in two reports compare, in units of its weight."""

    matched: float
    errors: float
    total: float


def _match(hypothesis: tuple[Claim, ...], reference: tuple[Claim, ...]) -> _Match:
    """Compare two reports' claims of one finding.

    Each claim answers for one of the other side at most, the most alike first.
    """
    if len(hypothesis) == 1 and len(reference) == 1:  # almost always
        likeness = attribute_likeness(hypothesis[0], reference[0])
        return _Match(likeness, 1 - likeness, 2.0)
    ours = _by_side(hypothesis)
    theirs = _by_side(reference)
    pairs = sorted(
        [
            (-attribute_likeness(a, b), i, j)
            for i, a in enumerate(ours)
            for j, b in enumerate(theirs)
        ]
    )
    taken_a: set[int] = set()
    taken_b: set[int] = set()
    matched = 0.0
    errors = 0.0
    for dislikeness, i, j in pairs:
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            matched -= dislikeness
            errors += 1 + dislikeness
    # The first claim of each side weighs in full, each further one _ANOTHER.
    share = (1 + _ANOTHER * (len(taken_a) - 1)) / len(taken_a)
    surplus = len(ours) + len(theirs) - 2 * len(taken_a)
    return _Match(
        share * matched,
        share * errors + _ANOTHER * surplus,
        share * 2 * len(taken_a) + _ANOTHER * surplus,
    )


def _by_side(claims: tuple[Claim, ...]) -> list[Claim]:
    """Return the claims with each one of both sides as two."""
    found: list[Claim] = []
    for claim in claims:
        if len(claim.sides) > 1:
            found += [claim._replace(sides=frozenset([side])) for side in sorted(claim.sides)]
        else:
            found.append(claim)
    return found


def attribute_likeness(hypothesis: Claim, reference: Claim) -> float:
    """Return how alike two claims of one finding are, from 0.1 to 1.

    Compared are side, severity, zone, course, size, number, the place of a device, and doubt.

    >>> from lmrrg.metrics.embedded.claims import sentence_claims
    >>> small, large = (sentence_claims(f"{size} effusion")[0] for size in ("small", "large"))
    >>> attribute_likeness(small, small), attribute_likeness(small, large)
    (1.0, 0.4)
    """
    if hypothesis[2:] == reference[2:] and hypothesis.assertion == reference.assertion:
        return 1.0
    cost = _set_cost(hypothesis.sides, reference.sides, _SIDE_COST)
    cost += _severity_cost(hypothesis, reference)
    cost += _set_cost(hypothesis.zones, reference.zones, _ZONE_COST)
    cost += _change_cost(hypothesis.change, reference.change)
    if hypothesis.sizes or reference.sizes:
        cost += _size_cost(hypothesis.sizes, reference.sizes)
    if hypothesis.places or reference.places:
        cost += _place_cost(hypothesis, reference)
    if hypothesis.number and reference.number and hypothesis.number != reference.number:
        cost += _NUMBER_COST
    if hypothesis.assertion != reference.assertion:
        cost += 1 - _DOUBT_CREDIT
    return max(1.0 - cost, _LEAST_LIKENESS)


def _set_cost(a: frozenset[str], b: frozenset[str], cost: _SetCost) -> float:
    if a == b:
        return 0.0
    if not a or not b:
        return cost.unsaid
    return cost.disjoint if a.isdisjoint(b) else cost.overlapping


def _severity_cost(a: Claim, b: Claim) -> float:
    """Return the cost of two severities; of contradictory ones, the one that is further off."""
    if a.severity == b.severity and a.mildest == b.mildest:
        return 0.0
    if not a.severity or not b.severity:
        return _UNSAID_SEVERITY_COST
    return _SEVERITY_COST[max(abs(a.severity - b.severity), abs(a.mildest - b.mildest))]


def _change_cost(hypothesis: frozenset[str], reference: frozenset[str]) -> float:
    if hypothesis == reference:
        return 0.0
    if not hypothesis:
        return _OMITTED_CHANGE_COST
    if not reference:
        return _INVENTED_STABLE_COST if hypothesis == _STABLE else _INVENTED_CHANGE_COST
    return _CHANGE_COST


def _size_cost(a: frozenset[float], b: frozenset[float]) -> float:
    """Return the cost of two sets of measures: of the measure that fits the other side least."""
    if a == b:
        return 0.0
    if not a or not b:
        return _UNSAID_SIZE_COST
    worst = max([*[_least_ratio(x, b) for x in a], *[_least_ratio(x, a) for x in b]])
    return min(_SIZE_COST * math.log(worst), _GREATEST_SIZE_COST)


def _least_ratio(size: float, others: frozenset[float]) -> float:
    """Return how many times the nearest of the others is larger or smaller."""
    size = max(size, _LEAST_SIZE)
    return min([max(size, other) / min(size, max(other, _LEAST_SIZE)) for other in others])


def _place_cost(a: Claim, b: Claim) -> float:
    """Return the cost of two places of a device, most where only one of them is proper."""
    if a.places == b.places:
        return 0.0
    if not a.places or not b.places:
        return _PLACE_COST.unsaid
    proper = claim_lexicon().proper[a.finding]
    if (a.places <= proper) != (b.places <= proper):
        return _MALPOSITION_COST
    if "ok" in a.places | b.places or "bad" in a.places | b.places:
        return _PLACE_COST.unsaid
    return _set_cost(a.places, b.places, _PLACE_COST)


def _affirmed(claims: Claims) -> Claims:
    """Return the claims of findings that are asserted or suspected."""
    return {finding: found for finding, found in claims.items() if found[0].assertion != ABSENT}


def _weights(findings: Set[str]) -> dict[str, float]:
    """Return finding -> weight, the gravest first.

    The order decides which findings stand for which relatives. It must depend neither on the order
    of a report nor on Python's hash seed.
    """
    weight = claim_lexicon().weight
    return {f: weight[f] for f in sorted(findings, key=lambda f: (-weight[f], f))}


def _of_other_families(findings: list[str], claims: Claims) -> list[str]:
    """Return the findings of whose families the claims assert none."""
    if not findings:
        return []
    kin = claim_lexicon().kin
    families = [kin[finding] for finding in claims]
    return [finding for finding in findings if kin[finding] not in families]


class _KinCredit(NamedTuple):
    """What findings are worth that stand for a relative."""

    credit: float
    forgiven: float
    """Errors that the credit forgives."""
    unrelated: list[str]
    """The findings of the first report without a relative in the second."""


def _kin_credit(only_a: dict[str, float], only_b: dict[str, float]) -> _KinCredit:
    """Let each finding stand for one relative at most."""
    kin = claim_lexicon().kin
    free = dict(only_b)
    credit = 0.0
    forgiven = 0.0
    unrelated: list[str] = []
    for finding, weight in only_a.items():
        relative = next((other for other in free if kin[other] == kin[finding]), None)
        if relative is None:
            unrelated.append(finding)
        else:
            lesser = min(weight, free.pop(relative))
            credit += _KIN_CREDIT * lesser
            # Without the credit, both findings would be errors.
            forgiven += 2 * _KIN_CREDIT * lesser
    return _KinCredit(credit, forgiven, unrelated)
