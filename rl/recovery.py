"""What ends an attempt at a run without ending the run: lost actors and a notice of preemption."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.supervision import PoolError

logger = logging.getLogger(__name__)


class Preempted(Exception):
    """The machine is about to be taken away; the training state is on storage and the same command continues."""


@contextmanager
def preemption_notice() -> Iterator[Callable[[], bool]]:
    """A question that answers True once SIGTERM came, as clouds and job managers send it before they kill.

    Must be opened in the main thread, after ``ray.init``, whose own handler would exit at once.
    """
    notice = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: notice.set())
    try:
        yield notice.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


class Restarts:
    """Counts the attempts that were lost without a new training state since the last one.

    Args:
        limit: so many in a row are borne.
    """

    def __init__(self, limit: int):
        self._limit, self._lost, self._reached = limit, 0, -1
        self.total = 0
        """Restarts so far."""
        self._since: float | None = None

    def lose(self, error: PoolError, reached: int) -> None:
        """Note a lost attempt that left a training state of iteration ``reached``.

        Raises:
            PoolError: ``error`` itself, when it is no loss of actors, or one loss too many.
        """
        self._lost = 1 if reached > self._reached else self._lost + 1
        self._reached = reached
        if error.code != "actors_lost" or self._lost > self._limit:
            raise error
        self.total, self._since = self.total + 1, time.monotonic()
        logger.warning("%s; starting again from iteration %d (%d of %d)", error, reached, self._lost, self._limit)

    def recovered(self) -> float:
        """Seconds from the loss to now, once; 0 when nothing was lost since the last call."""
        seconds = 0.0 if self._since is None else time.monotonic() - self._since
        self._since = None
        return seconds
