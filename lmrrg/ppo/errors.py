"""The error of the PPO room."""

from __future__ import annotations


class PPOError(ValueError):
    """PPO input or state that cannot be used; ``code`` is stable, the message says what was found.

    Survives copying and pickling, so that it reaches the driver from an actor as what it is.
    """

    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return ": ".join(self.args)
