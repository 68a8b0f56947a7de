"""Which tokens of a report carry findings: what it affirms to be there, what describes and places it, and negations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from lmrrg.metrics.embedded.lexicon import graph_lexicon, read_yaml

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[.;\n]")
_KINDS = ("observation", "device", "modifier", "location")
_MARKS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""How byte-level and SentencePiece tokenizers write a space and a line break, one character each."""


def carries_finding(pieces: Sequence[str]) -> list[bool]:
    """Whether each token belongs to an affirmed finding, what describes or places it, or a negation (ours).

    What a sentence says is normal, and which absent findings it lists after its negation, is wording: there is a choice
    of many ways to say so, and none of them is more right. Anatomy alone is no finding either.

    Args:
        pieces: tokens of one report as the tokenizer writes them (``convert_ids_to_tokens``).
    """
    text = "".join(pieces).translate(_MARKS).lower()
    marked, denied = [False] * len(text), False
    for word in _WORD.finditer(text):
        denies = word.group() in _negations()
        denied = denies or (denied and word.group() not in ".;\n")
        if denies or (not denied and word.group() in _finding_words()):
            marked[word.start() : word.end()] = [True] * len(word.group())
    ends, found = 0, []
    for piece in pieces:
        found.append(any(marked[ends : ends + len(piece)]))
        ends += len(piece)
    return found


@lru_cache(maxsize=1)
def _finding_words() -> frozenset[str]:
    lexicon = graph_lexicon()
    return frozenset(lexicon.glued) | {
        word for word, kind in lexicon.kind.items() if kind in _KINDS
    }


@lru_cache(maxsize=1)
def _negations() -> frozenset[str]:
    negations = read_yaml("cues.yaml")["negation"]["before"]
    return frozenset(phrase for phrase in negations if " " not in phrase)
