"""Recovery of a run from lost actors, a notice of preemption, and a full disk."""

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
"""Storage with fewer free bytes is full: writers fail before their last buffer is on disk."""


class Preempted(Exception):
    """The machine is about to be taken away; the state is saved, and the same command continues."""


@contextmanager
def preemption_notice() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True once SIGTERM came.

    Clouds and job managers send that signal some time before they kill the process. The block must
    be opened in the main thread, after ``ray.init``, whose own handler would exit at once.
    """
    # The handler only sets a flag: the iteration in progress is finished, and its state saved.
    notice = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: notice.set())
    try:
        yield notice.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Raise ``disk_full`` for whatever fails inside the block because ``folder``'s storage is full.

    The libraries that write weights report it in different ways, or not at all ("iostream error").

    Raises:
        PPOError: ``disk_full``.
    """
    try:
        yield
    except (CodedError, Preempted):
        raise
    except Exception as error:
        # The type of the error tells nothing, so the free space is looked at.
        free = shutil.disk_usage(folder).free
        if free < _FULL or "No space left on device" in str(error):
            raise PPOError(
                "disk_full",
                f"the storage of {folder} is full ({free / 1e6:.0f} MB free); "
                "make room, and the same command continues from its last state",
            ) from error
        raise


class Restarts:
    """Count the attempts that were lost in a row without a new training state in between.

    Args:
        limit: largest number of them.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._lost_in_a_row = 0
        self._reached = -1  # below any iteration, so that the first loss starts the count
        self._lost_at: float | None = None
        self.total = 0
        """Restarts so far."""

    def lose(self, error: PoolError, reached: int) -> None:
        """Note a lost attempt that left a training state of iteration ``reached``.

        Raises:
            PoolError: ``error`` itself, when it is no loss of actors, or one loss too many.
        """
        has_progressed = reached > self._reached
        self._lost_in_a_row = 1 if has_progressed else self._lost_in_a_row + 1
        self._reached = reached
        if error.code != "actors_lost" or self._lost_in_a_row > self._limit:
            raise error
        self.total += 1
        self._lost_at = time.monotonic()
        logger.warning(
            "%s; starting again from iteration %d (%d of %d)",
            error,
            reached,
            self._lost_in_a_row,
            self._limit,
        )

    def recovered(self) -> float:
        """Return the seconds since the last loss, and forget it; 0 when there was none."""
        seconds = 0.0 if self._lost_at is None else time.monotonic() - self._lost_at
        self._lost_at = None
        return seconds
