"""Define the error of supervised fine-tuning."""

from __future__ import annotations

from lmrrg.errors import CodedError


class SFTError(CodedError):
    """Training cannot start or go on; ``code`` is stable."""
