"""Run an application on a port of its own, for tests that need real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

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


class Handler(BaseHTTPRequestHandler):
    """Handler that says nothing on the terminal."""

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def handled_by(handler: type[Handler]) -> Iterator[str]:
    """Serve with the handler in a thread; yield the address."""
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


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
