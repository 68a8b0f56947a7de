"""Find the words of a sentence that name findings, with what it asserts of each (ours).

The findings and their phrases are in ``lexicons/claims.yaml``.
"""

from __future__ import annotations

from typing import NamedTuple

from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.reading.topics import topics_of
from lmrrg.metrics.embedded.sentences import ABSENT, PRESENT, Sentence
from lmrrg.studies import NEGATIVE, POSITIVE

_FINDING_OF_TOPIC = {"Cardiomegaly": "cardiomegaly", "Enlarged Cardiomediastinum": "mediastinum"}
_ASSERTION_OF_VALUE = {POSITIVE: PRESENT, NEGATIVE: ABSENT}
_SPECIAL_WORDS = frozenset(["clear", "one"])


class Mention(NamedTuple):
    """The words ``start`` to ``end`` (exclusive) of a sentence, which name a finding."""

    start: int
    end: int
    finding: str
    assertion: int


def mentions_of(read: Sentence) -> list[Mention]:
    """Return every mention of a finding, in the order of the words."""
    phrases = claim_lexicon().phrases
    words = read.words
    found: list[Mention] = []
    end = 0
    for i, word in enumerate(words):
        if i < end:  # inside the phrase before: the longest phrase hides the shorter ones in it
            continue
        if word in phrases:
            end, named = _named_at(read, i)
            found += named
        elif word in _SPECIAL_WORDS:
            found += _special_mentions(read, i, found)
    for i, label, value in topics_of(read):
        if value in _ASSERTION_OF_VALUE:
            finding = _FINDING_OF_TOPIC[label]
            found.append(Mention(i, i + 1, finding, _ASSERTION_OF_VALUE[value]))
    return sorted(found)


def _named_at(read: Sentence, start: int) -> tuple[int, list[Mention]]:
    """Return where the longest phrase that starts here ends, and the findings that it names.

    A phrase may name two: a tension pneumothorax is a pneumothorax, and one under tension.
    """
    words = read.words
    end = start
    found: list[Mention] = []
    for phrase, finding in claim_lexicon().phrases[words[start]]:
        after = start + len(phrase)
        if words[start:after] == phrase:
            if end not in (start, after):
                break  # the phrases are sorted by length: this one is shorter
            end = after
            if finding:
                found.append(Mention(start, end, finding, read.assertions[end - 1]))
    return end, found


def _special_mentions(read: Sentence, i: int, before: list[Mention]) -> list[Mention]:
    """Return the findings that "clear" or "one" at ``i`` speaks of, after those ``before`` it."""
    lexicon = claim_lexicon()
    if read.words[i] == "one":
        # "A large effusion on the right and a small one on the left".
        is_pronoun = before and i and read.words[i - 1] in lexicon.attributes
        return [Mention(i, i + 1, before[-1].finding, read.assertions[i])] if is_pronoun else []
    # "The lungs are clear" denies findings that it does not name; "not clear" denies none.
    if read.assertions[i] != PRESENT:
        return []
    return [Mention(i, i + 1, finding, ABSENT) for finding in lexicon.clear_lungs]
