"""Hand a request to a replica, and to another one when that dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope

from lmrrg.config.serve import ServeConfig
from serve_app.errors import ServiceError

logger = logging.getLogger("ray.serve")

HEALTH_TIMEOUT_S = 0.9
"""Longest time for the answer of a health check, seconds."""
HEALTH_PATHS = ("/healthz", "/readyz")
_PAUSE_S = 0.2
_SLICE = 1 << 18
# What the proxy says as plain text. It has 404 while no application is deployed.
_PROXY_ERRORS = {
    404: ("not_ready", "the service is being started; try again soon"),
    408: ("timeout", "the report took too long"),
    429: ("busy", "too many requests are waiting; try again soon"),
    503: ("busy", "too many requests are waiting; try again soon"),
}


class Answer:
    """A whole response, held back until it is complete: only then can no retry be needed."""

    def __init__(self) -> None:
        self.start: Message | None = None
        self.body = b""
        self.is_complete = False

    async def send(self, message: Message) -> None:
        """Take the next message of a response (ASGI ``send``)."""
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            self.is_complete = not message.get("more_body", False)

    def add_header(self, name: str, value: str) -> None:
        """Add a header to the response."""
        assert self.start is not None
        MutableHeaders(scope=self.start)[name] = value

    @property
    def messages(self) -> list[Message]:
        """Return the messages of the complete response."""
        assert self.start is not None
        return [self.start, {"type": "http.response.body", "body": self.body}]

    @property
    def is_whole(self) -> bool:
        """Return whether this is a whole answer, and not what a proxy says when a replica died.

        That is a 500 as plain text, which replicas never send.
        """
        return self.is_complete and self._proxy_status != HTTPStatus.INTERNAL_SERVER_ERROR

    def raise_proxy_error(self) -> None:
        """Raise the error that a proxy tells as plain text.

        Raises:
            ServiceError: ``not_ready``, ``timeout`` or ``busy``.
        """
        if error := _PROXY_ERRORS.get(self._proxy_status or 0):
            raise ServiceError(*error)

    @property
    def _proxy_status(self) -> int | None:
        """Return the status of an answer of the proxy itself, which is plain text; else None."""
        assert self.start is not None
        headers = {name.lower(): value for name, value in self.start["headers"]}
        is_text = headers.get(b"content-type", b"").startswith(b"text/plain")
        return int(self.start["status"]) if is_text else None


async def forward(
    app: ASGIApp,
    scope: Scope,
    body: bytes,
    receive: Receive,
    limits: ServeConfig,
    count_loss: Callable[[], Any],
) -> Answer:
    """Return the answer of the replica that the proxy chooses, of another one if that one dies.

    A report changes nothing in the replica, so a request may be made again.

    Args:
        app: the proxy, or the web application itself.
        scope: the request.
        body: its whole body.
        receive: gives what follows the body: that the client has gone.
        limits: times.
        count_loss: called when a replica was lost.

    Raises:
        ServiceError: ``timeout``, ``replica_lost``, ``not_ready`` or ``busy``.
        ClientDisconnect: the client has gone.
    """
    loop = asyncio.get_running_loop()
    is_health = scope["path"] in HEALTH_PATHS
    end = loop.time() + (HEALTH_TIMEOUT_S if is_health else limits.request_timeout_s)
    lost = False
    try:
        async with asyncio.timeout_at(end) as timeout:
            while True:
                answer = Answer()
                replay = Replay(body, receive)
                try:
                    await app(dict(scope), replay, answer.send)
                except Exception:
                    # Whatever went wrong in the proxy, another replica may answer; the loss counts.
                    logger.exception("a request failed")
                if timeout.expired():
                    # The proxy has taken the end of our patience for a client that left.
                    raise TimeoutError
                if answer.is_whole:
                    answer.raise_proxy_error()
                    return answer
                if replay.client_has_gone:
                    raise ClientDisconnect
                count_loss()
                if not lost:
                    lost = True
                    timeout.reschedule(min(end, loop.time() + limits.retry_s))
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        if lost:
            raise ServiceError("replica_lost", "the process that wrote the report died") from None
        if is_health:
            raise ServiceError("not_ready", "no replica answers the health check") from None
        raise ServiceError("timeout", "the report took too long") from None


class Replay:
    """Gives the body of a request again, in slices, and then what really follows (ASGI)."""

    def __init__(self, body: bytes, receive: Receive):
        self._body = body
        self._receive = receive
        # An empty body is one empty slice.
        self._starts = iter(range(0, max(1, len(body)), _SLICE))
        self.client_has_gone = False

    async def __call__(self) -> Message:
        """Return the next message."""
        start = next(self._starts, None)
        if start is None:
            message = await self._receive()
            self.client_has_gone = message["type"] == "http.disconnect"
            return message
        end = start + _SLICE
        more = end < len(self._body)
        return {"type": "http.request", "body": self._body[start:end], "more_body": more}
