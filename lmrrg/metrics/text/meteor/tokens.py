"""METEOR 1.5's tokenisation of English text (its ``-norm`` option), which is part of the metric's definition."""

from __future__ import annotations

import re

from lmrrg.metrics.text.meteor.data import word_lists

_LETTERS = "A-Za-zŠŽšžŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮ꙾-ꚗᴀ-ᵿ"
_ELLIPSIS = re.compile(r"\.{2,}")
_HAS_LETTER = re.compile(f"[{_LETTERS}]")
# Every pattern is applied once from left to right; a replacement's own text is not looked at again.
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
    """The lower-cased tokens of one text."""
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
    """Detach a final period, except from abbreviations and before a word that starts with a small letter."""
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
