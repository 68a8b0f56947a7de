"""The gate itself, as ASGI middleware."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmrrg.errors import CodedError
from serve_app.errors import CODE_HEADER, coded_response
from serve_app.gate import checks
from serve_app.gate.bodies import Bodies, too_large
from serve_app.gate.forward import HEALTH_PATHS, forward
from serve_app.gate.keys import KeyRing, RateLimits
from serve_app.gate.record import Exchange, Records, clock, route_of
from serve_app.gate.settings import GateSettings

METRICS_PATH = "/metrics"
PROXY_HEALTH = "/-/healthz"
"""Health of a proxy of Ray Serve, which its gate answers with a header of its own."""
GATE_HEADER = "x-lmrrg-gate"
_PAGE_FILES = "/page/"
_WITHOUT_KEY = ("/", *HEALTH_PATHS, PROXY_HEALTH)

# Every answer has these; the page replaces the policy by its own.
_SECURITY = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
# The key stays here, and with the others a client could switch off time limits of the proxy.
_NOT_FORWARDED = (
    b"authorization",
    b"x-request-id",
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
)
_DRAIN_S = 2.0


class Gate:
    """Checks a request, reads its body, hands it on, and records it.

    Args:
        app: the proxy of Ray Serve, or the web application.
        settings: limits, keys and names.
    """

    def __init__(self, app: ASGIApp, settings: GateSettings):
        self._app = app
        self._serve = settings.serve
        self._fingerprint = settings.fingerprint
        self._bodies = Bodies(settings.serve)
        self._keys = KeyRing(settings.keys)
        self._rates = RateLimits(settings.serve.requests_per_s, settings.serve.request_burst)
        self._records = Records(settings.serve.audit_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = clock()
        exchange = Exchange(route_of(scope["path"]), scope["method"])
        recorded = _recording(exchange, send)
        self._records.open.inc()
        try:
            await self._pass(scope, receive, recorded, exchange)
        except CodedError as error:
            with suppress(OSError):
                response = coded_response(error)
                if exchange.is_read:
                    await response(scope, receive, recorded)
                else:
                    await self._refuse(response, scope, receive, recorded)
        except ClientDisconnect:
            pass  # recorded as 499
        finally:
            self._records.open.dec()
            self._records.write(exchange, clock() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        """Check a request, from its head to its body, and send the answer.

        Raises:
            CodedError: it is refused, or no replica answers.
            ClientDisconnect: the client has gone.
        """
        headers = Headers(scope=scope)
        path = scope["path"]
        checks.check_content_type(headers)
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._bodies.max_bytes:
            raise too_large(self._bodies.max_bytes)
        if path not in _WITHOUT_KEY and not path.startswith(_PAGE_FILES):
            exchange.key = self._keys.identify(headers.get("authorization"))
            if exchange.key is not None:
                self._rates.take(exchange.key)
        client = exchange.key or (scope.get("client") or ("",))[0]
        with self._bodies.memory() as memory:
            try:
                body = await self._bodies.read(receive, client, memory)
            finally:
                exchange.received = memory.taken
            exchange.is_read = True
            checks.check_json(headers, body)
            if path not in (*HEALTH_PATHS, PROXY_HEALTH):
                # After the body: only now the request would have an effect, and probes for limits
                # are answered alike under every name.
                checks.check_host(headers, self._serve.allowed_hosts)
            if path == METRICS_PATH:
                await Response(self._records.metrics(), media_type="text/plain; version=0.0.4")(
                    scope, receive, send
                )
                return
            answer = await forward(
                self._app,
                _inner_scope(scope, len(body)),
                body,
                receive,
                self._serve,
                self._records.count_loss,
            )
        if path == PROXY_HEALTH:
            answer.add_header(GATE_HEADER, self._fingerprint)
        for message in answer.messages:
            await send(message)

    async def _refuse(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an error before the body is read, and close the connection.

        What the client still sends is thrown away for a moment: a connection that is closed with
        unread data is reset, and the client would never see the answer.
        """
        response.headers["connection"] = "close"
        expects = Headers(scope=scope).get("expect")

        async def held_open(message: Message) -> None:
            if message["type"] == "http.response.body" and not expects:
                await send({**message, "more_body": True})
                await _drain(receive, self._bodies.max_bytes)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await response(scope, receive, held_open)


def _inner_scope(scope: Scope, length: int) -> dict[str, Any]:
    """Return the request as the replica gets it: without the key, with the body's true length."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name not in (*_NOT_FORWARDED, b"content-length", b"transfer-encoding", b"expect")
    ]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}


def _recording(exchange: Exchange, send: Send) -> Send:
    """Return a ``send`` that adds the security headers and notes what is sent."""

    async def recorded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _SECURITY.items():
                headers.setdefault(name, value)
            exchange.status = message["status"]
            exchange.code = headers.get(CODE_HEADER, "")
        exchange.sent += len(message.get("body", b""))
        await send(message)

    return recorded


async def _drain(receive: Receive, most: int) -> None:
    """Throw away up to ``most`` bytes of a body, for two seconds at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while most > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                most -= len(message.get("body", b""))
                await asyncio.sleep(0)  # a fast client would leave no moment for others
