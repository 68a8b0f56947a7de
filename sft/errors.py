"""What can go wrong in SFT."""

from __future__ import annotations

from lmrrg.errors import CodedError


class SFTError(CodedError):
    """Training that cannot start or go on; ``code`` is stable."""
