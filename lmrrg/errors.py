"""The base class of the project's errors, and how a command reports them."""

from __future__ import annotations

import sys
from collections.abc import Callable

BAD_INPUT = 2
"""Exit code of a command that was given something it cannot use; argparse ends with the same."""
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended: 128 and the number of SIGINT, as shells have it."""


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


def without_wrapper(error: BaseException) -> BaseException:
    """Return the error as it was raised, without the wrappers that carried it here.

    Ray wraps what an actor raised into an error whose text is the actor's traceback and whose
    ``cause`` is the error itself. A pool of actors raises an error of its own, with a coded error
    of the actor as its cause.
    """
    carried = getattr(error, "cause", None)
    if isinstance(carried, BaseException):
        return without_wrapper(carried)
    if isinstance(error, CodedError) and error.__cause__ is not None:
        cause = without_wrapper(error.__cause__)
        if isinstance(cause, CodedError) and cause is not error.__cause__:
            return cause
    return error


def one_sentence(error: BaseException) -> str:
    """Return the message of an error as a command prints it.

    An error of the operating system loses its number. Of two files it names the second: the first
    is the temporary file that an atomic write would have renamed.
    """
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    return f"{error.filename2 or error.filename}: {error.strerror}"


def run_command(name: str, command: Callable[[], int], after_interrupt: str = "") -> int:
    """Run the body of a command and return its exit code.

    Bad input, or a file that cannot be read or written, ends with one sentence on stderr and exit
    code 2, Ctrl-C with one sentence and exit code 130. Every other exception is a defect of the
    program and keeps its traceback.

    Args:
        name: what the sentence begins with.
        command: the body.
        after_interrupt: what somebody can do after Ctrl-C, for the sentence.
    """
    try:
        return command()
    except KeyboardInterrupt:
        print(f"{name}: interrupted{after_interrupt and f'; {after_interrupt}'}", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"{name}: {one_sentence(without_wrapper(error))}", file=sys.stderr)
        return BAD_INPUT
