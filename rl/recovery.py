"""Recovery of a run from lost actors, a notice of preemption, and a full disk."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.actor_pool import PoolError
from lmrrg.errors import INTERRUPTED, CodedError
from lmrrg.ppo.errors import PPOError

logger = logging.getLogger(__name__)

_FULL = 16 << 20
"""Storage with fewer free bytes is full: writers fail before their last buffer is on disk."""


class Preempted(Exception):
    """The run was asked to stop; its state is saved, and the same command continues.

    ``exit_code`` is what the command ends with: 0 after SIGTERM, because a job manager would take
    anything else for a failure; 130 after Ctrl-C, as shells expect.
    """

    def __init__(self, message: str, exit_code: int = 0):
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Whether somebody asked the run to stop, and how.

    Clouds and job managers send SIGTERM some time before they kill a process; a terminal sends
    SIGINT for Ctrl-C.
    """

    def __init__(self) -> None:
        self._signal: int | None = None

    def __call__(self) -> bool:
        """Return whether a signal came."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """Exit code of a command that stopped for it."""
        return INTERRUPTED if self._signal == signal.SIGINT else 0

    def receive(self, number: int, frame: object) -> None:
        """Note a signal; a second Ctrl-C interrupts at once.

        Raises:
            KeyboardInterrupt: Ctrl-C came before.
        """
        if number == signal.SIGINT:
            if self._signal == signal.SIGINT:
                raise KeyboardInterrupt
            print(
                "stopping after this iteration; press Ctrl-C again to stop without saving",
                file=sys.stderr,
            )
        self._signal = number


@contextmanager
def preemption_notice() -> Iterator[StopRequest]:
    """Yield the request to stop; calling it returns True once SIGTERM or Ctrl-C came.

    The block must be opened in the main thread, after ``ray.init``, whose own handler would exit
    at once.
    """
    # The handler only sets a flag: the iteration in progress is finished, and its state saved.
    request = StopRequest()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, request.receive) for number in numbers]
    try:
        yield request
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


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
