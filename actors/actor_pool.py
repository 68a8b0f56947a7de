"""A pool of actors that survives the death of its members.

RLlib's ``FaultTolerantActorManager`` keeps the book of who is healthy and what is in flight. On top of it the pool
hands out work in chunks, gives the chunks of a dead or slow actor to the others, and puts a fresh actor in its place,
which serves nothing before it was initialised (for an engine: before it holds the current weights).
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
"""A method of the actor and its keyword arguments (object references among them are resolved by Ray)."""

POLL_S = 0.02


class PoolError(CodedError):
    """A pool that cannot do its work; ``code`` is ``actors_lost``, ``chunk_failed`` or ``actor_error``."""


class PeerLostError(CodedError):
    """Raised by an actor that needs what another, which is gone, held: ``code`` says what, like ``weights_lost``.

    Its pool takes that for the other's loss.
    """


class Supervised:
    """Base of the actors in a pool: the two methods that the actor manager calls."""

    def ping(self) -> str:
        """Answer that the actor is up."""
        return "pong"

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run ``func(self, …)``; errors reach the caller."""
        return func(self, *args, **kwargs)


def results(
    name: str, actors: Sequence[ActorHandle], calls: Sequence[ray.ObjectRef], timeout: float
) -> list[Any]:
    """Results of calls to actors that hold state, so that nothing can take a dead one's place.

    When a rank of a process group dies the others fail with an error of their own (a closed connection), and which one
    arrives first is chance: a failed call counts as a loss when any of the actors is gone.

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
    except OutOfMemoryError as error:  # Ray's memory monitor killed one; it is no RayActorError
        raise PoolError(
            "actors_lost", f"{name}: an actor was killed, its node ran out of memory"
        ) from error
    except (RayActorError, RayTaskError, ObjectLostError) as error:
        if getattr(error, "actor_init_failed", False) or not (dead := _dead(actors)):
            raise
        raise PoolError("actors_lost", f"{name}: {dead} of {len(actors)} actors died") from error


def _dead(actors: Sequence[ActorHandle]) -> int:
    """How many are gone; one that is only busy does not answer, and counts as alive."""
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
    """Start an actor with Ray's ``options`` and the arguments of its constructor."""
    return cast(Any, ray.remote(actor)).options(**options).remote(*arguments)


@dataclass
class _Flight:
    """What an actor is busy with: a chunk's index, or ``None`` while it is being initialised."""

    chunk: int | None
    call: Call
    deadline: float


@dataclass
class _Work:
    """One :meth:`ActorPool.map` under way."""

    calls: Sequence[Call]
    waiting: deque[int]
    attempts: list[int]
    done: deque[tuple[int, Any]] = field(default_factory=deque)
    open: int = 0

    @classmethod
    def of(cls, calls: Sequence[Call]) -> _Work:
        return cls(calls, deque(range(len(calls))), [0] * len(calls), open=len(calls))


