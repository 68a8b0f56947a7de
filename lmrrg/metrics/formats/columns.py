"""The column names of study ids and reports, and what counts as a missing value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
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

TABLE_COLUMNS = frozenset(
    chain(ID_COLUMNS, *TEXT_COLUMNS["references"], *TEXT_COLUMNS["hypotheses"])
)
"""Every name that a table may give to an id or a text."""

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


@dataclass(frozen=True)
class OwnColumns:
    """The names that somebody's files have instead of ours, as plain names; None: ours."""

    id: str | None = None
    reference: str | None = None
    hypothesis: str | None = None

    @classmethod
    def of(cls, texts: Sequence[str], id_column: str | None = None) -> OwnColumns:
        """Return the columns that a command names.

        Args:
            texts: one name for both sides, or the references' and the hypotheses'; none: ours.
            id_column: the name of the study ids' column; None: ours.
        """
        plain: list[str | None] = [plain_name(name) for name in texts]
        plain = plain or [None]
        return cls(id_column and plain_name(id_column), plain[0], plain[-1])

    @property
    def texts(self) -> tuple[str | None, ...]:
        """Return the columns of both sides."""
        return (self.reference, self.hypothesis)

    def text(self, side: Side) -> str | None:
        """Return the column of one side."""
        return self.reference if side == "references" else self.hypothesis


def is_known(name: str) -> bool:
    """Return whether a plain name is one of an id or a text."""
    return name in TABLE_COLUMNS


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
