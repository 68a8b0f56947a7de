"""The base of the errors that a person may have to read, and how a command tells them."""

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


def one_sentence(error: ValueError | OSError) -> str:
    """What went wrong; an error of the operating system without its number, and of two files the one that was meant."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    return f"{error.filename2 or error.filename}: {error.strerror}"
