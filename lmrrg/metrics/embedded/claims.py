"""Read the clinical claims of a report: one for every mention of a finding, with its attributes.

Ours. RadGraph compares words; radiologists count errors: a finding missed or invented, on the
wrong side, of the wrong size, a tube in the wrong place. Claims are what such errors are counted
on, by :mod:`lmrrg.metrics.embedded.claim_agreement`. The findings, their weights and the words of
their attributes are in ``lexicons/claims.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from lmrrg.metrics.embedded.batch_cache import SENTENCE_BATCH
from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.reading.attributes import attributes_of
from lmrrg.metrics.embedded.reading.mentions import Mention, mentions_of
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    PRESENT,
    UNCERTAIN,
    Sentence,
    read_sentence,
)

_STRENGTH = {PRESENT: 2, UNCERTAIN: 1, ABSENT: 0}
"""Of two claims of one finding, the stronger assertion wins."""
_SEGMENT_ENDS = frozenset([",", "and", "while", "whereas", "but"])
"""Words between two places of one finding: "large on the right and small on the left"."""
_LEVELS = {"above": "+", "over": "+", "below": "-", "beneath": "-", "beyond": "-", "past": "-"}
_LEVEL_WINDOW = 3
"""Words before a landmark in which "above" or "below" is looked for."""
_LANDMARKS = frozenset(["carina", "diaphragm"])
_MEASURED = frozenset(["x", "by", "to"])
"""Words between the numbers of one measure: "6 x 8 mm"."""
_BOTH_SIDES = 2
_NONE: frozenset[str] = frozenset()
_NO_SIZES: frozenset[float] = frozenset()


class Claim(NamedTuple):
    """One mention of a finding with its attributes, or several that :func:`merge_claims` joined."""

    finding: str
    """A key of ``findings`` in ``claims.yaml``, or "acute" for any acute abnormality."""
    assertion: int
    """``PRESENT``, ``ABSENT`` or ``UNCERTAIN`` of :mod:`lmrrg.metrics.embedded.sentences`."""
    sides: frozenset[str]
    """"l" left, "r" right."""
    zones: frozenset[str]
    """"u" upper, "m" middle, "b" base, "d" diffuse."""
    severity: int
    """1 trace, 2 mild or small, 3 moderate, 4 severe or large; 0 where it is not mentioned.

    Of joined mentions, the greatest.
    """
    change: frozenset[str]
    """Course since the last study: "w" worse or new, "i" improved, "s" stable."""
    mention: tuple[int, ...] = ()
    """Indices of the words that name the finding in its sentence."""
    attributes: tuple[int, ...] = ()
    """Indices of the words that give its attributes."""
    mildest: int = 0
    """The least severity of joined mentions; they contradict each other where it is less than
    ``severity``."""
    sizes: frozenset[float] = _NO_SIZES
    """Measures in mm; of a device, its distance from the place."""
    places: frozenset[str] = _NONE
    """Where a device ends, by the codes of ``places`` in ``claims.yaml``."""
    number: int = 0
    """1, 2, 3, or 9 for "multiple"; 0 where it is not mentioned."""


@lru_cache(maxsize=SENTENCE_BATCH)
def sentence_claims(sentence: str) -> tuple[Claim, ...]:
    """Return the claims of one lower-case sentence, in the order of its words.

    >>> effusion, pneumothorax = sentence_claims("small left effusion without pneumothorax")
    >>> effusion.finding, effusion.assertion == PRESENT, effusion.severity, sorted(effusion.sides)
    ('effusion', True, 2, ['l'])
    >>> pneumothorax.finding, pneumothorax.assertion == ABSENT, pneumothorax.sides
    ('pneumothorax', True, frozenset())
    """
    read = read_sentence(sentence)
    mentions = mentions_of(read)
    if not mentions:
        return ()
    if claim_lexicon().attributes.isdisjoint(read.words):  # two sentences of five
        return tuple([_claim(read, mention, ()) for mention in mentions])
    claims: list[Claim] = []
    for mention, attributes in zip(mentions, attributes_of(read, mentions), strict=True):
        claims += [_claim(read, mention, part) for part in _parts(read, attributes)]
    return tuple(claims)


def merge_claims(claims: Iterable[Claim]) -> dict[str, tuple[Claim, ...]]:
    """Return finding -> its distinct claims in the whole report.

    Mentions of one finding in one place are joined, also where they contradict each other; so are
    mentions on both sides that differ in nothing else. A finding that is denied in one place and
    asserted in another is asserted; of several denials the first is kept.

    >>> small_left, large_right, right = (
    ...     sentence_claims(s)[0]
    ...     for s in ("small left effusion", "large right effusion", "effusion on the right")
    ... )
    >>> merged = merge_claims([small_left, large_right, right])["effusion"]
    >>> [(claim.severity, sorted(claim.sides)) for claim in merged]
    [(2, ['l']), (4, ['r'])]
    """
    merged: dict[str, tuple[Claim, ...]] = {}
    for claim in claims:
        known = merged.get(claim.finding)
        if known is None:
            merged[claim.finding] = (claim,)
        elif claim.assertion != ABSENT:
            if known[0].assertion == ABSENT:
                merged[claim.finding] = (claim,)
            else:
                merged[claim.finding] = _with_claim(known, claim)
    return merged


def _with_claim(known: tuple[Claim, ...], claim: Claim) -> tuple[Claim, ...]:
    """Return the claims of one finding with one more, joined to the first that it agrees with."""
    for i, other in enumerate(known):
        if share_place(other, claim) or _are_twins(other, claim):
            return (*known[:i], _join(other, claim), *known[i + 1 :])
    return (*known, claim)


def share_place(a: Claim, b: Claim) -> bool:
    """Return whether two claims of one finding may speak of the same thing.

    They do not where they name different sides, zones or sizes.

    >>> left, right, small = (
    ...     sentence_claims(s)[0] for s in ("left effusion", "right effusion", "small effusion")
    ... )
    >>> share_place(left, right), share_place(left, small)
    (False, True)
    """
    return not (
        (a.sides and b.sides and a.sides.isdisjoint(b.sides))
        or (a.zones and b.zones and a.zones.isdisjoint(b.zones))
        or (a.sizes and b.sizes and a.sizes.isdisjoint(b.sizes))
    )


def restates(claim: Claim, other: Claim) -> bool:
    """Return whether a claim says no more of a finding than another one, or contradicts its size.

    >>> small, large, left = (
    ...     sentence_claims(s)[0] for s in ("small effusion", "large effusion", "left effusion")
    ... )
    >>> restates(small, small), restates(large, small), restates(left, small)
    (True, True, False)
    """
    if claim.assertion == ABSENT or other.assertion == ABSENT:
        return claim.assertion == other.assertion
    if not share_place(claim, other):
        return False
    return bool(claim.severity and other.severity and claim.severity != other.severity) or (
        claim.sides <= other.sides
        and claim.zones <= other.zones
        and claim.change <= other.change
        and claim.sizes <= other.sizes
        and claim.places <= other.places
        and claim.severity in (0, other.severity)
    )


def _are_twins(a: Claim, b: Claim) -> bool:
    """Return whether two claims differ in their side alone."""
    return (a.zones, a.severity, a.sizes, a.places) == (b.zones, b.severity, b.sizes, b.places)


def _join(a: Claim, b: Claim) -> Claim:
    """Return one claim for two of one finding; indices of words are dropped."""
    severities = [severity for severity in (a.mildest, b.mildest) if severity]
    return Claim(
        a.finding,
        a.assertion if _STRENGTH[a.assertion] >= _STRENGTH[b.assertion] else b.assertion,
        a.sides | b.sides,
        a.zones | b.zones,
        max(a.severity, b.severity),
        a.change | b.change,
        mildest=min(severities, default=0),
        sizes=a.sizes | b.sizes,
        places=a.places | b.places,
        number=max(a.number, b.number),
    )


def _parts(read: Sentence, attributes: list[int]) -> list[tuple[int, ...]]:
    """Return the attributes of one mention, apart for each side where it says more than the side.

    "Large right, small left effusion" names two effusions, "left and right effusion" one on both
    sides. What belongs to no side, or to both, belongs to every part.
    """
    if len(attributes) <= _BOTH_SIDES:  # too few for two sides and something else
        return [tuple(attributes)]
    meaning = claim_lexicon().meanings
    segments = _segments(read, attributes)
    of_side: dict[str, list[int]] = {}
    common: list[int] = []
    for segment in segments:
        side = {letter for i in segment for letter in meaning[read.words[i]].sides}
        if len(side) == 1:
            of_side.setdefault(side.pop(), []).extend(segment)
        else:
            common += segment
    is_apart = len(of_side) == _BOTH_SIDES and any(len(part) > 1 for part in of_side.values())
    if not is_apart:
        return [tuple(attributes)]
    common = [i for i in common if not meaning[read.words[i]].sides]
    return [tuple(sorted([*common, *part])) for part in of_side.values()]


def _segments(read: Sentence, attributes: list[int]) -> list[list[int]]:
    """Return the indices in groups, cut at a comma, "and" or "while" between two of them."""
    segments: list[list[int]] = [[]]
    previous = attributes[0]
    for i in attributes:
        if not _SEGMENT_ENDS.isdisjoint(read.words[previous:i]):
            segments.append([])
        segments[-1].append(i)
        previous = i
    return segments


def _claim(read: Sentence, mention: Mention, attributes: tuple[int, ...]) -> Claim:
    """Return the claim of a mention with these attributes."""
    lexicon = claim_lexicon()
    start, end, finding, assertion = mention
    named = tuple(range(start, end))
    if not attributes:
        return Claim(finding, assertion, _NONE, _NONE, 0, _NONE, named)
    sides: list[str] = []
    zones: list[str] = []
    changes: list[str] = []
    severity = 0
    number = 0
    for i in attributes:
        meaning = lexicon.meanings[read.words[i]]
        sides.extend(meaning.sides)
        zones.extend(meaning.zone)
        changes.extend(meaning.change)
        severity = max(severity, meaning.severity)
        number = max(number, meaning.number)
    return Claim(
        finding,
        assertion,
        frozenset(sides),
        frozenset(zones),
        severity,
        frozenset(changes),
        named,
        attributes,
        severity,
        _NO_SIZES if lexicon.units.keys().isdisjoint(read.words) else _sizes(read, attributes),
        _places(read, attributes) if finding in lexicon.proper else _NONE,
        number,
    )


def _sizes(read: Sentence, attributes: tuple[int, ...]) -> frozenset[float]:
    """Return the measures in mm; of "6 x 8 mm" the greatest number."""
    units = claim_lexicon().units
    sizes: list[float] = []
    for unit in attributes:
        if read.words[unit] in units:
            numbers: list[float] = []
            i = unit - 1
            while i >= 0 and (read.words[i] in _MEASURED or _is_number(read.words[i])):
                if _is_number(read.words[i]):
                    numbers.append(float(read.words[i]))
                i -= 1
            if numbers:
                sizes.append(round(max(numbers) * units[read.words[unit]], 3))
    return frozenset(sizes) or _NO_SIZES


def _is_number(word: str) -> bool:
    return word[0].isdigit()


def _places(read: Sentence, attributes: tuple[int, ...]) -> frozenset[str]:
    """Return where a device ends; "above" and "below" a landmark are places of their own."""
    places = claim_lexicon().places
    found: list[str] = []
    for i in attributes:
        place = places.get(read.words[i])
        if place:
            around = read.words[max(0, i - _LEVEL_WINDOW) : i]
            level = next((_LEVELS[word] for word in reversed(around) if word in _LEVELS), "")
            found.append(place + level if place in _LANDMARKS else place)
    return frozenset(found)
