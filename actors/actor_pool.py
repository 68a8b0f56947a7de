"""Run calls on a pool of actors that survives the death of its members.

The life of an actor in :class:`ActorPool`:

1. It is created in a numbered slot of the pool (its place in a reservation) and gets the initial
   call: at first ``ping``, later the last :meth:`ActorPool.broadcast`, which for an engine loads
   the current weights. Until that has succeeded it is unhealthy and gets no work.
2. :meth:`ActorPool.map` gives every healthy idle actor one chunk at a time, and waits for it until
   a deadline.
3. An actor that dies or misses its deadline is replaced by a new one in the same slot, and its
   chunk goes to the next idle actor. A chunk that failed on too many actors, or too many starts in
   a row, end the work with a :class:`PoolError`.
4. An exception of the method itself is no loss: it ends the work at once.

RLlib's ``FaultTolerantActorManager`` keeps the books: who is healthy, and which call is in flight.
Actors that hold state, so that nothing can replace them, have no pool: see :func:`results`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    UnserializableException,
)

from lmrrg.errors import CodedError

if TYPE_CHECKING:
    from ray.rllib.utils.actor_manager import CallResult

logger = logging.getLogger(__name__)

Call = tuple[str, Mapping[str, Any]]
"""A method of the actor and its keyword arguments; Ray resolves object references among them."""

POLL_S = 0.02
"""Longest wait for results before deadlines are checked, seconds."""


class PoolError(CodedError):
    """A pool cannot do its work.

    ``code`` is ``actors_lost``, ``chunk_failed`` or ``actor_error``.
    """


class PeerLostError(CodedError):
    """An actor needs something that was lost with another actor; ``code`` names it.

    The pool of the actor that raises it reports ``actors_lost``, the loss of the other one.
    """


class Supervised:
    """Base of the actors in a pool, with the two methods that the actor manager calls."""

    def ping(self) -> str:
        """Show that the actor is up."""
        return "pong"

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run ``func(self, …)``; errors reach the caller."""
        return func(self, *args, **kwargs)


def results(
    name: str, actors: Sequence[ActorHandle], calls: Sequence[ray.ObjectRef], timeout: float
) -> list[Any]:
    """Wait for calls to actors that hold state, so that nothing can replace a dead one.

    When a rank of a process group dies, the others fail with an error of their own (a closed
    connection), and which error arrives first is chance. So a failed call counts as a loss whenever
    any of the actors is gone.

    Args:
        name: for messages.
        actors: all that must be alive.
        calls: what to wait for.
        timeout: longest time for all of them, seconds.

    Raises:
        PoolError: ``actors_lost``, an actor is gone or did not answer in time.
        RayTaskError: the method itself raised, with every actor alive.
    """
    try:
        return ray.get(list(calls), timeout=timeout)
    except GetTimeoutError as error:
        raise PoolError("actors_lost", f"{name}: no answer in {timeout:g} s") from error
    except OutOfMemoryError as error:
        # Ray's memory monitor killed an actor; its error is no RayActorError.
        raise PoolError(
            "actors_lost", f"{name}: an actor was killed, its node ran out of memory"
        ) from error
    except (RayActorError, RayTaskError, ObjectLostError) as error:
        # A constructor that raised is no loss: it would raise again.
        if getattr(error, "actor_init_failed", False):
            raise
        dead = _count_dead(actors)
        if not dead:
            raise
        raise PoolError("actors_lost", f"{name}: {dead} of {len(actors)} actors died") from error


def _count_dead(actors: Sequence[ActorHandle]) -> int:
    """Count the actors that are gone; a busy one does not answer and counts as alive."""
    pings = [cast(Any, actor).__ray_ready__.remote() for actor in actors]
    answered, _ = ray.wait(pings, num_returns=len(pings), timeout=2)
    dead = 0
    for ping in answered:
        try:
            ray.get(ping)
        except (RayActorError, OutOfMemoryError):
            dead += 1
    return dead


def spawn(actor: type[Supervised], options: Mapping[str, Any], *arguments: Any) -> ActorHandle:
    """Start an actor with Ray's ``options`` and its constructor's arguments."""
    return cast(Any, ray.remote(actor)).options(**options).remote(*arguments)


@dataclass
class _CallInFlight:
    """The call that an actor is working on."""

    chunk: int | None
    """Index of the chunk; None for the initial call."""
    call: Call
    deadline: float
    """On the monotonic clock."""


