"""Answer a repeated request with its first answer: the header ``Idempotency-Key``.

A client that lost an answer sends its request again with the same key, and no second report is
written. The memory is that of one replica, bounded in number and time.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.errors import ServiceError

LONGEST_KEY = 128
KEPT = 128
"""Answers in memory at most; with heat maps one has about 0.3 MB."""
KEPT_S = 600.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Entry(Generic[Answer]):
    fingerprint: str
    answer: asyncio.Future[Answer]
    expires: float


class AnswerMemory(Generic[Answer]):
    """The answers of the last requests that had a key; for one event loop.

    Args:
        kept: answers in memory at most; the oldest go first.
        kept_s: seconds after which an answer is forgotten.
        clock: gives seconds.
    """

    def __init__(
        self,
        kept: int = KEPT,
        kept_s: float = KEPT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._kept_s = kept_s
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[Answer]] = OrderedDict()

    async def once(
        self, key: str, fingerprint: str, make: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Return the answer to a request, made at the first call with its key.

        A call while the first one is at work waits for its answer. An answer that failed is
        forgotten, so that the client can try again.

        Args:
            key: the client's key, "" for none: then the answer is always made.
            fingerprint: of everything that the answer depends on.
            make: makes the answer.

        Raises:
            ServiceError: ``idempotency_key_reused``, the key came with another request before.
        """
        if not key:
            return await make()
        self._forget_old(self._kept)
        entry = self._entries.get(key)
        if entry is None:
            self._forget_old(self._kept - 1)
            # A task of its own: the answer is wanted by all who sent the key, also when the first
            # of them hangs up.
            answer = asyncio.ensure_future(make())
            entry = _Entry(fingerprint, answer, self._clock() + self._kept_s)
            self._entries[key] = entry
            answer.add_done_callback(lambda done: self._forget_failed(key, done))
        elif entry.fingerprint != fingerprint:
            raise ServiceError(
                "idempotency_key_reused",
                "this Idempotency-Key came with another request before; take a new key",
            )
        return await asyncio.shield(entry.answer)

    def _forget_old(self, kept: int) -> None:
        """Forget what has expired, and the oldest beyond ``kept``."""
        now = self._clock()
        while self._entries:
            key, oldest = next(iter(self._entries.items()))
            if oldest.expires > now and len(self._entries) <= kept:
                return
            del self._entries[key]

    def _forget_failed(self, key: str, done: asyncio.Future[Answer]) -> None:
        # `exception()` also tells asyncio that somebody has seen it.
        if done.cancelled() or done.exception() is not None:
            entry = self._entries.get(key)
            if entry is not None and entry.answer is done:
                del self._entries[key]


def check_key(key: str) -> None:
    """Refuse a key that is too long, or has characters that no header should have.

    Raises:
        ServiceError: ``bad_idempotency_key``.
    """
    if len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise ServiceError(
            "bad_idempotency_key",
            f"Idempotency-Key must have at most {LONGEST_KEY} printable ASCII characters",
        )


def fingerprint(parts: Iterable[bytes]) -> str:
    """Return a hash over parts that keeps ("ab", "c") and ("a", "bc") apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
