"""METEOR 1.5's tokenisation of English text (its ``-norm`` option).

The tokenisation is part of the metric's definition: with other tokens METEOR has other values.
"""

from __future__ import annotations

import re

from lmrrg.metrics.text.meteor.data import word_lists

# The letters of the original's character classes: Latin with accents, Cyrillic, phonetic.
_LETTERS = "A-Za-zŠŽšžŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮ꙾-ꚗᴀ-ᵿ"
_ELLIPSIS = re.compile(r"\.{2,}")
_HAS_LETTER = re.compile(f"[{_LETTERS}]")
# The original's rules in its order. Each is applied once from left to right, and what it inserts is
# not matched again by the same rule.
_STEPS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"([^0-9{_LETTERS}\s.'`,\-‘’])", r" \1 "),
        (r"\.{2,}", r" \g<0> "),
        (r"([^0-9]),([^0-9])", r"\1 , \2"),
        (r"([0-9]),([^0-9])", r"\1 , \2"),
        (r"([^0-9]),([0-9])", r"\1 , \2"),
        (r"[`‘’]", "'"),
        (r"[“”]|''", ' " '),
        (r"–", "-"),
        (r"--", "-"),
        (rf"([0-9{_LETTERS}.])-([0-9{_LETTERS}])", r"\1 \2"),
        (rf"([^{_LETTERS}])'([^{_LETTERS}])", r"\1 ' \2"),
        (rf"([^{_LETTERS}0-9])'([{_LETTERS}])", r"\1 ' \2"),
        (rf"([{_LETTERS}])'([^{_LETTERS}])", r"\1 ' \2"),
        (rf"([{_LETTERS}])'([{_LETTERS}])", r"\1 '\2"),
        (r"([0-9])'(s)", r"\1 '\2"),
    )
)


def meteor_tokens(text: str) -> list[str]:
    """Return the lower-cased tokens of one text.

    >>> meteor_tokens("Seen by Dr. Smith: right-sided effusion, 1,000 ml.")
    ['seen', 'by', 'dr.', 'smith', ':', 'right', 'sided', 'effusion', ',', '1,000', 'ml', '.']
    """
    text = f" {text} "
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    words = text.split()
    tokens: list[str] = []
    # Not strict: a text without a word has no word after its last one.
    for word, following in zip(words, [*words[1:], ""], strict=False):
        tokens += _split_period(word, following)
    return [token.lower() for token in tokens]


def _split_period(word: str, following: str) -> list[str]:
    """Split off a final period, where it ends a sentence.

    It stays with an abbreviation and before a word that starts with a small letter.
    """
    if len(word) < 2 or not word.endswith(".") or _ELLIPSIS.fullmatch(word):
        return [word]
    stem = word[:-1]
    only_before_number = word_lists().abbreviations.get(stem)
    if "." in stem and _HAS_LETTER.search(stem):
        return [word.replace(".", "")]
    if only_before_number is False or re.match("[a-z]", following):
        return [word]
    if only_before_number and re.match("[0-9]", following):
        return [word]
    return [stem, "."]
