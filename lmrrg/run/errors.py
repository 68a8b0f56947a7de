"""The errors of a run's files."""

from __future__ import annotations

from lmrrg.errors import CodedError


class TrackingError(CodedError):
    """Metrics that cannot be recorded or read; ``code`` is stable."""
