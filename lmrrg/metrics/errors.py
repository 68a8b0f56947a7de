"""The error that every metric raises, and how its messages name studies."""

from __future__ import annotations

from collections.abc import Sequence

from lmrrg.errors import CodedError


class MetricError(CodedError):
    """Reports that cannot be scored as asked; ``code`` is stable, the message names the rows."""


def some_studies(ids: Sequence[str]) -> str:
    """Return the first five ids of a list, for an error message.

    >>> some_studies(["s1"])
    'study s1'
    >>> some_studies([f"s{number}" for number in range(7)])
    '7 studies: s0, s1, s2, s3, s4, ...'
    """
    shown = ", ".join(ids[:5])
    return f"{len(ids)} studies: {shown}, ..." if len(ids) > 5 else f"study {shown}"
