"""The error of PPO."""

from __future__ import annotations

from lmrrg.errors import CodedError


class PPOError(CodedError):
    """PPO input or state that cannot be used; ``code`` is stable, the message gives details."""
