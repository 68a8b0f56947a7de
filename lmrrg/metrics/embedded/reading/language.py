"""Decide whether the rules can read a text: they know English reports of the chest only (ours).

The words are listed in ``lexicons/language.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import repeat
from typing import NamedTuple

from lmrrg.metrics.embedded.batch_cache import SENTENCE_BATCH
from lmrrg.metrics.embedded.lexicon import (
    ANATOMY,
    DEVICE,
    OBSERVATION,
    graph_lexicon,
    read_yaml,
)
from lmrrg.metrics.embedded.sentences import read_sentence, sentences_of

_WORD = re.compile(r"[^\W\d_]+\d*")
_MASK = re.compile("x{2,}|unk")
"""A word that was taken out of a report."""
# Other languages share the Latin words with English ("pleural", "normal", "pneumothorax"), so one
# known word is not enough. Of the reports of IU X-ray nearly all words are known.
_LEAST_KNOWN = 0.6
_LEAST_KNOWN_IN_GENERAL = 0.75
"""The same for a text without a word of the chest, such as "no acute disease"."""
_OF_A_CHEST = 2
"""Words of the chest from which on a text may have twice as many of other parts of the body."""
_BITS = 16
_LOW = (1 << _BITS) - 1
"""Counts of several kinds are packed into one number, 16 bits each."""


class WordCounts(NamedTuple):
    """How many words of a text are of each kind."""

    words: int
    """All words but masked ones."""
    known: int
    """Words of the lexicons and of ordinary English."""
    chest: int
    """Organs, findings and devices of the chest."""
    elsewhere: int
    """Words of other parts of the body."""
    general: int
    """Words of general statements such as "normal"."""


_NONE = WordCounts(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class _Words:
    kinds: dict[str, int]
    """Known word -> 1, and a 1 in further groups of bits where it is one of the chest, of elsewhere
    and of a general statement; the last group is for commas and masked words alone."""
    refusing: frozenset[str]
    """First words of the phrases of a refusal."""
    refusal: re.Pattern[str]


def is_readable(text: str) -> bool:
    """Return whether a text is an English report of the chest.

    >>> is_readable("Small left effusion."), is_readable("Derrame pleural izquierdo.")
    (True, False)
    >>> is_readable("I cannot interpret chest images."), is_readable("Tear of the meniscus.")
    (False, False)
    """
    return is_chest_report(sum_counts([count_words(part) for part in sentences_of(text)]))


def sum_counts(counts: Iterable[WordCounts]) -> WordCounts:
    """Return the counts of a text from those of its sentences.

    >>> sum_counts([count_words("no edema"), count_words("x")]).words
    3
    """
    return WordCounts(*map(sum, zip(_NONE, *counts, strict=True)))


def is_chest_report(counts: WordCounts) -> bool:
    """Return whether a text with these counts is an English report of the chest."""
    words, known, chest, elsewhere, general = counts
    if not known:
        return False
    # A film of the chest and the knee is one of the chest; a knee with one word of it is none.
    if elsewhere > (chest if chest < _OF_A_CHEST else 2 * chest):
        return False
    if chest:
        return known >= _LEAST_KNOWN * words
    return bool(general) and known >= _LEAST_KNOWN_IN_GENERAL * words


@lru_cache(maxsize=SENTENCE_BATCH)
def count_words(sentence: str) -> WordCounts:
    """Return how many words of a lower-case sentence are of each kind; none of a refusal.

    >>> count_words("no pleural effusion")
    WordCounts(words=3, known=3, chest=1, elsewhere=0, general=1)
    >>> count_words("i am sorry")
    WordCounts(words=0, known=0, chest=0, elsewhere=0, general=0)
    """
    lists = _words()
    words = read_sentence(sentence).words if sentence.isascii() else _WORD.findall(sentence)
    if not lists.refusing.isdisjoint(words) and lists.refusal.search(sentence):
        return _NONE
    # One sum over packed counts is three times as fast as a loop that counts each kind.
    total = sum(map(lists.kinds.get, words, repeat(0)))
    known = total & _LOW
    strange = len(words) - known - (total >> 4 * _BITS)
    if strange:
        strange = sum(
            [w not in lists.kinds and w[0].isalpha() and not _MASK.fullmatch(w) for w in words]
        )
    return WordCounts(
        known + strange,
        known,
        total >> _BITS & _LOW,
        total >> 2 * _BITS & _LOW,
        total >> 3 * _BITS & _LOW,
    )


@cache
def _words() -> _Words:
    data = read_yaml("language.yaml")
    lexicon = graph_lexicon()
    vague = frozenset(data["vague"].split())
    elsewhere = frozenset(data["elsewhere"].split())
    chest = [word for word, kind in lexicon.kind.items() if kind in (ANATOMY, OBSERVATION, DEVICE)]
    cues = (word for cue in lexicon.cues for word in cue)
    lists = (data["words"].split(), lexicon.kind, lexicon.meaning, lexicon.dull, cues, elsewhere)
    general = frozenset(data["general"].split())
    is_chest = frozenset(chest) - vague - elsewhere
    refusals = data["refusals"]
    return _Words(
        kinds={
            word: 1
            + ((word in is_chest) << _BITS)
            + ((word in elsewhere) << 2 * _BITS)
            + ((word in general) << 3 * _BITS)
            for words in lists
            for word in words
            if word[0].isalpha()
        }
        | dict.fromkeys([",", "xx", "xxx", "xxxx"], 1 << 4 * _BITS),
        refusing=frozenset(phrase.split()[0] for phrase in refusals),
        refusal=re.compile(r"\b(?:" + "|".join(map(re.escape, refusals)) + r")\b"),
    )
