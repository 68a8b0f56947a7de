"""A local HTTP server that answers as an OpenAI-compatible endpoint does, or refuses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = str | int
"""The text of the answer, or the status of a refusal."""


@dataclass
class FakeJudge:
    """The endpoint: what it answers, and what it was asked."""

    answer: Callable[[dict[str, Any]], Reply]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0


@pytest.fixture
def fake_judge() -> Callable[..., AbstractContextManager[FakeJudge]]:
    """Return a context manager that serves what ``answer(request)`` returns."""
    return _serve


@contextmanager
def _serve(answer: Callable[[dict[str, Any]], Reply]) -> Iterator[FakeJudge]:
    judge = FakeJudge(answer)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                judge.requests.append(request)
                judge.keys.append(self.headers.get("Authorization"))
                judge.open_now += 1
                judge.most_open = max(judge.most_open, judge.open_now)
            reply = judge.answer(request)
            time.sleep(0.02)
            with lock:
                judge.open_now -= 1
            message = {"choices": [{"message": {"content": reply}}]}
            body = json.dumps(message).encode() if isinstance(reply, str) else b"no"
            self.send_response(200 if isinstance(reply, str) else reply)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
