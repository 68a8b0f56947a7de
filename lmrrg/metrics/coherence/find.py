"""Find the faults of a report, and repair them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, islice, product

from lmrrg.metrics.coherence.fault import Cut, Fault, FaultKind
from lmrrg.metrics.coherence.rules import (
    against_normality,
    faults_of_pairs,
    impossible,
    on_both_sides,
    repeated_runs,
    repeated_sentences,
)
from lmrrg.metrics.coherence.statements import statements_of
from lmrrg.metrics.embedded.batch_cache import CACHED_SENTENCES
from lmrrg.metrics.embedded.sentences import read_sentence, sentences_of

_SAID_AGAIN: frozenset[FaultKind] = frozenset(["stated_twice", "repeated"])
"""Kinds that a reference with one of them has as well: both say again what was said."""
_MOST_STATEMENTS = 80
"""Statements that are compared with each other; real reports have some twenty."""
_MOST_COMBINATIONS = 64
"""Ways to repair a report that are tried; one with two faults has four."""
_MOST_REPAIRS = 8
_GRAVEST_FIRST: tuple[FaultKind, ...] = (
    "repeated",
    "contradicted",
    "exclusive",
    "impossible",
    "stated_twice",
)


def is_coherent(text: str, reference: str = "") -> bool:
    """Return whether a report has no fault of a kind that its reference is free of.

    >>> is_coherent("Large right and small left effusion. No pneumothorax.")
    True
    >>> is_coherent("Small left effusion. No pleural effusion.")
    False
    """
    return not new_faults(text, reference)


def new_faults(text: str, reference: str) -> list[Fault]:
    """Return the faults of a report of every kind that its reference is free of.

    A report may say again what its reference says again: references of two sections state in the
    impression what the findings state, and a copy of a reference is never at fault.
    """
    found = find_faults(text)
    if not found:
        return []
    known = {fault.kind for fault in find_faults(reference)}
    if not known.isdisjoint(_SAID_AGAIN):
        known |= _SAID_AGAIN
    return [fault for fault in found if fault.kind not in known]


@lru_cache(maxsize=CACHED_SENTENCES)
def find_faults(text: str) -> tuple[Fault, ...]:
    """Return the faults of a report.

    >>> def kinds(text):
    ...     return [(fault.kind, fault.finding) for fault in find_faults(text)]
    >>> kinds("There is a moderate right pneumothorax. There is a small right pneumothorax.")
    [('exclusive', 'pneumothorax')]
    >>> kinds("A pacemaker in the right pneumothorax.")
    [('impossible', 'pacemaker')]
    >>> kinds("No pneumothorax is seen. There is no pneumothorax.")
    [('repeated', '')]
    """
    sentences = sentences_of(text)
    reads = [read_sentence(sentence) for sentence in sentences]
    stated = [statements_of(number, sentence) for number, sentence in enumerate(sentences)]
    statements = list(islice(chain.from_iterable(stated), _MOST_STATEMENTS))
    found = [*faults_of_pairs(reads, statements), *against_normality(reads, statements)]
    found += repeated_sentences(reads, stated)
    for number, (read, own) in enumerate(zip(reads, stated, strict=True)):
        found += [*impossible(number, read, own), *on_both_sides(own), *repeated_runs(number, read)]
    # What one repair mends is one fault, of the gravest kind. Two sentences that say the same are
    # repeated, whatever they say.
    faults: dict[tuple[Cut, ...], Fault] = {}
    for fault in sorted(found, key=lambda fault: _GRAVEST_FIRST.index(fault.kind)):
        faults.setdefault(fault.cuts, fault)
    return tuple(faults.values())


def repairs(text: str, faults: Sequence[Fault]) -> list[str]:
    """Return the reports that one gets by leaving out one side of each fault, in lower case.

    Of many faults only some ways are tried, at most 8.

    >>> said = "Small left effusion. Lungs are clear. No pleural effusion."
    >>> repairs(said, find_faults(said))
    ['lungs are clear . no pleural effusion .', 'small left effusion . lungs are clear .']
    """
    words = [read_sentence(sentence).words for sentence in sentences_of(text)]
    choices = islice(product(*[fault.cuts for fault in faults]), _MOST_COMBINATIONS)
    removals = list(dict.fromkeys(map(_removed, choices)))
    # Where a finding is stated three times, leaving out all three repairs nothing more than two.
    least = [one for one in removals if not any(map(one.__gt__, removals))]
    return [_without(words, removed) for removed in least[:_MOST_REPAIRS]]


def _removed(cuts: Sequence[Cut]) -> frozenset[tuple[int, int]]:
    """Return (sentence, index) of every word that some cuts leave out."""
    return frozenset([(cut.sentence, i) for cut in cuts for i in range(cut.start, cut.end)])


def _without(words: Sequence[Sequence[str]], removed: frozenset[tuple[int, int]]) -> str:
    """Return the sentences without the words that a repair leaves out."""
    kept: list[str] = []
    for number, sentence in enumerate(words):
        rest = [word for i, word in enumerate(sentence) if (number, i) not in removed]
        if rest:
            kept.append(" ".join([*rest, "."]))
    return " ".join(kept)
