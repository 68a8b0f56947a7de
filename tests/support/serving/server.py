"""Run an ASGI application on a port of its own, for tests that need real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def running(app: ASGIApp) -> Iterator[tuple[str, int]]:
    """Serve the application in a thread; yield host and port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[:2]
    server.should_exit = True
    server.force_exit = True
    thread.join(10)


def exchange(address: tuple[str, int], request: bytes, timeout: float = 30) -> bytes:
    """Send raw bytes and return all that comes until the server closes the connection."""
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.sendall(request)
        return rest_of(connection)


def rest_of(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    answer = b""
    # A server that refuses a body closes the connection with unread bytes, which resets it.
    with suppress(ConnectionResetError):
        while received := connection.recv(65536):
            answer += received
    return answer
