"""The error of the PPO room."""

from __future__ import annotations

from lmrrg.errors import CodedError


class PPOError(CodedError):
    """PPO input or state that cannot be used; ``code`` is stable, the message says what was found."""
