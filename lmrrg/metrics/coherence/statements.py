"""The statements of a report: its claims, each with the sentence that it stands in."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

from lmrrg.metrics.coherence.fault import Cut
from lmrrg.metrics.embedded.batch_cache import CACHED_SENTENCES
from lmrrg.metrics.embedded.claims import Claim, sentence_claims
from lmrrg.metrics.embedded.lexicon import ANATOMY, LOCATION, graph_lexicon, read_yaml
from lmrrg.metrics.embedded.sentences import ABSENT, PRESENT, Sentence, read_sentence

SIDES = frozenset(["left", "right"])
PLACEHOLDER = "xxxx"
"""What stands for a word that was taken out of a report to hide who it is about."""
_BEFORE_NOUNS = frozenset(["a", "an", "sided", "associated"])
"""Words, beside entity words, that a noun phrase has before its noun."""


class CoherenceLexicon(NamedTuple):
    """The content of ``coherence.yaml``, which explains each part."""

    single: frozenset[str]
    vague: frozenset[str]
    organs: frozenset[str]
    against_clear_lungs: frozenset[str]
    against_normal_chest: frozenset[str]
    whole_chest: frozenset[str]
    limits: frozenset[str]
    other_films: frozenset[str]
    of_any_part: frozenset[str]
    referring: frozenset[str]
    no_place_for_devices: frozenset[str]
    devices: frozenset[str]
    inside: frozenset[str]
    no_such_place: frozenset[str]


@cache
def coherence_lexicon() -> CoherenceLexicon:
    """Return the words of the rules."""
    data = read_yaml("coherence.yaml")
    return CoherenceLexicon(**{name: frozenset(data[name]) for name in CoherenceLexicon._fields})


class Statement(NamedTuple):
    """A claim in its sentence."""

    sentence: int
    read: Sentence
    claim: Claim
    nouns: frozenset[str]
    """The finding's own words, in the forms that stand for their meaning."""

    @property
    def is_single(self) -> bool:
        """Whether a side, or a body, has one such finding."""
        return self.claim.finding in coherence_lexicon().single

    @property
    def whole(self) -> Cut:
        """All words of its sentence."""
        return whole_sentence(self.sentence, self.read)


def whole_sentence(number: int, read: Sentence) -> Cut:
    """Return the cut of all words of a sentence."""
    return Cut(number, 0, len(read.words))


def statements_of(number: int, sentence: str) -> list[Statement]:
    """Return the statements of one lower-case sentence, which has this number in its report.

    >>> [sorted(one.nouns) for one in statements_of(0, "no pleural fluid, mild edema")]
    [['effusion', 'pleural'], ['edema']]
    """
    read = read_sentence(sentence)
    return [
        Statement(number, read, claim, _nouns(read, claim)) for claim in sentence_claims(sentence)
    ]


def _nouns(read: Sentence, claim: Claim) -> frozenset[str]:
    if claim.finding in coherence_lexicon().organs:
        return frozenset([claim.finding])
    meaning = graph_lexicon().meaning
    words = [read.words[i] for i in claim.mention]
    return frozenset([meaning.get(word, word) for word in words])


def located(statement: Statement) -> Claim:
    """Return a claim with the sides of its sentence, where it states a finding without its own.

    In "the left lung contains an opacity compatible with consolidation" the opacity has the side.
    """
    claim = statement.claim
    if claim.sides or claim.assertion == ABSENT:
        return claim
    sides = SIDES.intersection(statement.read.words)
    return claim._replace(sides=frozenset([side[0] for side in sides]))


def is_exact_place(a: Claim, b: Claim) -> bool:
    """Return whether both findings have the same side and the same zone."""
    return bool(a.sides and a.zones) and (a.sides, a.zones) == (b.sides, b.zones)


def is_limited(denied: Statement, stated: Statement | None = None) -> bool:
    """Return whether a denial leaves room for the finding: "no large effusion".

    What another sentence says of the finding as well is no limit: "no acute fracture" denies an
    acute fracture.
    """
    limits = coherence_lexicon().limits.intersection(denied.read.words)
    if stated and stated.sentence != denied.sentence and PLACEHOLDER not in limits:
        limits -= set(stated.read.words)
    return bool(denied.claim.severity) or bool(limits)


def is_reference(statement: Statement) -> bool:
    """Return whether a mention points back to a finding instead of stating it: "the effusion"."""
    read = statement.read
    i = statement.claim.mention[0] - 1
    if read.kinds[i + 1] == ANATOMY:  # "the heart is enlarged": the article is the organ's
        return False
    referring = coherence_lexicon().referring
    while i >= 0 and (read.kinds[i] or read.words[i] in _BEFORE_NOUNS):
        if read.words[i] in referring:
            return True
        i -= 1
    return i >= 0 and read.words[i] in referring


@lru_cache(maxsize=CACHED_SENTENCES)
def content_of(read: Sentence) -> frozenset[tuple[str, int]]:
    """Return (meaning, assertion) of the entity words of a sentence; anatomy is always there."""
    meaning = graph_lexicon().meaning
    found: list[tuple[str, int]] = []
    for word, kind, assertion in zip(*read, strict=True):
        if kind:
            is_place = kind in (ANATOMY, LOCATION)
            found.append((meaning.get(word, word), PRESENT if is_place else assertion))
    return frozenset(found)


def is_bare_denial(statement: Statement) -> bool:
    """Return whether a statement denies a finding of which there is one, without a limit."""
    is_denial = statement.claim.assertion == ABSENT
    return is_denial and statement.is_single and not is_limited(statement)
