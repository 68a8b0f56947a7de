"""A repeated request gets its first answer, within bounds of number and time."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.errors import ServiceError
from serve_app.idempotency import AnswerMemory, check_key, fingerprint


class Counter:
    """Count the calls, and give the count as the answer."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    async def __call__(self) -> int:
        self.calls += 1
        await asyncio.sleep(0)
        if self.fails:
            raise ValueError("broken")
        return self.calls


def test_the_same_key_and_request_are_answered_once() -> None:
    async def scenario() -> None:
        memory: AnswerMemory[int] = AnswerMemory()
        make = Counter()
        together = [memory.once("k", "a", make) for _ in range(5)]
        assert await asyncio.gather(*together) == [1] * 5
        assert await memory.once("k", "a", make) == 1
        assert await memory.once("other", "a", make) == 2
        assert await memory.once("", "a", make) == 3
        assert await memory.once("", "a", make) == 4, "without a key nothing is remembered"

    asyncio.run(scenario())


def test_the_same_key_with_another_request_is_refused() -> None:
    async def scenario() -> None:
        memory: AnswerMemory[int] = AnswerMemory()
        await memory.once("k", "a", Counter())
        with pytest.raises(ServiceError, match="idempotency_key_reused"):
            await memory.once("k", "b", Counter())

    asyncio.run(scenario())


def test_a_failed_answer_can_be_tried_again() -> None:
    async def scenario() -> None:
        memory: AnswerMemory[int] = AnswerMemory()
        make = Counter()
        make.fails = True
        with pytest.raises(ValueError, match="broken"):
            await memory.once("k", "a", make)
        await asyncio.sleep(0)
        make.fails = False
        assert await memory.once("k", "a", make) == 2

    asyncio.run(scenario())


def test_a_client_that_hangs_up_does_not_take_the_answer_away() -> None:
    async def scenario() -> None:
        memory: AnswerMemory[int] = AnswerMemory()
        make = Counter()
        first = asyncio.create_task(memory.once("k", "a", make))
        second = asyncio.create_task(memory.once("k", "a", make))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 1

    asyncio.run(scenario())


def test_answers_are_forgotten_by_time_and_number() -> None:
    async def scenario() -> None:
        now = [0.0]
        memory: AnswerMemory[int] = AnswerMemory(kept=2, kept_s=10, clock=lambda: now[0])
        make = Counter()
        assert [await memory.once(key, "a", make) for key in ("x", "y", "z")] == [1, 2, 3]
        assert await memory.once("y", "a", make) == 2
        assert await memory.once("x", "a", make) == 4, "two are kept, so x was forgotten"
        now[0] = 10.0
        assert await memory.once("x", "a", make) == 5

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["k" * 129, "é", "a\x00b"])
def test_a_bad_key_is_refused(key: str) -> None:
    check_key("3f2a-17")
    with pytest.raises(ServiceError, match="bad_idempotency_key"):
        check_key(key)


def test_a_fingerprint_keeps_its_parts_apart() -> None:
    assert fingerprint([b"ab", b"c"]) != fingerprint([b"a", b"bc"])
    assert fingerprint([b"ab", b"c"]) == fingerprint([b"ab", b"c"])
