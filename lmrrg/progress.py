"""Progress bars, and where they are drawn while everything else is written to a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0
"""A terminal redraws its bar in place; a log file gets a new line each time, so it gets few."""

_console: TextIO | None = None


def console() -> TextIO:
    """Return the stream of bars and stage lines: standard error, or the one of :func:`bars_on`."""
    return _console or sys.stderr


@contextmanager
def bars_on(stream: TextIO) -> Iterator[None]:
    """Draw every bar that is started inside the block on ``stream``."""
    global _console
    before = _console
    _console = stream
    try:
        yield
    finally:
        _console = before


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """Return a tqdm bar on the console that disappears when it is full.

    Args:
        iterable: what the bar counts; None for a bar that is moved by hand.
        options: those of ``tqdm``: ``total``, ``desc``, ``unit``, ``disable``, …

    >>> list(progress_bar([1, 2, 3], desc="studies", disable=True))
    [1, 2, 3]
    """
    stream = console()
    is_terminal = stream.isatty()
    options.setdefault("mininterval", 0.1 if is_terminal else _SECONDS_BETWEEN_LINES)
    # A bar that stays would leave one line for each of the many steps of a stage.
    options.setdefault("leave", not is_terminal)
    return tqdm(iterable, file=stream, dynamic_ncols=is_terminal, **options)
