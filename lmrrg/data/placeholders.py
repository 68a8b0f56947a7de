"""What tables and reports write where they have no value: "nan", "N/A", "-" and the like."""

from __future__ import annotations

import re

# pandas writes nan, NaT and <NA>, R writes NA, databases \N and null, spreadsheets #N/A. "None." is
# missing: with its full stop it is a sentence ("COMPARISON: None."). See is_empty_text.
_PLACEHOLDER = re.compile(
    r"(?:nan|nat|null|nil|#?n/?a|n\.a|<na>|\\n)\.?|none|[-\N{EN DASH}\N{EM DASH}.\s]*",
    re.IGNORECASE,
)


def is_placeholder(text: str) -> bool:
    r"""Return whether a text is blank or only stands for a missing value, in any case.

    >>> [is_placeholder(text) for text in (" NaN ", "n/a", r"\N", "-", ".", "None", "None.")]
    [True, True, True, True, True, True, False]
    """
    return _PLACEHOLDER.fullmatch(text.strip()) is not None


def is_empty_text(text: str) -> bool:
    """Return whether a report has no text to learn: a placeholder, or the sentence "None."."""
    return is_placeholder(text) or is_placeholder(text.strip().rstrip(". "))


def without_placeholder(text: str) -> str:
    """Return a text as it is; "" for one that only stands for a missing value."""
    return "" if is_placeholder(text) else text
