"""The base of the errors that a person may have to read."""

from __future__ import annotations


class CodedError(ValueError):
    """Something that cannot be used or done: a stable ``code`` for programs, a message for people.

    Both are the exception's arguments, so that it can be pickled and keeps its type on the way back from an actor.
    """

    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        code, message = self.args
        return f"{code}: {message}"
