"""Test the pool with real actors that are killed, that hang and that fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.actor import ActorHandle

from actors.actor_pool import ActorPool, PeerLostError, PoolError, Supervised

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


class Worker(Supervised):
    """An actor that squares numbers, keeps a state, and dies, hangs or fails on request."""

    def __init__(self, broken: bool = False):
        if broken:
            raise ValueError("no weights here")
        self.state = 0

    def load(self, state: int, die: bool = False) -> None:
        if die:
            os._exit(1)
        self.state = state

    def square(self, x: int) -> tuple[int, int]:
        return x * x, self.state

    def nap(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    def die_once(self, marker: str, x: int) -> tuple[int, int]:
        if first_to_claim(marker):
            os._exit(1)
        return self.square(x)

    def die(self) -> None:
        os._exit(1)

    def hang_once(self, marker: str, x: int) -> tuple[int, int]:
        if first_to_claim(marker):
            time.sleep(600)
        return self.square(x)

    def fail(self) -> None:
        raise KeyError("bad input")

    def miss_another(self) -> None:
        raise PeerLostError("weights_lost", "the publisher is gone")

    def fail_unpicklably(self) -> None:
        raise TwoArguments("unpicklable", "too bad")


def first_to_claim(marker: str) -> bool:
    """Return whether nobody made the file before; of two callers at once only one is first."""
    try:
        open(marker, "x").close()
    except FileExistsError:
        return False
    return True


class TwoArguments(ValueError):
    """An exception that cannot be built again from its one argument."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")


RemoteWorker = ray.remote(num_cpus=0)(Worker)


@pytest.fixture
def make_pool() -> Iterator[Callable[..., ActorPool]]:
    pools: list[ActorPool] = []

    def make(
        size: int = 2,
        *,
        timeout: float = 30,
        start_timeout: float = 30,
        retries: int = 2,
        create=None,
    ):
        def default(place: int) -> ActorHandle:
            return RemoteWorker.remote()

        pool = ActorPool(
            "workers",
            create or default,
            size,
            timeout=timeout,
            start_timeout=start_timeout,
            retries=retries,
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def test_every_call_is_answered_once_in_any_order(make_pool):
    answers = list(make_pool().map([("square", {"x": x}) for x in range(20)]))
    assert sorted(answers) == [(x, (x * x, 0)) for x in range(20)]


def test_work_is_spread_over_the_actors(make_pool):
    pool = make_pool(2)
    pool.wait_ready()
    assert len({pid for _, pid in pool.map([("nap", {"seconds": 0.3})] * 2)}) == 2


def test_a_chunk_of_a_dead_actor_is_done_by_one_that_holds_the_state(make_pool, tmp_path):
    pool = make_pool(2)
    pool.broadcast(("load", {"state": 5}))
    calls = [("die_once", {"marker": str(tmp_path / str(x // 4)), "x": x}) for x in range(8)]
    assert sorted(pool.map(calls)) == [(x, (x * x, 5)) for x in range(8)]
    assert pool.replaced == 2
    pool.wait_ready()
    assert pool.ready == 2


def test_an_actor_killed_from_outside_is_replaced(make_pool):
    pool = make_pool(2)
    pool.broadcast(("load", {"state": 3}))
    ray.kill(pool.actors()[0])
    assert sorted(pool.map([("square", {"x": x}) for x in range(6)])) == [
        (x, (x * x, 3)) for x in range(6)
    ]
    assert pool.replaced == 1


def test_a_hanging_actor_is_replaced_after_the_timeout(make_pool, tmp_path):
    pool = make_pool(1, timeout=1.5)
    pool.broadcast(("load", {"state": 4}))
    assert list(pool.map([("hang_once", {"marker": str(tmp_path / "m"), "x": 3})])) == [(0, (9, 4))]
    assert pool.replaced == 1


def test_a_chunk_that_kills_every_actor_ends_with_an_error(make_pool):
    with pytest.raises(PoolError, match="chunk 0 failed on 3 actors") as caught:
        list(make_pool(1).map([("die", {})]))
    assert caught.value.code == "chunk_failed"


def test_an_error_of_the_method_is_not_tried_again(make_pool):
    pool = make_pool(1)
    with pytest.raises(PoolError, match="bad input") as caught:
        list(pool.map([("fail", {})]))
    assert caught.value.code == "actor_error"
    assert isinstance(caught.value.__cause__, KeyError)
    assert pool.replaced == 0


def test_what_another_actor_took_with_it_is_a_loss(make_pool):
    with pytest.raises(PoolError, match="the publisher is gone") as caught:
        list(make_pool(1).map([("miss_another", {})]))
    assert caught.value.code == "actors_lost"


def test_an_error_that_cannot_be_pickled_is_not_taken_for_a_death(make_pool):
    pool = make_pool(1)
    with pytest.raises(PoolError, match="unpicklable: too bad") as caught:
        list(pool.map([("fail_unpicklably", {})]))
    assert caught.value.code == "actor_error"
    assert pool.replaced == 0


def test_an_actor_that_cannot_be_built_names_its_error(make_pool):
    with pytest.raises(PoolError, match="no weights here") as caught:
        make_pool(1, create=lambda place: RemoteWorker.remote(broken=True)).wait_ready()
    assert caught.value.code == "actor_error"


def test_actors_that_die_while_they_start_end_with_an_error(make_pool):
    with pytest.raises(PoolError, match="did not start") as caught:
        make_pool(1).broadcast(("load", {"state": 1, "die": True}))
    assert caught.value.code == "actors_lost"


def test_a_starting_actor_gets_the_latest_state_before_it_serves(make_pool):
    pool = make_pool(2)
    pool.broadcast(("load", {"state": 1}))
    ray.kill(pool.actors()[1])
    pool.broadcast(("load", {"state": 2}))
    states = {state for _, (_, state) in pool.map([("square", {"x": 1})] * 10)}
    assert states == {2}


def test_abandoned_work_does_not_leak_into_the_next_map(make_pool):
    pool = make_pool(2)
    first = pool.map([("nap", {"seconds": 0.0}), ("nap", {"seconds": 60})])
    next(first)
    first.close()
    assert sorted(pool.map([("square", {"x": 2})] * 4)) == [(i, (4, 0)) for i in range(4)]


def test_closing_a_pool_ends_what_another_thread_does_with_it(make_pool):
    pool = make_pool(1)
    pool.wait_ready()
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(lambda: list(pool.map([("nap", {"seconds": 60})])))
        time.sleep(0.5)
        pool.close()
        assert work.exception(timeout=20), (
            "by which error is chance; without one it would wait for ever"
        )
