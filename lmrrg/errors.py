"""The base class of the project's errors, and how a command reports them."""

from __future__ import annotations

import sys
from collections.abc import Callable

BAD_INPUT = 2
"""Exit code of a command that was given something it cannot use; argparse ends with the same."""


class CodedError(ValueError):
    """Something that cannot be used or done: a stable ``code`` for programs, a message for people.

    Both are the exception's arguments, so that it can be pickled and keeps its type when Ray
    carries it from an actor to the driver.
    """

    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        code, message = self.args
        return f"{code}: {message}"


def one_sentence(error: ValueError | OSError) -> str:
    """Return the message of an error as a command prints it.

    An error of the operating system loses its number. Of two files it names the second: the first
    is the temporary file that an atomic write would have renamed.
    """
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    return f"{error.filename2 or error.filename}: {error.strerror}"


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run the body of a command and return its exit code.

    Bad input, or a file that cannot be read or written, ends with one sentence on stderr and exit
    code 2. Every other exception is a defect of the program and keeps its traceback.
    """
    try:
        return command()
    except (ValueError, OSError) as error:
        print(f"{name}: {one_sentence(error)}", file=sys.stderr)
        return BAD_INPUT