class ActorPool:
    """Actors of one kind, kept at their number.

    Args:
        name: for messages.
        create: makes one actor; its argument is the place in the pool (0 … size-1), for placement.
        size: number of actors.
        timeout: longest time for one chunk, seconds; a slower actor is killed and replaced.
        start_timeout: longest time for an actor to start and to be initialised, seconds.
        retries: how often one chunk is tried again, and how many actors in a row may fail to start.
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
        # Imported late: the actors' own processes import this module too, and RLlib costs each 2 s of CPU.
        from ray.rllib.utils.actor_manager import FaultTolerantActorManager

        self._name, self._create = name, create
        self._timeout, self._start_timeout, self._retries = timeout, start_timeout, retries
        self._manager = FaultTolerantActorManager(max_remote_requests_in_flight_per_actor=1)
        self._places: dict[int, int] = {}
        self._flights: dict[int, _Flight] = {}
        self._initialise: Call = ("ping", {})
        self._failed_starts = 0
        self._closed = False
        self.replaced = 0
        """Actors replaced so far."""
        for place in range(size):
            self._add(place)

    @property
    def size(self) -> int:
        """Number of actors, initialised or not."""
        return self._manager.num_actors()

    @property
    def ready(self) -> int:
        """Number of actors that can take work now."""
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
        """Run every call on some actor; yield (index of the call, result) as they come.

        Raises:
            PoolError: ``chunk_failed`` (a call failed with more than ``retries`` actors), ``actors_lost``, or
                ``actor_error`` (the method itself raised: its error is the cause, and nothing is tried again).
        """
        work = _Work.of(calls)
        try:
            while work.open:
                if self._closed:  # by another thread: no actor is left to answer
                    raise PoolError("actors_lost", f"{self._name}: closed while at work")
                self._dispatch(work)
                self._step(work)
                while work.done:
                    work.open -= 1
                    yield work.done.popleft()
        finally:
            self._abandon()

    def broadcast(self, call: Call) -> None:
        """Run a call on every actor, and first of all on every later replacement.

        An actor that dies or is too slow is replaced: when this returns, every actor has done the call.

        Raises:
            PoolError: ``actors_lost`` or ``actor_error``.
        """
        self._initialise = call
        for actor_id in self._manager.actor_ids():
            # An actor that is starting gets the new call when its present one ends: see _step.
            if self._manager.is_actor_healthy(actor_id):
                self._begin_initialisation(actor_id)
        self.wait_ready()

    def renew(self, reason: str) -> None:
        """Replace every actor: none of them is in a state that is known."""
        for actor_id in self._manager.actor_ids():
            self._replace(actor_id, reason)

    def actors(self) -> list[ActorHandle]:
        """The handles, for tests and for calls that are outside supervision."""
        return list(self._manager.actors().values())

    def close(self) -> None:
        """Kill the actors."""
        self._closed = True
        self._flights.clear()
        self._manager.clear()

    def _add(self, place: int) -> None:
        self._manager.add_actors([self._create(place)])
        actor_id = self._manager.actor_ids()[-1]
        self._places[actor_id] = place
        self._begin_initialisation(actor_id)

    def _begin_initialisation(self, actor_id: int) -> None:
        self._manager.set_actor_state(actor_id, healthy=False)
        self._send(actor_id, None, self._initialise, self._start_timeout)

    def _send(self, actor_id: int, chunk: int | None, call: Call, timeout: float) -> None:
        method, arguments = call
        self._manager.foreach_actor_async(
            [method], kwargs=[dict(arguments)], remote_actor_ids=[actor_id], healthy_only=False
        )
        self._flights[actor_id] = _Flight(chunk, call, time.monotonic() + timeout)

    def _dispatch(self, work: _Work) -> None:
        for actor_id in self._manager.healthy_actor_ids():
            if work.waiting and actor_id not in self._flights:
                chunk = work.waiting.popleft()
                self._send(actor_id, chunk, work.calls[chunk], self._timeout)

    def _step(self, work: _Work) -> None:
        """Take what is finished, then deal with the dead and the slow."""
        ready = cast(
            "Iterator[CallResult]",
            iter(self._manager.fetch_ready_async_reqs(timeout_seconds=POLL_S)),
        )
        for result in ready:
            flight = self._flights.pop(result.actor_id)
            if not result.ok:
                self._failed(result, flight, work)
            elif flight.chunk is None:
                self._initialised(result.actor_id, flight)
            else:
                work.done.append((flight.chunk, result.get()))
        now = time.monotonic()
        for actor_id, flight in list(self._flights.items()):
            if now > flight.deadline:
                del self._flights[actor_id]
                self._lost(actor_id, flight, work, "it did not answer in time")

    def _initialised(self, actor_id: int, flight: _Flight) -> None:
        self._failed_starts = 0
        if flight.call is self._initialise:
            self._manager.set_actor_state(actor_id, healthy=True)
        else:
            self._begin_initialisation(actor_id)

    def _failed(self, result: CallResult, flight: _Flight, work: _Work) -> None:
        error = result.get()
        if isinstance(error, RayTaskError) and isinstance(error.cause, PeerLostError):
            raise PoolError("actors_lost", f"{self._name}: {error.cause}") from error
        started_badly = isinstance(error, RayActorError) and error.actor_init_failed
        if isinstance(error, (RayTaskError, UnserializableException)) or started_badly:
            raise PoolError("actor_error", f"{self._name}: {_last_line(error)}") from error
        self._lost(result.actor_id, flight, work, type(error).__name__)

    def _lost(self, actor_id: int, flight: _Flight, work: _Work, reason: str) -> None:
        if flight.chunk is None:
            self._failed_starts += 1
            if self._failed_starts > self._retries:
                raise PoolError(
                    "actors_lost",
                    f"{self._name}: {self._failed_starts} actors in a row did not start ({reason})",
                )
        else:
            work.attempts[flight.chunk] += 1
            if work.attempts[flight.chunk] > self._retries:
                raise PoolError(
                    "chunk_failed",
                    f"{self._name}: chunk {flight.chunk} failed on {work.attempts[flight.chunk]} actors ({reason})",
                )
            work.waiting.appendleft(flight.chunk)
        self._replace(actor_id, reason)

    def _replace(self, actor_id: int, reason: str) -> None:
        place = self._places.pop(actor_id)
        self._flights.pop(actor_id, None)
        logger.warning("%s: replacing actor %d (%s)", self._name, place, reason)
        ray.kill(self._manager.remove_actor(actor_id))
        self.replaced += 1
        self._add(place)

    def _abandon(self) -> None:
        """Forget chunks that nobody waits for any more; their actors are replaced, for they may be busy for long."""
        for actor_id, flight in list(self._flights.items()):
            if flight.chunk is not None:
                self._replace(actor_id, "its work was abandoned")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
