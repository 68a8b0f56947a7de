"""Words of a sentence, and whether each is asserted, denied or uncertain (ours; rules of the NegEx family)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from lmrrg.metrics.embedded.lexicon import (
    ANATOMY,
    MODIFIER,
    OBSERVATION,
    STATE,
    GraphLexicon,
    graph_lexicon,
)

PRESENT, ABSENT, UNCERTAIN = 0, 1, 2
"""Assertion of a word."""

_SENTENCE_END = re.compile(
    r"\.(?!\d)|[;!?]|\n\s*\n|(?<!\S)\d+[.)](?!\S)"
    r"|\n\s*(?=[-*•])|\n(?=[a-z][a-z /]{2,40}:)"  # the items of a list, the headings of a structured report
)
_NUMBER_OR_BREAK = re.compile(r"[\d\n]")
_STOPS = str.maketrans(";!?", "...")
_WORD = re.compile(r"\d+(?:\.\d+)?|[a-z]+(?:\d+)?(?:'[a-z]+)?|,")
_VERBS = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "appear",
        "appears",
        "remain",
        "remains",
        "be",
        "been",
        "has",
        "have",
    ]
)
_SEEN = frozenset(
    [
        "seen",
        "identified",
        "noted",
        "present",
        "visualized",
        "evident",
        "demonstrated",
        "appreciated",
    ]
)
_JOINTS = frozenset([",", "and", "with"])
_ENDS = frozenset([",", "given"])
"""Words behind a forward cue that, like the end of the sentence, leave it nothing to speak of."""
_TIPS = frozenset(["tip", "tips"])
"""A tube whose tip is out of sight is there."""
_NEAR_ENDS = frozenset([",", "with"])
CHOICE = frozenset(["or", "versus", "vs"])
"""Words between two findings of which one is meant."""
_BEFORE = {"negation.before": ABSENT, "negation.near": ABSENT, "uncertainty.before": UNCERTAIN}
_AFTER = {"negation.after": ABSENT, "uncertainty.after": UNCERTAIN}

REMEMBERED_SENTENCES = 8192
"""Results per sentence that a process keeps for good: reports repeat sentences. It bounds a scorer's memory."""
SENTENCES_AT_WORK = 512
"""Results on the way to those: every step over the sentences of one report asks for them again."""


class Sentence(NamedTuple):
    """The words of one sentence with, for each, its class ("" for none) and its assertion."""

    words: tuple[str, ...]
    kinds: tuple[str, ...]
    assertions: tuple[int, ...]


def sentences_of(text: str) -> list[str]:
    """Sentences of a report in lower case; works on prose and on "a . b . c ." alike."""
    text = text.lower().replace(" vs.", " vs")
    # Without a number or a line break, only full stops and their like end a sentence.
    parts = (
        _SENTENCE_END.split(text)
        if _NUMBER_OR_BREAK.search(text)
        else text.translate(_STOPS).split(".")
    )
    return [s for s in map(str.strip, parts) if s]


@lru_cache(maxsize=SENTENCES_AT_WORK)
def read_sentence(sentence: str) -> Sentence:
    """Words of a lower-case sentence, their classes and assertions."""
    lexicon = graph_lexicon()
    words: list[str] = _WORD.findall(sentence)
    if not lexicon.glued.keys().isdisjoint(words):
        words = [part for word in words for part in lexicon.glued.get(word, (word,))]
    get = lexicon.kind.get
    kinds = [get(word, "") for word in words]
    if lexicon.cue_lengths.keys().isdisjoint(words):
        assertions = [PRESENT] * len(words)
    else:
        assertions = _Scopes(words, kinds, lexicon).settle()
    if not CHOICE.isdisjoint(words):
        _doubt_choices(words, kinds, assertions)
    return Sentence(tuple(words), tuple(kinds), tuple(assertions))


