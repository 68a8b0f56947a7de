"""The column names of study ids and reports, and what counts as a missing value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Side = Literal["references", "hypotheses"]

ID_COLUMNS = ("study_id", "id")
LINE = "line"
"""The column of a file without columns, whose rows are the reports themselves."""
TEXT_COLUMNS: Mapping[Side, tuple[tuple[str, ...], ...]] = {
    "references": (
        ("reference",),
        ("ground_truth",),
        ("report",),
        ("findings", "impression"),
        ("section_findings", "section_impression"),
        (LINE,),
    ),
    "hypotheses": (("hypothesis",), ("model_prediction",), ("prediction",), ("report",), (LINE,)),
}
"""The columns that may hold a side's text, the preferred one first; two are joined to one text."""

# A JSON object of lists names them in the plural: {"references": [...], "hypotheses": [...]}.
_SINGULAR = {
    "references": "reference",
    "refs": "reference",
    "hypotheses": "hypothesis",
    "hyps": "hypothesis",
    "predictions": "prediction",
    "reports": "report",
    "study_ids": "study_id",
    "ids": "id",
}
# What programs write into a table where there was nothing. An empty cell is an empty report.
_PLACEHOLDERS = frozenset({"nan", "null", "none", "na", "n/a", "#n/a", "<na>", r"\n", "-", "."})
_SURROGATE = re.compile("[\ud800-\udfff]")


def plain_name(name: str) -> str:
    """Return a column's name in lower case, without blanks around it and in the singular.

    >>> plain_name(" Report "), plain_name("references")
    ('report', 'reference')
    """
    plain = name.strip().lower()
    return _SINGULAR.get(plain, plain)


def plain_row(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row with plain names; of two spellings of a name the plain one counts."""
    plain: dict[str, object] = {}
    for name, value in row.items():
        key = plain_name(name)
        if key not in plain or key == name:
            plain[key] = value
    return plain


def is_known(name: str) -> bool:
    """Return whether a plain name is one of an id or a text."""
    sides = (*TEXT_COLUMNS["references"], *TEXT_COLUMNS["hypotheses"])
    return name in ID_COLUMNS or any(name in columns for columns in sides)


def is_placeholder(text: str) -> bool:
    r"""Return whether a text only stands for a missing one, such as ``NaN``, ``\N`` or a dash.

    >>> is_placeholder(" N/A "), is_placeholder("No effusion."), is_placeholder("")
    (True, False, False)
    """
    return text.strip().lower() in _PLACEHOLDERS


def whole_characters(text: str) -> str:
    """Return a text with U+FFFD in place of half characters.

    A JSON file of a token stream that was cut inside of an emoji has such halves (lone
    surrogates), which no encoder accepts.
    """
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
