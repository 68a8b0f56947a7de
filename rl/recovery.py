"""What ends an attempt at a run without ending the run: lost actors and a notice of preemption."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.actor_pool import PoolError
from lmrrg.errors import CodedError
from lmrrg.ppo.errors import PPOError

logger = logging.getLogger(__name__)

_FULL = 16 << 20
"""Less free storage than this, bytes, is none: writers give up with a buffer or two in hand."""


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


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Inside the block, what fails because the storage of ``folder`` is full says so.

    The libraries that write weights tell of it in words of their own, or not at all ("iostream error").

    Raises:
        PPOError: ``disk_full``.
    """
    try:
        yield
    except (CodedError, Preempted):
        raise
    except Exception as error:
        free = shutil.disk_usage(folder).free
        if free < _FULL or "No space left on device" in str(error):
            raise PPOError(
                "disk_full",
                f"the storage of {folder} is full ({free / 1e6:.0f} MB free); "
                "make room, and the same command continues from its last state",
            ) from error
        raise


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
        logger.warning(
            "%s; starting again from iteration %d (%d of %d)",
            error,
            reached,
            self._lost,
            self._limit,
        )

    def recovered(self) -> float:
        """Seconds from the loss to now, once; 0 when nothing was lost since the last call."""
        seconds = 0.0 if self._since is None else time.monotonic() - self._since
        self._since = None
        return seconds
