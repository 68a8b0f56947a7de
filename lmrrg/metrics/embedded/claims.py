"""Read the clinical claims of a report: findings with assertion, side, zone, severity and course.

Ours. RadGraph compares words; radiologists count errors: a finding missed or invented, on the
wrong side, of the wrong size. Claims are what such errors are counted on, by
:mod:`lmrrg.metrics.embedded.claim_agreement`. The findings, their weights and the words of their
attributes are in ``lexicons/claims.yaml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from lmrrg.metrics.embedded.batch_cache import SENTENCE_BATCH
from lmrrg.metrics.embedded.labeler import topics_of
from lmrrg.metrics.embedded.lexicon import ANATOMY, Phrases, phrase_table, read_yaml
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    PRESENT,
    UNCERTAIN,
    Sentence,
    read_sentence,
)
from lmrrg.studies import NEGATIVE, POSITIVE

_FINDING_OF_TOPIC = {"Cardiomegaly": "cardiomegaly", "Enlarged Cardiomediastinum": "mediastinum"}
_ASSERTION_OF_VALUE = {POSITIVE: PRESENT, NEGATIVE: ABSENT}
_STRENGTH = {PRESENT: 2, UNCERTAIN: 1, ABSENT: 0}
"""Of two claims of one finding, the stronger assertion wins."""
_VERBS = frozenset(["is", "are", "has", "have", "appears"])
_OPENERS = _VERBS | {"in", "of", "on", "at", "within", "over", "overlying", "projecting", "along"}
"""After these words, attributes belong to the finding before: "effusion on the left"."""
_JOINTS = frozenset([",", "and", "or", "with", "but", "no", "without"])
"""After these words, attributes belong to the next finding again."""
_SIDED_NAMES = frozenset(["atrium", "atrial", "ventricle", "ventricular"])
"""Before these names, "right" and "left" are part of the name and no side of the chest."""
_NONE: frozenset[str] = frozenset()


class Claim(NamedTuple):
    """One finding of a report with its attributes."""

    finding: str
    """A key of ``findings`` in ``claims.yaml``, or "acute" for any acute abnormality."""
    assertion: int
    """``PRESENT``, ``ABSENT`` or ``UNCERTAIN`` of :mod:`lmrrg.metrics.embedded.sentences`."""
    sides: frozenset[str]
    """"l" left, "r" right."""
    zones: frozenset[str]
    """"u" upper, "m" middle, "b" base, "d" diffuse."""
    severity: int
    """1 trace, 2 mild or small, 3 moderate, 4 severe or large; 0 where it is not mentioned."""
    change: frozenset[str]
    """Course since the last study: "w" worse or new, "i" improved, "s" stable."""
    mention: tuple[int, ...] = ()
    """Indices of the words that name the finding in its sentence."""
    attributes: tuple[int, ...] = ()
    """Indices of the words that give its side, zone, severity or change."""


@dataclass(frozen=True)
class ClaimLexicon:
    """Findings with their weights and relatives, and the words of their attributes."""

    phrases: Phrases
    """Phrases that name a finding; the meaning "" hides what looks like one."""
    weight: dict[str, float]
    """Finding -> what missing it costs; 1 is a finding that a reader must act on."""
    kin: dict[str, str]
    """Finding -> its family; relatives get part of the credit for each other."""
    clear_lungs: tuple[str, ...]
    """Findings that "clear" denies."""
    sides: dict[str, str]
    zones: dict[str, str]
    severity: dict[str, int]
    change: dict[str, str]
    attributes: frozenset[str]
    """All words of the four attributes."""


class _Mention(NamedTuple):
    """The words ``start`` to ``end`` (exclusive) of a sentence, which name a finding."""

    start: int
    end: int
    finding: str
    assertion: int


@cache
def claim_lexicon() -> ClaimLexicon:
    """Return the lexicon of the claims."""
    data = read_yaml("claims.yaml")
    # "Acute" is listed apart from the findings: it has no family but itself.
    findings = data["findings"] | {"acute": data["acute"] | {"kin": "acute"}}
    attribute_words = [data[name].keys() for name in ("sides", "zones", "severity", "change")]
    return ClaimLexicon(
        phrases=phrase_table(_phrases(findings, data["nothing"])),
        weight={name: finding["weight"] for name, finding in findings.items()},
        kin={name: finding["kin"] for name, finding in findings.items()},
        clear_lungs=tuple(data["clear_lungs"]),
        sides=data["sides"],
        zones=data["zones"],
        severity=data["severity"],
        change=data["change"],
        attributes=frozenset().union(*attribute_words),
    )


def _phrases(findings: dict[str, Any], nothing: list[str]) -> list[tuple[str, str]]:
    """Return (phrase, finding) of every finding, and (phrase, "") of what only looks like one."""
    phrases: list[tuple[str, str]] = []
    for name, finding in findings.items():
        phrases += [(phrase, name) for phrase in finding["phrases"]]
    return phrases + [(phrase, "") for phrase in nothing]


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
    mentions = _mentions(read)
    if not mentions:
        return ()
    owned = _owned_words(read, mentions)
    return tuple([_claim(read, mention, at) for mention, at in zip(mentions, owned, strict=True)])


def merge_claims(claims: list[Claim]) -> dict[str, Claim]:
    """Return finding -> one claim for the whole report.

    The strongest assertion of a finding wins; attributes of equally strong claims are joined.

    >>> small_left, large_right = (
    ...     sentence_claims(s)[0] for s in ("small left effusion", "large right effusion")
    ... )
    >>> merged = merge_claims([small_left, large_right])["effusion"]
    >>> merged.severity, sorted(merged.sides)
    (4, ['l', 'r'])
    """
    merged: dict[str, Claim] = {}
    for claim in claims:
        known = merged.get(claim.finding)
        if known is None or _STRENGTH[claim.assertion] > _STRENGTH[known.assertion]:
            merged[claim.finding] = claim
        elif claim.assertion == known.assertion:
            # The indices of words are dropped: they belong to two different sentences.
            merged[claim.finding] = Claim(
                claim.finding,
                claim.assertion,
                known.sides | claim.sides,
                known.zones | claim.zones,
                max(known.severity, claim.severity),
                known.change | claim.change,
            )
    return merged


def _mentions(read: Sentence) -> list[_Mention]:
    """Return every mention of a finding, in the order of the words."""
    lexicon = claim_lexicon()
    words = read.words
    found: list[_Mention] = []
    end = 0
    for i, word in enumerate(words):
        if i < end:  # inside the phrase before: the longest phrase hides the shorter ones in it
            continue
        if word in lexicon.phrases:
            for phrase, finding in lexicon.phrases[word]:
                if words[i : i + len(phrase)] == phrase:
                    end = i + len(phrase)
                    if finding:
                        found.append(_Mention(i, end, finding, read.assertions[end - 1]))
                    break
        # "The lungs are clear" denies findings that it does not name; "not clear" denies none.
        if word == "clear" and read.assertions[i] == PRESENT:
            found += [_Mention(i, i + 1, finding, ABSENT) for finding in lexicon.clear_lungs]
    for i, label, value in topics_of(read):
        if value in _ASSERTION_OF_VALUE:
            finding = _FINDING_OF_TOPIC[label]
            found.append(_Mention(i, i + 1, finding, _ASSERTION_OF_VALUE[value]))
    return sorted(found)


def _owned_words(read: Sentence, mentions: list[_Mention]) -> list[list[int]]:
    """Return for each mention the indices of the words that may describe it.

    These are the words before it, and those after "in", "is" and the like.
    """
    if claim_lexicon().attributes.isdisjoint(read.words):  # two sentences of five
        return [[] for _ in mentions]
    # Two findings may start at one word: "clear" denies two.
    starts: dict[int, list[int]] = {}
    for number, mention in enumerate(mentions):
        starts.setdefault(mention.start, []).append(number)
    owners = _AttributeOwners(mentions)
    for i, word in enumerate(read.words):
        if i in starts:
            owners.on_mentions(starts[i])
        else:
            owners.on_word(word, i, read.kinds[i])
    return owners.finish()


class _AttributeOwners:
    """One pass over a sentence that gives every word to the finding that it may describe."""

    def __init__(self, mentions: list[_Mention]):
        self.mentions = mentions
        self.owned: list[list[int]] = [[] for _ in mentions]
        """Indices of the words of each mention."""
        self.current: list[int] = []
        """Numbers of the last mentions, which own what follows an opener ("in", "is")."""
        self.pending: list[int] = []
        """Indices of words that wait for the next mention."""
        self._start_phrase()

    def _start_phrase(self) -> None:
        self.after_opener = False
        self.after_joint = False
        self.has_other_subject = False
        """Whether the words since the last joint speak of something else than the mention."""

    def on_mentions(self, numbers: list[int]) -> None:
        """Pass the first word of one or more mentions."""
        for number in numbers:
            mention = self.mentions[number]
            self.owned[number] += [*self.pending, *range(mention.start, mention.end)]
        self.current = numbers
        self.pending = []
        self._start_phrase()

    def on_word(self, word: str, i: int, kind: str) -> None:
        """Pass a word that starts no mention."""
        if word == "there" or (self.after_joint and kind == ANATOMY):
            self.has_other_subject = True
        if self.has_other_subject and word in _VERBS:
            # "Effusion and the mediastinum is shifted", "effusion, and there is": a new statement.
            self.current = []
            self._start_phrase()
        elif word in _OPENERS:
            self.after_opener = True
        elif word in _JOINTS:
            self.after_opener = False
            self.after_joint = True
        elif self.after_opener and self.current:
            for number in self.current:
                self.owned[number].append(i)
        else:
            self.pending.append(i)

    def finish(self) -> list[list[int]]:
        """Return the words of each mention; what no later mention took goes to the last ones."""
        for number in self.current:
            self.owned[number] += self.pending
        return self.owned


def _claim(read: Sentence, mention: _Mention, owned: list[int]) -> Claim:
    """Return the claim of a mention from the words that it owns."""
    lexicon = claim_lexicon()
    start, end, finding, assertion = mention
    named = tuple(range(start, end))
    attributes = tuple([i for i in owned if _is_attribute(read, i, assertion)])
    if not attributes:
        return Claim(finding, assertion, _NONE, _NONE, 0, _NONE, named)
    words = [read.words[i] for i in attributes]
    return Claim(
        finding,
        assertion,
        # A side word may stand for both sides: its entry has two letters.
        frozenset("".join([lexicon.sides.get(word, "") for word in words])),
        frozenset([lexicon.zones[word] for word in words if word in lexicon.zones]),
        max([lexicon.severity.get(word, 0) for word in words]),
        frozenset([lexicon.change[word] for word in words if word in lexicon.change]),
        named,
        attributes,
    )


def _is_attribute(read: Sentence, i: int, assertion: int) -> bool:
    """Return whether a word gives an attribute of a finding with this assertion."""
    if read.words[i] not in claim_lexicon().attributes:
        return False
    # "The effusion is not significantly changed": denied words beside a finding that is there
    # are no attributes of it.
    if assertion != ABSENT and read.assertions[i] == ABSENT:
        return False
    return _SIDED_NAMES.isdisjoint(read.words[i + 1 : i + 2])