class _Scopes:
    """One pass over a sentence: forward cues hold to the end of their clause, backward cues from its start."""

    def __init__(self, words: list[str], kinds: list[str], lexicon: GraphLexicon):
        self.words, self.kinds, self.lexicon = words, kinds, lexicon
        self.assertions = [PRESENT] * len(words)
        self.scope, self.clause_start, self.verb_seen = PRESENT, 0, False
        self.near = False
        """Whether the scope ends with the next comma."""

    def settle(self) -> list[int]:
        i = 0
        while i < len(self.words):
            word = self.words[i]
            meaning, length = self._cue(i) if word in self.lexicon.cue_lengths else ("", 1)
            if meaning:
                self._on_cue(meaning, i, length)
            else:
                self._on_word(word, i)
            if self.scope:
                for j in range(i, i + length):
                    self.assertions[j] = self.assertions[j] or self.scope
            i += length
        return self.assertions

    def _cue(self, i: int) -> tuple[str, int]:
        for length in self.lexicon.cue_lengths[self.words[i]]:
            cue = tuple(self.words[i : i + length])
            meaning = self.lexicon.cues.get(cue)
            if meaning:
                return self._turned(i, i + len(cue), meaning), len(cue)
        return "", 1

    def _turned(self, start: int, end: int, meaning: str) -> str:
        """A forward cue with nothing behind it reaches back: "Effusion: no", "pneumonia is suspected"."""
        if not meaning.endswith("before") or (
            end < len(self.words) and self.words[end] not in _ENDS
        ):
            return meaning
        if start == 0 or not (self.kinds[start - 1] or self.words[start - 1] in _VERBS):
            return meaning
        while "," in self.words[self.clause_start : start]:
            self.clause_start = self.words.index(",", self.clause_start) + 1
        return meaning.replace("before", "after")

    def _on_cue(self, meaning: str, i: int, length: int) -> None:
        if meaning == "breaker":
            self.scope, self.clause_start, self.verb_seen = PRESENT, i + 1, False
        elif meaning in _AFTER:
            if meaning == "negation.after" and not _TIPS.isdisjoint(
                self.words[self.clause_start : i]
            ):
                return
            self.assertions[self.clause_start : i] = [_AFTER[meaning]] * (i - self.clause_start)
        elif meaning == "negation.itself":
            self.assertions[i : i + length] = [ABSENT] * length
            self.scope = (
                PRESENT  # "no effusion, no change in the edema": what has a course is there
            )
        elif (
            meaning in _BEFORE and self.scope != ABSENT
        ):  # "no signs to suggest": a denial stays one
            self.scope, self.near = _BEFORE[meaning], meaning == "negation.near"

    def _on_word(self, word: str, i: int) -> None:
        if word in _VERBS:
            self.verb_seen = True
        elif word in _JOINTS:
            if self.scope and ((self.near and word in _NEAR_ENDS) or self._new_clause(i + 1)):
                self.scope = PRESENT
            if self.verb_seen:
                self.clause_start, self.verb_seen = i + 1, False
        elif self.scope == ABSENT and self.kinds[i] == STATE and self.words[i - 1] != "not":
            self.scope = (
                PRESENT  # "no pneumothorax heart size normal": a state is told of what is there
            )

    def _new_clause(self, start: int) -> bool:
        """Whether the words from ``start`` to the next joint tell a new fact ("and the heart is normal")."""
        words = self.words[start:]
        if words[:1] == ["there"]:
            return True
        if (
            self.scope == ABSENT
            and words
            and words[0] in self.lexicon.affirming
            and CHOICE.isdisjoint(words)
        ):
            return True
        anatomy = False
        for word, kind, following in zip(
            words, self.kinds[start:], [*words[1:], "seen"], strict=False
        ):
            # A sentence that ends with a joint leaves only the stand-in, and nothing to read.
            if word in (",", "and", "no", "without"):
                return False
            if kind == OBSERVATION:
                at = start + words.index(word) + 2
                return following in _VERBS and self.kinds[at : at + 1] in ([STATE], [MODIFIER])
            if anatomy and (kind == STATE or (word in _VERBS and following not in _SEEN)):
                return True
            anatomy = anatomy or kind == ANATOMY
        return False


def _doubt_choices(words: list[str], kinds: list[str], assertions: list[int]) -> None:
    """ "Scarring or atelectasis": what is offered as one of two findings is uncertain, on both sides."""
    for i, word in enumerate(words):
        if word in CHOICE and assertions[i] != ABSENT:
            sides = (_run(words, kinds, i - 1, -1), _run(words, kinds, i + 1, 1))
            if all(any(kinds[j] == OBSERVATION for j in side) for side in sides):
                for j in (*sides[0], *sides[1]):
                    assertions[j] = assertions[j] or UNCERTAIN


def _run(words: list[str], kinds: list[str], start: int, step: int) -> list[int]:
    """Indices of the entity words in a row from ``start``, skipping one word that is none; a comma ends the row."""
    found = []
    skipped = False
    while 0 <= start < len(kinds) and (kinds[start] or not (skipped or words[start] == ",")):
        if kinds[start]:
            found.append(start)
        else:
            skipped = True
        start += step
    return found
