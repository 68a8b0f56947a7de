"""The error that every metric raises, and how its messages name studies."""

from __future__ import annotations

from collections.abc import Sequence

from lmrrg.errors import CodedError

_LONGEST_ID = 64


class MetricError(CodedError):
    """Reports that cannot be scored as asked; ``code`` is stable, the message names the rows."""


def some_studies(ids: Sequence[str]) -> str:
    """Return the first five ids of a list, for an error message.

    >>> some_studies(["s1"])
    'study s1'
    >>> some_studies([f"s{number}" for number in range(7)])
    '7 studies: s0, s1, s2, s3, s4, ...'
    >>> some_studies(["No effusion."])  # columns that were swapped
    'study (an id of 12 characters)'
    """
    shown = ", ".join(map(_shown, ids[:5]))
    return f"{len(ids)} studies: {shown}, ..." if len(ids) > 5 else f"study {shown}"


def is_showable(study: str) -> bool:
    """Return whether an id looks like one; otherwise it may be a report in the wrong column."""
    printable = study.isascii() and study.isprintable() and not any(map(str.isspace, study))
    return printable and len(study) <= _LONGEST_ID


def _shown(study: str) -> str:
    return study if is_showable(study) else f"(an id of {len(study)} characters)"
