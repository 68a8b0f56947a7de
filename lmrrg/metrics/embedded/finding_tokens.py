"""Find the tokens of a report that carry findings.

These are the tokens of affirmed findings, of what describes and places them, and of negations.
Also found are the tokens of whole sentences that state something abnormal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from lmrrg.metrics.embedded.labeler import label_sentence
from lmrrg.metrics.embedded.lexicon import (
    DEVICE,
    LOCATION,
    MODIFIER,
    OBSERVATION,
    graph_lexicon,
    read_yaml,
)
from lmrrg.metrics.embedded.sentences import sentences_of
from lmrrg.studies import NEGATIVE

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[.;\n]")
_SENTENCE = re.compile(r".*?(?:[.!?](?=\s|$)|[;\n]|$)", re.DOTALL)
_SENTENCE_ENDS = frozenset([".", ";", "\n"])
_KINDS = (OBSERVATION, DEVICE, MODIFIER, LOCATION)
_TOKENIZER_MARKS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""How byte-level and SentencePiece tokenizers write a space and a line break.

Each is one character, so that positions in the text stay positions in the tokens.
"""


def carries_finding(pieces: Sequence[str]) -> list[bool]:
    """Return whether each token belongs to an affirmed finding, its attributes or a negation.

    Ours. What a sentence calls normal, and which absent findings it lists after its negation, is
    wording: there are many equally right ways to write it. Anatomy alone is no finding either.

    Args:
        pieces: tokens of one report as the tokenizer writes them (``convert_ids_to_tokens``).

    >>> carries_finding(["Small", "Ġleft", "Ġeffusion", ".", "ĠNo", "Ġpneumothorax", "."])
    [True, True, True, False, True, False, False]
    """
    text = "".join(text_of_pieces(pieces)).lower()
    marked = _marked_characters(text)
    carries: list[bool] = []
    start = 0
    for piece in pieces:
        # Lower case and translation keep the length of almost every text; "İ" is an exception,
        # after which marks shift by one character.
        end = start + len(piece)
        carries.append(any(marked[start:end]))
        start = end
    return carries


def in_abnormal_sentence(pieces: Sequence[str]) -> list[bool]:
    """Return whether each token stands in a sentence that states something abnormal.

    Ours: a class other than "No Finding" is positive or uncertain in it, or something abnormal
    outside the classes is named; devices count.

    Args:
        pieces: tokens of one report as the tokenizer writes them (``convert_ids_to_tokens``).

    >>> in_abnormal_sentence(["Small", "Ġeffusion", ".", "ĠNo", "Ġpneumothorax", "."])
    [True, True, True, False, False, False]
    """
    text = "".join(text_of_pieces(pieces))
    abnormal: list[bool] = []
    for sentence in _SENTENCE.findall(text):
        abnormal += [_states_abnormality(sentence)] * len(sentence)
    inside: list[bool] = []
    start = 0
    for piece in pieces:
        end = start + len(piece)
        inside.append(any(abnormal[start:end]))
        start = end
    return inside


def _states_abnormality(sentence: str) -> bool:
    for part in sentences_of(sentence):
        for label, value in label_sentence(part):
            if label != "normal" and value != NEGATIVE:
                return True
    return False


def text_of_pieces(pieces: Sequence[str]) -> list[str]:
    """Return tokens with the spaces and line breaks that their tokenizer writes as marks.

    >>> text_of_pieces(["Clear", "Ġlungs", "Ċ"])
    ['Clear', ' lungs', '\\n']
    """
    return [piece.translate(_TOKENIZER_MARKS) for piece in pieces]


def _marked_characters(text: str) -> list[bool]:
    """Return for each character of a lower-case text whether its word is to be marked."""
    marked = [False] * len(text)
    is_denied = False
    for match in _WORD.finditer(text):
        word = match.group()
        is_negation = word in _negations()
        # A negation reaches to the end of its sentence, which is enough for a weight on tokens.
        is_denied = is_negation or (is_denied and word not in _SENTENCE_ENDS)
        if is_negation or (not is_denied and word in _finding_words()):
            marked[match.start() : match.end()] = [True] * len(word)
    return marked


@cache
def _finding_words() -> frozenset[str]:
    lexicon = graph_lexicon()
    words = [word for word, kind in lexicon.kind.items() if kind in _KINDS]
    return frozenset(words) | lexicon.glued.keys()


@cache
def _negations() -> frozenset[str]:
    """Return the forward negations of one word; longer ones ("free of") are not looked for."""
    negations = read_yaml("cues.yaml")["negation"]["before"]
    return frozenset(phrase for phrase in negations if " " not in phrase)
