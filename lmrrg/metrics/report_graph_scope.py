"""Words of a sentence, and whether each is asserted, denied or uncertain (ours; rules of the NegEx family)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lmrrg.metrics.lexicon import ANATOMY, STATE, graph_lexicon

PRESENT, ABSENT, UNCERTAIN = 0, 1, 2
"""Assertion of a word."""

_SENTENCE_END = re.compile(r"\.(?!\d)|[;!?]|\n\s*\n|(?:^|\s)\d+\.\s")
_WORD = re.compile(r"\d+(?:\.\d+)?|[a-z]+(?:\d+)?(?:'[a-z]+)?|,")
_VERBS = frozenset("is are was were appear appears remain remains be been has have".split())


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words of one sentence with, for each, its class ("" for none), its assertion and whether a cue starts a clause."""

    words: tuple[str, ...]
    kinds: tuple[str, ...]
    assertions: tuple[int, ...]


def sentences_of(text: str) -> list[str]:
    """Sentences of a report in lower case; works on prose and on "a . b . c ." alike."""
    return [s for s in map(str.strip, _SENTENCE_END.split(text.lower())) if s]


def read_sentence(sentence: str) -> Sentence:
    """Split a lower-case sentence into words, look up their classes and settle their assertions."""
    lexicon = graph_lexicon()
    words: list[str] = []
    for word in _WORD.findall(sentence):
        parts = lexicon.glued.get(word)
        if parts is None:
            words.append(word)
        else:
            words.extend(parts)
    get = lexicon.kind.get
    kinds = [get(word, "") for word in words]
    return Sentence(tuple(words), tuple(kinds), tuple(_assertions(words, kinds)))


def _assertions(words: list[str], kinds: list[str]) -> list[int]:
    """Assertion of every word: forward cues hold to the end of their clause, backward cues from its start."""
    cues = graph_lexicon().cues
    out = [PRESENT] * len(words)
    scope, clause_start, verb_seen, i = PRESENT, 0, False, 0
    while i < len(words):
        word = words[i]
        meaning, length = _cue_at(cues, words, i) if word in cues else ("", 1)
        if meaning == "breaker":
            scope, clause_start, verb_seen = PRESENT, i + 1, False
        elif meaning == "negation.before":
            scope = ABSENT
        elif meaning == "uncertainty.before":
            scope = scope or UNCERTAIN
        elif meaning == "negation.after":
            out[clause_start:i] = [ABSENT] * (i - clause_start)
        elif meaning == "uncertainty.after":
            out[clause_start:i] = [UNCERTAIN] * (i - clause_start)
        elif word in _VERBS:
            verb_seen = True
        elif word in (",", "and", "with"):
            if scope and _new_clause(words, kinds, i + 1):
                scope = PRESENT
            if verb_seen:
                clause_start, verb_seen = i + 1, False
        elif kinds[i] == STATE and scope == ABSENT:
            scope = PRESENT  # "no pneumothorax heart size normal": a state is told of what is there
        out[i] = out[i] or scope
        if length > 1:
            out[i : i + length] = [out[i]] * length
        i += length
    return out


def _cue_at(cues: dict[str, list[tuple[tuple[str, ...], str]]], words: list[str], i: int) -> tuple[str, int]:
    for phrase, meaning in cues[words[i]]:
        if tuple(words[i : i + len(phrase)]) == phrase:
            return meaning, len(phrase)
    return "", 1


def _new_clause(words: list[str], kinds: list[str], start: int) -> bool:
    """Whether the words from ``start`` to the next joint tell a new fact ("and the heart is normal")."""
    anatomy = False
    for i in range(start, len(words)):
        if words[i] in (",", "and", "no", "without"):
            return False
        if anatomy and (words[i] in _VERBS or kinds[i] == STATE):
            return True
        anatomy = anatomy or kinds[i] == ANATOMY
    return False
