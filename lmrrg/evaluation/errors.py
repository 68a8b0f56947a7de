"""The error of the evaluation."""

from __future__ import annotations

from lmrrg.errors import CodedError


class EvaluationError(CodedError):
    """An evaluation that cannot be made; ``code`` is stable."""