@dataclass
class _Work:
    """The state of one :meth:`ActorPool.map`."""

    calls: Sequence[Call]
    waiting: deque[int]
    """Chunks that no actor works on."""
    attempts: list[int]
    """Failures of every chunk so far."""
    done: deque[tuple[int, Any]] = field(default_factory=deque)
    """Results that the caller has not got yet."""
    open: int = 0
    """Results that the caller still has to get."""

    @classmethod
    def of(cls, calls: Sequence[Call]) -> _Work:
        return cls(calls, deque(range(len(calls))), [0] * len(calls), open=len(calls))


class ActorPool:
    """Actors of one kind, always as many as at the start.

    Args:
        name: for messages.
        create: makes one actor for a slot of the pool (0 … size-1).
        size: number of actors.
        timeout: longest time for one chunk, seconds; a slower actor is killed and replaced.
        start_timeout: longest time for an actor to start and to be initialised, seconds.
        retries: how often one chunk is tried again, and how many starts in a row may fail.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[int], ActorHandle],
        size: int,
        *,
        timeout: float,
        start_timeout: float = 300.0,
        retries: int = 3,
    ):
        # Imported late: the actors' own processes import this module too, and RLlib would cost each
        # of them 2 s of CPU.
        from ray.rllib.utils.actor_manager import FaultTolerantActorManager

        self._name = name
        self._create = create
        self._timeout = timeout
        self._start_timeout = start_timeout
        self._retries = retries
        self._manager = FaultTolerantActorManager(max_remote_requests_in_flight_per_actor=1)
        # Both by the manager's id of an actor; a replacement gets a new id and the old slot.
        self._slots: dict[int, int] = {}
        self._in_flight: dict[int, _CallInFlight] = {}
        self._initial_call: Call = ("ping", {})
        self._failed_starts = 0
        self._closed = False
        self.replaced = 0
        """Actors replaced so far."""
        for slot in range(size):
            self._add(slot)

    @property
    def size(self) -> int:
        """Return the number of actors, initialised or not."""
        return self._manager.num_actors()

    @property
    def ready(self) -> int:
        """Return the number of actors that can take work now."""
        return self._manager.num_healthy_actors()

    def wait_ready(self) -> None:
        """Wait until every actor is up and initialised.

        Raises:
            PoolError: ``actors_lost``.
        """
        nothing = _Work.of([])
        while self.ready < self.size:
            self._step(nothing)

    def map(self, calls: Sequence[Call]) -> Iterator[tuple[int, Any]]:
        """Run every call on some actor; yield (index of the call, result) as they finish.

        Raises:
            PoolError: ``chunk_failed`` (more than ``retries`` actors were lost with one call);
                ``actors_lost``; ``actor_error`` (the method itself raised: its error is the cause,
                and nothing is tried again).
        """
        work = _Work.of(calls)
        try:
            while work.open:
                if self._closed:
                    # By another thread: no actor is left to answer.
                    raise PoolError("actors_lost", f"{self._name}: closed while at work")
                self._dispatch(work)
                self._step(work)
                while work.done:
                    work.open -= 1
                    yield work.done.popleft()
        finally:
            self._abandon()

    def broadcast(self, call: Call) -> None:
        """Run a call on every actor, and on every later replacement before anything else.

        An actor that dies or is too slow is replaced: when this returns, every actor has done it.

        Raises:
            PoolError: ``actors_lost`` or ``actor_error``.
        """
        self._initial_call = call
        for actor_id in self._manager.actor_ids():
            # An actor that is starting gets the new call when its present one ends: _initialised.
            if self._manager.is_actor_healthy(actor_id):
                self._begin_initialisation(actor_id)
        self.wait_ready()

    def renew(self, reason: str) -> None:
        """Replace every actor, because the state of none of them is known."""
        for actor_id in self._manager.actor_ids():
            self._replace(actor_id, reason)

    def actors(self) -> list[ActorHandle]:
        """Return the handles, for tests and for calls outside of supervision."""
        return list(self._manager.actors().values())

    def close(self) -> None:
        """Kill the actors."""
        self._closed = True
        self._in_flight.clear()
        self._manager.clear()

    def _add(self, slot: int) -> None:
        self._manager.add_actors([self._create(slot)])
        actor_id = self._manager.actor_ids()[-1]
        self._slots[actor_id] = slot
        self._begin_initialisation(actor_id)

    def _begin_initialisation(self, actor_id: int) -> None:
        self._manager.set_actor_state(actor_id, healthy=False)
        self._send(actor_id, None, self._initial_call, self._start_timeout)

    def _send(self, actor_id: int, chunk: int | None, call: Call, timeout: float) -> None:
        method, arguments = call
        self._manager.foreach_actor_async(
            [method], kwargs=[dict(arguments)], remote_actor_ids=[actor_id], healthy_only=False
        )
        self._in_flight[actor_id] = _CallInFlight(chunk, call, time.monotonic() + timeout)

    def _dispatch(self, work: _Work) -> None:
        """Give waiting chunks to idle actors."""
        for actor_id in self._manager.healthy_actor_ids():
            if work.waiting and actor_id not in self._in_flight:
                chunk = work.waiting.popleft()
                self._send(actor_id, chunk, work.calls[chunk], self._timeout)

    def _step(self, work: _Work) -> None:
        """Take what is finished, then replace the dead and the slow."""
        ready = cast(
            "Iterator[CallResult]",
            iter(self._manager.fetch_ready_async_reqs(timeout_seconds=POLL_S)),
        )
        for result in ready:
            finished = self._in_flight.pop(result.actor_id)
            if not result.ok:
                self._failed(result, finished, work)
            elif finished.chunk is None:
                self._initialised(result.actor_id, finished)
            else:
                work.done.append((finished.chunk, result.get()))
        now = time.monotonic()
        # A copy, since a replacement adds a call of its own.
        for actor_id, late in list(self._in_flight.items()):
            if now > late.deadline:
                del self._in_flight[actor_id]
                self._lost(actor_id, late, work, "it did not answer in time")

    def _initialised(self, actor_id: int, finished: _CallInFlight) -> None:
        self._failed_starts = 0
        if finished.call is self._initial_call:
            self._manager.set_actor_state(actor_id, healthy=True)
        else:
            # There was a broadcast meanwhile.
            self._begin_initialisation(actor_id)

    def _failed(self, result: CallResult, failed: _CallInFlight, work: _Work) -> None:
        """Raise an exception of the method; treat everything else as the loss of the actor."""
        error = result.get()
        if isinstance(error, RayTaskError) and isinstance(error.cause, PeerLostError):
            raise PoolError("actors_lost", f"{self._name}: {error.cause}") from error
        constructor_raised = isinstance(error, RayActorError) and error.actor_init_failed
        if isinstance(error, (RayTaskError, UnserializableException)) or constructor_raised:
            raise PoolError("actor_error", f"{self._name}: {_last_line(error)}") from error
        self._lost(result.actor_id, failed, work, type(error).__name__)

    def _lost(self, actor_id: int, lost: _CallInFlight, work: _Work, reason: str) -> None:
        """Put the chunk of a lost actor back and replace the actor."""
        if lost.chunk is None:
            self._count_failed_start(reason)
        else:
            work.attempts[lost.chunk] += 1
            attempts = work.attempts[lost.chunk]
            if attempts > self._retries:
                raise PoolError(
                    "chunk_failed",
                    f"{self._name}: chunk {lost.chunk} failed on {attempts} actors ({reason})",
                )
            # In front: it has waited longest.
            work.waiting.appendleft(lost.chunk)
        self._replace(actor_id, reason)

    def _count_failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts > self._retries:
            raise PoolError(
                "actors_lost",
                f"{self._name}: {self._failed_starts} actors in a row did not start ({reason})",
            )

    def _replace(self, actor_id: int, reason: str) -> None:
        slot = self._slots.pop(actor_id)
        self._in_flight.pop(actor_id, None)
        logger.warning("%s: replacing actor %d (%s)", self._name, slot, reason)
        ray.kill(self._manager.remove_actor(actor_id))
        self.replaced += 1
        self._add(slot)

    def _abandon(self) -> None:
        """Replace the actors whose chunk nobody waits for any more; they may be busy for long."""
        for actor_id, abandoned in list(self._in_flight.items()):
            if abandoned.chunk is not None:
                self._replace(actor_id, "its work was abandoned")


def _last_line(error: Exception) -> str:
    # Ray puts the remote traceback in front of the message.
    return str(error).strip().splitlines()[-1]
