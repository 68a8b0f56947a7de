"""Find what a sentence calls abnormal in words that no lexicon names a finding (ours).

The claims know some fifty findings; a policy can invent any. So the question is turned around: what
is a sentence that asserts something, and is neither a denial nor a statement of normality nor about
the picture, the patient or advice? It is taken for a finding, whatever its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.lexicon import (
    ANATOMY,
    DEVICE,
    LOCATION,
    MODIFIER,
    STATE,
    graph_lexicon,
    read_yaml,
)
from lmrrg.metrics.embedded.sentences import ABSENT, Sentence

_PLACED = (ANATOMY, LOCATION)
_NO_FINDINGS = ("device", "surgery")
"""Families of claims that leave a report without findings."""
_INCIDENTAL = 0.5
"""Named findings that weigh no more leave the labels to the words of ``labels.yaml``."""
_EXISTS = (("there", "is"), ("there", "are"))
_MASK = "xxxx"
_NOT = "not"
_OPENERS = frozenset(["a", "an", "there"])
"""Words that begin a new statement: "and a swallowed coin"."""
_JOINTS = frozenset([",", "and", "with", "but", "except", "although", "though", "while"])
"""Words between clauses: "the lungs are clear with a coin in the stomach"."""


@dataclass(frozen=True)
class _Neutral:
    """The words of ``neutral.yaml``, which explains them."""

    words: frozenset[str]
    plain: frozenset[str]
    """These words, anatomy and places, and what calls them normal; "normal" may still be denied."""
    advice: frozenset[str]
    normal: frozenset[str]
    faults: frozenset[str]


@cache
def _neutral() -> _Neutral:
    data = read_yaml("neutral.yaml")
    # Sides and severities are no findings by themselves, nor are the words of a comparison.
    words = [*data["words"].split(), *claim_lexicon().attributes, *graph_lexicon().dull]
    places = [word for word, kind in graph_lexicon().kind.items() if kind in _PLACED]
    return _Neutral(
        words=frozenset(words),
        plain=frozenset([*words, *places, *data["normal"].split()]),
        advice=frozenset(data["advice"].split()),
        normal=frozenset(data["normal"].split()),
        faults=frozenset(data["faults"].split()),
    )


def unnamed_words(read: Sentence) -> tuple[str, ...]:
    """Return the words by which a sentence asserts something that is not known to be normal.

    What the claims name is not left out: ask them first.

    >>> from lmrrg.metrics.embedded.sentences import read_sentence
    >>> for sentence in (
    ...     "there is a swallowed coin in the stomach",
    ...     "lungs are clear, with a coin in the stomach",
    ...     "no coin in the stomach",
    ...     "two views of the chest were obtained",
    ... ):
    ...     print(unnamed_words(read_sentence(sentence)))
    ('swallowed', 'coin')
    ('coin',)
    ()
    ()
    """
    neutral = _neutral()
    if _NOT not in read.words:
        plain = neutral.plain
        if plain.issuperset(read.words):
            return _structure(read)
        pairs = zip(read.words, read.assertions, strict=True)
        if not [word for word, said in pairs if said != ABSENT and word not in plain]:
            return _structure(read)
    if not neutral.advice.isdisjoint(read.words):
        return ()
    found: list[str] = []
    for clause in _clauses(read):
        found += _unnamed_in(read, clause)
    return tuple(found) or _structure(read)


def unnamed_besides(read: Sentence, mentions: Iterable[Sequence[int]]) -> tuple[str, ...]:
    """Return the unnamed words of clauses that begin anew beside named findings.

    Args:
        read: a sentence that asserts a named finding.
        mentions: indices of the words that name each finding.

    >>> from lmrrg.metrics.embedded.sentences import read_sentence
    >>> unnamed_besides(read_sentence("small effusion and a swallowed coin"), [(1,)])
    ('swallowed', 'coin')
    >>> unnamed_besides(read_sentence("small effusion, most marked on the left"), [(1,)])
    ()
    """
    if _OPENERS.isdisjoint(read.words):
        return ()
    named = frozenset(chain.from_iterable(mentions))
    found: list[str] = []
    for clause in _clauses(read)[1:]:
        if clause and read.words[clause[0]] in _OPENERS and named.isdisjoint(clause):
            found += _unnamed_in(read, clause)
    return tuple(found)


def _clauses(read: Sentence) -> list[list[int]]:
    """Return the indices of the words of each clause."""
    clauses: list[list[int]] = [[]]
    for i, word in enumerate(read.words):
        if word in _JOINTS:
            clauses.append([])
        else:
            clauses[-1].append(i)
    return clauses


def calls_abnormal(read: Sentence) -> bool:
    """Return whether a sentence asserts a finding outside CheXbert's classes, named or not.

    Devices, past surgery and named findings of little weight are none.

    >>> from lmrrg.metrics.embedded.sentences import read_sentence
    >>> for sentence in ("lytic lesion in a rib", "bowed sternum", "picc in the svc", "no mass"):
    ...     print(calls_abnormal(read_sentence(sentence)))
    True
    True
    False
    False
    """
    lexicon = claim_lexicon()
    named = _named_findings(read)
    findings = [finding for finding in named if lexicon.kin[finding] not in _NO_FINDINGS]
    if any([lexicon.weight[finding] > _INCIDENTAL for finding in findings]):
        return True
    if named:
        return not _neutral().faults.isdisjoint(read.words) and not findings
    kind = graph_lexicon().kind
    return any([kind.get(word) != DEVICE for word in unnamed_words(read)])


def _named_findings(read: Sentence) -> list[str]:
    """Return the findings of the claims that a sentence asserts."""
    phrases = claim_lexicon().phrases
    found = [
        _named_at(read, i)
        for i, word in enumerate(read.words)
        if word in phrases and read.assertions[i] != ABSENT
    ]
    return [finding for finding in found if finding]


def _named_at(read: Sentence, start: int) -> str:
    """Return the finding that the longest phrase from ``start`` names, or ""."""
    for phrase, finding in claim_lexicon().phrases[read.words[start]]:
        if read.words[start : start + len(phrase)] == phrase:
            return finding
    return ""


def _structure(read: Sentence) -> tuple[str, ...]:
    """Return the structures that a sentence calls there or absent, and says no more about.

    "There is a cervical rib" and "absent breast shadow" call something abnormal by that alone.
    """
    words = read.words
    if "absent" in words and not any(
        [word in claim_lexicon().phrases and _named_at(read, i) for i, word in enumerate(words)]
    ):
        return ("absent",)
    if words[:2] not in _EXISTS or _MASK in words or not _neutral().normal.isdisjoint(words):
        return ()
    return tuple(
        [
            word
            for word, kind, assertion in zip(words, read.kinds, read.assertions, strict=True)
            if kind == ANATOMY and assertion != ABSENT
        ]
    )


def _unnamed_in(read: Sentence, clause: list[int]) -> list[str]:
    """Return the unnamed words of one clause."""
    neutral = _neutral()
    names: list[str] = []
    modifiers: list[str] = []
    for i in clause:
        word = read.words[i]
        kind = read.kinds[i]
        is_denied = read.assertions[i] == ABSENT
        if word in neutral.normal:
            if not is_denied:
                return []
            if _NOT in read.words[max(0, i - 2) : i]:
                names.append(f"not {word}")
        elif is_denied or kind in _PLACED or kind == STATE or not word[0].isalpha():
            continue
        elif word not in neutral.words and len(word) > 1:
            (modifiers if kind == MODIFIER else names).append(word)
    return names or modifiers
