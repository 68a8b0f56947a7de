"""Which tokens of a report carry findings: its observations, what describes and places them, and their negations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from lmrrg.metrics.lexicon import graph_lexicon, read_yaml

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?")
_MARKS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""How byte-level and SentencePiece tokenizers write a space and a line break, one character each."""


def carries_finding(pieces: Sequence[str]) -> list[bool]:
    """Whether each token belongs to a word that the report graph reads, or to a negation (ours).

    Args:
        pieces: tokens of one report as the tokenizer writes them (``convert_ids_to_tokens``).
    """
    text = "".join(pieces).translate(_MARKS).lower()
    marked = [False] * len(text)
    for word in _WORD.finditer(text):
        if word.group() in _clinical_words():
            marked[word.start() : word.end()] = [True] * len(word.group())
    ends, found = 0, []
    for piece in pieces:
        found.append(any(marked[ends : ends + len(piece)]))
        ends += len(piece)
    return found


@lru_cache(maxsize=1)
def _clinical_words() -> frozenset[str]:
    lexicon = graph_lexicon()
    negations = read_yaml("lexicon_cues.yaml")["negation"]["before"]
    return frozenset(lexicon.kind) | frozenset(lexicon.glued) | {phrase for phrase in negations if " " not in phrase}
