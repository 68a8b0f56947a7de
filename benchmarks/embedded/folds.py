"""Divide report pairs so that a fit shares no study and no text with the pairs it predicts."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

COMMON = 0.1
"""A hypothesis in a larger share of the pairs is a template: its pairs are held out on their own.

Otherwise every pair with the template would be missing from all fits.
"""


def held_out_parts(rows: Sequence[dict[str, str]], folds: int) -> list[np.ndarray]:
    """Return the parts of the pairs that are held out in turn, each [pairs] of bool.

    A checksum of the study chooses the fold. The pairs with a template are a part of their own.
    """
    fold = np.array([zlib.crc32(row["study"].encode()) % folds for row in rows])
    common = templates(rows)
    is_template = np.array([same_words(row["hypothesis"]) in common for row in rows])
    parts = [(fold == k) & of_kind for k in range(folds) for of_kind in (is_template, ~is_template)]
    return [part for part in parts if part.any()]


def templates(rows: Sequence[dict[str, str]]) -> frozenset[str]:
    """Return the hypotheses that a large share of the pairs have."""
    count = Counter(same_words(row["hypothesis"]) for row in rows)
    return frozenset(text for text, number in count.items() if number > COMMON * len(rows))


def unrelated(
    rows: Sequence[dict[str, str]], held_out: np.ndarray, known: frozenset[str] = frozenset()
) -> list[bool]:
    """Return which pairs share neither a study nor a text, ``known`` apart, with the held-out."""
    held = [row for row, is_held in zip(rows, held_out, strict=True) if is_held]
    studies = {row["study"] for row in held}
    texts = {text for row in held for text in texts_of(row)} - known
    return [row["study"] not in studies and texts.isdisjoint(texts_of(row)) for row in rows]


def texts_of(row: dict[str, str]) -> set[str]:
    """Return the words of both texts of a pair."""
    return {same_words(row["reference"]), same_words(row["hypothesis"])}


def same_words(text: str) -> str:
    """Return the letters and digits of a text: texts that differ in marks alone are the same.

    >>> same_words("T-spine, normal .") == same_words("tspine normal")
    True
    """
    return "".join(re.findall(r"[a-z0-9]+", text.lower()))
