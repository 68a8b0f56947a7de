"""Read request bodies: not too large, not too slowly, and not too many slow ones of one client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from lmrrg.config.serve import ServeConfig
from serve_app.errors import ServiceError

PATIENCE_S = 1.0
"""Seconds after which an upload counts as slow."""
GRACE_S = 5.0
"""Seconds before the pace of an upload is judged."""


class Bodies:
    """Reads the bodies of all requests of one process, whose memory it bounds."""

    def __init__(self, limits: ServeConfig):
        self._limits = limits
        self.max_bytes = limits.max_upload_mb << 20
        self._slow: Counter[str] = Counter()
        self._free = limits.upload_memory_mb << 20

    @contextmanager
    def memory(self) -> Iterator[_Memory]:
        """Lend memory for one body; all of it is free again afterwards."""
        lent = _Memory(self)
        try:
            yield lent
        finally:
            self._free += lent.taken

    async def read(self, receive: Receive, client: str, memory: _Memory) -> bytes:
        """Return the whole body.

        Args:
            receive: gives the request's messages.
            client: who sends it; slow uploads are counted by it.
            memory: takes its bytes.

        Raises:
            ServiceError: ``too_large``, ``upload_timeout``, ``too_many_uploads`` or ``busy``.
            ClientDisconnect: the client has gone.
        """
        start = asyncio.get_running_loop().time()
        chunks: list[bytes] = []
        with ExitStack() as slow:
            is_slow = False
            while True:
                until = self._deadline(start, memory.taken) if is_slow else start + PATIENCE_S
                try:
                    async with asyncio.timeout_at(until):
                        message = await receive()
                except TimeoutError:
                    if is_slow:
                        raise ServiceError(
                            "upload_timeout", "the upload takes too long or comes too slowly"
                        ) from None
                    slow.enter_context(self._slow_slot(client))
                    is_slow = True
                    continue
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                memory.take(len(chunk))
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)

    def _deadline(self, start: float, received: int) -> float:
        """Return when the upload has taken too long, or has become slower than the floor."""
        at_floor = received / (self._limits.min_upload_kb_per_s * 1000)
        return start + min(self._limits.upload_timeout_s, max(GRACE_S, at_floor))

    @contextmanager
    def _slow_slot(self, client: str) -> Iterator[None]:
        if self._slow[client] >= self._limits.uploads_per_client:
            raise ServiceError("too_many_uploads", "too many slow uploads of one client at once")
        self._slow[client] += 1
        try:
            yield
        finally:
            self._slow[client] -= 1
            if not self._slow[client]:
                del self._slow[client]


class _Memory:
    """What one body holds of the memory for all of them."""

    def __init__(self, bodies: Bodies):
        self._bodies = bodies
        self.taken = 0

    def take(self, count: int) -> None:
        """Take memory for further bytes.

        Raises:
            ServiceError: ``too_large``, or ``busy`` where other bodies have all of it.
        """
        bodies = self._bodies
        if self.taken + count > bodies.max_bytes:
            raise too_large(bodies.max_bytes)
        if count > bodies._free:
            raise ServiceError("busy", "too many uploads are being read; try again soon")
        self.taken += count
        bodies._free -= count


def too_large(limit: int) -> ServiceError:
    """Return the error of a body of more than ``limit`` bytes."""
    return ServiceError("too_large", f"the upload is larger than {limit >> 20} MB")
