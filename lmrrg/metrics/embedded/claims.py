"""The clinical claims of a report: which finding, asserted or not, on which side, how severe, how it changed (ours).

RadGraph compares words; radiologists count errors: a finding missed or invented, on the wrong side, of the wrong size.
Claims are what such errors are counted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from lmrrg.metrics.embedded.labeler import topics_of
from lmrrg.metrics.embedded.lexicon import ANATOMY, Phrases, phrase_table, read_yaml
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    PRESENT,
    SENTENCES_AT_WORK,
    UNCERTAIN,
    Sentence,
    read_sentence,
)
from lmrrg.studies import NEGATIVE, POSITIVE

_TOPIC_FINDING = {"Cardiomegaly": "cardiomegaly", "Enlarged Cardiomediastinum": "mediastinum"}
_RANK = {PRESENT: 2, UNCERTAIN: 1, ABSENT: 0}
_VERBS = frozenset(["is", "are", "has", "have", "appears"])
_OPENERS = _VERBS | {"in", "of", "on", "at", "within", "over", "overlying", "projecting", "along"}
_JOINTS = frozenset([",", "and", "or", "with", "but", "no", "without"])
_SIDED_NAMES = frozenset(["atrium", "atrial", "ventricle", "ventricular"])
"""After these names, "right" and "left" are part of the name and no side of the chest."""
_OPPOSITE = {("w", "i"), ("i", "w"), ("w", "s"), ("s", "w"), ("i", "s"), ("s", "i")}
_KIN_CREDIT, _DOUBT_CREDIT, _CONTRADICTION = 0.45, 0.6, 0.3
_PRIOR, _ERROR_SCALE = 0.4, 1.0
"""``_PRIOR``: what agreeing on nothing wrong is worth; ``_ERROR_SCALE``: weighted errors that cost half."""
_NONE: frozenset[str] = frozenset()


class Claim(NamedTuple):
    """One finding of a report with everything said of it. Letters: sides l r, zones u m b d, change w i s."""

    finding: str
    assertion: int
    sides: frozenset[str]
    zones: frozenset[str]
    severity: int
    change: frozenset[str]
    mention: tuple[int, ...] = ()
    """Indices of the words that name the finding in its sentence."""
    attributes: tuple[int, ...] = ()
    """Indices of the words that say its side, place, severity or change."""


@dataclass(frozen=True)
class ClaimLexicon:
    """Findings with weights and kin, and the words of their attributes."""

    phrases: Phrases
    weight: dict[str, float]
    kin: dict[str, str]
    clear_lungs: tuple[str, ...]
    sides: dict[str, str]
    zones: dict[str, str]
    severity: dict[str, int]
    change: dict[str, str]
    attributes: frozenset[str]
    """All words of the four."""


@cache
def claim_lexicon() -> ClaimLexicon:
    """The lexicon of the claims."""
    data = read_yaml("claims.yaml")
    findings = data["findings"]
    phrases = [
        (phrase, name) for name, finding in findings.items() for phrase in finding["phrases"]
    ]
    phrases += [(phrase, "acute") for phrase in data["acute"]["phrases"]] + [
        (p, "") for p in data["nothing"]
    ]
    return ClaimLexicon(
        phrase_table(phrases),
        {name: finding["weight"] for name, finding in findings.items()}
        | {"acute": data["acute"]["weight"]},
        {name: finding["kin"] for name, finding in findings.items()} | {"acute": "acute"},
        tuple(data["clear_lungs"]),
        data["sides"],
        data["zones"],
        data["severity"],
        data["change"],
        frozenset().union(*(data[name] for name in ("sides", "zones", "severity", "change"))),
    )


@lru_cache(maxsize=SENTENCES_AT_WORK)
def sentence_claims(sentence: str) -> tuple[Claim, ...]:
    """Claims of one lower-case sentence."""
    read = read_sentence(sentence)
    mentions = _mentions(read)
    if not mentions:
        return ()
    owned = _attributes(read, mentions)
    return tuple(_claim(read, mention, at) for mention, at in zip(mentions, owned, strict=True))


def merge_claims(claims: list[Claim]) -> dict[str, Claim]:
    """One claim per finding: the strongest assertion wins, and only what is said with it is kept."""
    merged: dict[str, Claim] = {}
    for claim in claims:
        known = merged.get(claim.finding)
        if known is None or _RANK[claim.assertion] > _RANK[known.assertion]:
            merged[claim.finding] = claim
        elif claim.assertion == known.assertion:
            merged[claim.finding] = Claim(
                claim.finding,
                claim.assertion,
                known.sides | claim.sides,
                known.zones | claim.zones,
                max(known.severity, claim.severity),
                known.change | claim.change,
            )
    return merged


def claim_agreement(a: dict[str, Claim], b: dict[str, Claim]) -> float:
    """Clinical agreement of two reports in 0..1 (symmetric): half a weighted F1 of findings, half 1 / (1 + errors)."""
    weight = claim_lexicon().weight
    told_a = {f: c for f, c in a.items() if c.assertion != ABSENT}
    told_b = {f: c for f, c in b.items() if c.assertion != ABSENT}
    shared = [finding for finding in told_a if finding in told_b]
    matched = errors = 0.0
    for finding in shared:
        likeness = attribute_likeness(told_a[finding], told_b[finding])
        matched += weight[finding] * likeness
        errors += weight[finding] * (1 - likeness)
    # The gravest first, so that neither the order of a report nor Python's hash seed decides who is whose relative.
    left = {
        f: weight[f] for f in sorted(told_a.keys() - told_b.keys(), key=lambda f: (-weight[f], f))
    }
    right = {
        f: weight[f] for f in sorted(told_b.keys() - told_a.keys(), key=lambda f: (-weight[f], f))
    }
    credit, forgiven = _kin_credit(left, right)
    contradicted = sum(w for f, w in left.items() if f in b) + sum(
        w for f, w in right.items() if f in a
    )
    errors += sum(left.values()) + sum(right.values()) - forgiven + _CONTRADICTION * contradicted
    total = sum(weight[f] for f in told_a) + sum(weight[f] for f in told_b)
    f1 = (2 * (matched + credit) + _PRIOR) / (total + _CONTRADICTION * contradicted + _PRIOR)
    return 0.5 * f1 + 0.5 / (1 + errors / _ERROR_SCALE)


def attribute_likeness(a: Claim, b: Claim) -> float:
    """How alike two claims of one finding are, 1 for alike to 0.1: side, severity, place, change and doubt."""
    likeness = 1.0
    if a.sides != b.sides:
        likeness -= 0.1 if not (a.sides and b.sides) else 0.6 if a.sides & b.sides else 0.8
    if a.severity != b.severity:
        likeness -= (
            0.07
            if not (a.severity and b.severity)
            else (0.15, 0.6, 0.75)[abs(a.severity - b.severity) - 1]
        )
    if a.zones != b.zones:
        likeness -= 0.07 if not (a.zones and b.zones) else 0.1 if a.zones & b.zones else 0.55
    if any((x, y) in _OPPOSITE for x in a.change for y in b.change) and not a.change & b.change:
        likeness -= 0.25
    if a.assertion != b.assertion:
        likeness -= 1 - _DOUBT_CREDIT
    return max(likeness, 0.1)


def _kin_credit(left: dict[str, float], right: dict[str, float]) -> tuple[float, float]:
    """Credit for findings that stand for a near relative, and the errors that it forgives; each is used once."""
    kin = claim_lexicon().kin
    free = dict(right)
    credit = forgiven = 0.0
    for finding, weight in left.items():
        partner = next((f for f in free if kin[f] == kin[finding]), None)
        if partner is not None:
            credit += _KIN_CREDIT * min(weight, free[partner])
            forgiven += 2 * _KIN_CREDIT * min(weight, free.pop(partner))
    return credit, forgiven


def _mentions(read: Sentence) -> list[tuple[int, int, str, int]]:
    """(start, end, finding, assertion) of every mention, in the order of the words."""
    lexicon, words = claim_lexicon(), read.words
    found: list[tuple[int, int, str, int]] = []
    end = 0
    for i, word in enumerate(words):
        if i < end:
            continue
        if word in lexicon.phrases:
            for phrase, finding in lexicon.phrases[word]:
                if words[i : i + len(phrase)] == phrase:
                    end = i + len(phrase)
                    if finding:
                        found.append((i, end, finding, read.assertions[end - 1]))
                    break
        if word == "clear" and read.assertions[i] == PRESENT:
            found += [(i, i + 1, finding, ABSENT) for finding in lexicon.clear_lungs]
    for i, label, value in topics_of(read):
        if value in (POSITIVE, NEGATIVE):
            found.append(
                (i, i + 1, _TOPIC_FINDING[label], PRESENT if value == POSITIVE else ABSENT)
            )
    return sorted(found)


def _attributes(read: Sentence, mentions: list[tuple[int, int, str, int]]) -> list[list[int]]:
    """Indices of the attribute words of each mention: those before it, and those after "in", "is" and the like."""
    if claim_lexicon().attributes.isdisjoint(read.words):  # two sentences of five
        return [[] for _ in mentions]
    starts: dict[int, list[int]] = {}
    for number, (start, _, _, _) in enumerate(mentions):
        starts.setdefault(start, []).append(number)
    owners = _Owners(len(mentions))
    for i, word in enumerate(read.words):
        if i in starts:
            owners.on_mentions(starts[i], mentions)
        else:
            owners.on_word(word, i, read.kinds[i])
    for number in owners.current:
        owners.owned[number] += owners.pending
    return owners.owned


class _Owners:
    """One pass over a sentence: who owns the words that say side, place, severity and change."""

    def __init__(self, mentions: int):
        self.owned: list[list[int]] = [[] for _ in range(mentions)]
        self.current: list[int] = []
        """The last mentions, which get what follows an opener."""
        self.pending: list[int] = []
        """Words for the next mention."""
        self.after = self.joined = self.subject = False

    def on_mentions(self, numbers: list[int], mentions: list[tuple[int, int, str, int]]) -> None:
        for number in numbers:
            start, end, _, _ = mentions[number]
            self.owned[number] += [*self.pending, *range(start, end)]
        self.current, self.pending = numbers, []
        self.after = self.joined = self.subject = False

    def on_word(self, word: str, i: int, kind: str) -> None:
        self.subject = self.subject or word == "there" or (self.joined and kind == ANATOMY)
        if (
            self.subject and word in _VERBS
        ):  # "and the mediastinum is shifted", "and there is": of something else
            self.current = []
            self.after = self.joined = self.subject = False
        elif word in _OPENERS:
            self.after = True
        elif word in _JOINTS:
            self.after, self.joined = False, True
        elif self.after and self.current:
            for number in self.current:
                self.owned[number].append(i)
        else:
            self.pending.append(i)


def _claim(read: Sentence, mention: tuple[int, int, str, int], owned: list[int]) -> Claim:
    lexicon = claim_lexicon()
    start, end, finding, assertion = mention
    # "The effusion is not significantly changed": what is denied beside a finding that is there says nothing of it.
    named = [i for i in owned if read.words[i] in lexicon.attributes]
    told = [i for i in named if assertion == ABSENT or read.assertions[i] != ABSENT]
    attributes = tuple([i for i in told if _SIDED_NAMES.isdisjoint(read.words[i + 1 : i + 2])])
    if not attributes:
        return Claim(finding, assertion, _NONE, _NONE, 0, _NONE, tuple(range(start, end)))
    words = [read.words[i] for i in attributes]
    sides = frozenset(side for word in words for side in lexicon.sides.get(word, ""))
    zones = frozenset(lexicon.zones[word] for word in words if word in lexicon.zones)
    severity = max(lexicon.severity.get(word, 0) for word in words)
    change = frozenset(lexicon.change[word] for word in words if word in lexicon.change)
    return Claim(
        finding, assertion, sides, zones, severity, change, tuple(range(start, end)), attributes
    )
