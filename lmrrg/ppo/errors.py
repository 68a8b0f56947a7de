"""The error of the PPO room."""

from __future__ import annotations


class PPOError(ValueError):
    """PPO input or state that cannot be used; ``code`` is stable, the message says what was found."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
