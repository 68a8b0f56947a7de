"""The error of every metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmrrg.errors import CodedError

if TYPE_CHECKING:
    pass


class MetricError(CodedError):
    """Reports that cannot be scored as asked; ``code`` is stable, the message names the rows."""


def some_studies(ids: Sequence[str]) -> str:
    """The first few ids of a list, for an error message."""
    shown = ", ".join(ids[:5])
    return f"{len(ids)} studies: {shown}, ..." if len(ids) > 5 else f"study {shown}"
