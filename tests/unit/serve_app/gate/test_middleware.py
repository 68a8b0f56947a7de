"""The gate in front of a small application, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.types import Message

from lmrrg.config.serve import ServeConfig
from serve_app.gate import bodies
from serve_app.gate.middleware import Gate
from serve_app.gate.settings import GateSettings
from tests.support.serving.server import exchange, rest_of, running

KEY = "correct horse"
KEYS = {"ward3": hashlib.sha256(KEY.encode()).hexdigest()}
FORM = b"POST /v1/reports HTTP/1.1\r\nHost: localhost\r\n"
Address = tuple[str, int]


def application() -> FastAPI:
    """Return an application that tells what reached it."""
    app = FastAPI()

    @app.post("/v1/reports")
    async def reports(request: Request) -> dict[str, Any]:
        body = await request.body()
        return {"received": len(body), "headers": sorted(request.headers)}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    return app


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Callable[..., Address]]:
    """Return a function that starts a gated application and returns its address."""
    servers = []

    def start(app: Any = None, keys: dict[str, str] | None = None, **limits: Any) -> Address:
        serve = ServeConfig(**{"audit_log": tmp_path / "audit.jsonl", **limits})
        server = running(Gate(app or application(), GateSettings(serve=serve, keys=keys or {})))
        servers.append(server)
        return server.__enter__()

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def ask(
    address: Address, method: str = "POST", path: str = "/v1/reports", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=b"x" * 10 if method == "POST" else None, headers=sent)
    answer = connection.getresponse()
    content = answer.read()
    told = json.loads(content) if content.startswith(b"{") else {"text": content.decode()}
    return answer.status, told, {name.lower(): value for name, value in answer.getheaders()}


def code_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; charset=punycode; boundary=x",
        'multipart/form-data; boundary=x; CHARSET="utf_7"',
        "multipart/form-data; charset*=utf-8''punycode; boundary=x",
        "multipart/form-data; charset*0=puny; charset*1=code; boundary=x",
        "application/json; charset=idna",
        "application/x-www-form-urlencoded; charset=punycode",
    ],
)
def test_another_charset_is_refused_before_the_body(gated, kind):
    address = gated()
    head = FORM + f"Content-Type: {kind}\r\nContent-Length: 500000\r\n\r\n".encode()
    started = time.monotonic()
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(head)  # and not a byte of the body
        told = connection.recv(65536)
        assert time.monotonic() - started < 1
    assert b" 415 " in told
    assert b"bad_charset" in told


@pytest.mark.parametrize("kind", ["utf-8", '"UTF-8"', "utf8"])
def test_utf8_has_several_spellings(gated, kind):
    assert ask(gated(), content_type=f"application/json; charset={kind}")[0] == 200


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("multipart/form-data", 400, "bad_form"),
        ("multipart/form-data; boundary=" + "b" * 71, 400, "bad_form"),
        ("text/plain\r\nContent-Type: application/json", 400, "bad_form"),
    ],
)
def test_a_type_that_two_readers_could_understand_differently(gated, kind, status, code):
    request = FORM + f"Content-Type: {kind}\r\nContent-Length: 5\r\n\r\nhello".encode()
    assert code_of(exchange(gated(), request)) == (status, code)


def test_an_upload_that_stops_ends_with_408_and_costs_nobody_else(gated, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.2)
    monkeypatch.setattr(bodies, "GRACE_S", 1.0)
    address = gated(uploads_per_client=4)
    slow = FORM + b"Content-Length: 1000000\r\n\r\n--x"
    connections = []
    for _ in range(12):
        connections.append(socket.create_connection(address, timeout=20))
        connections[-1].sendall(slow)
    time.sleep(0.5)
    started = time.monotonic()
    assert ask(address, "GET", "/healthz")[0] == 200
    assert ask(address)[0] == 200, "a fast upload of the same client is not hindered"
    assert time.monotonic() - started < 1
    codes = sorted(code_of(rest_of(connection)) for connection in connections)
    assert codes == [(408, "upload_timeout")] * 4 + [(429, "too_many_uploads")] * 8


def test_a_trickle_is_slower_than_the_floor(gated, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.2)
    monkeypatch.setattr(bodies, "GRACE_S", 0.5)
    address = gated(min_upload_kb_per_s=10)
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(FORM + b"Content-Length: 1000000\r\n\r\n" + bytes(10_000))

        def trickle() -> None:
            for _ in range(100):
                try:
                    connection.sendall(b"a")
                except OSError:
                    return
                time.sleep(0.05)

        started = time.monotonic()
        thread = threading.Thread(target=trickle)
        thread.start()
        assert code_of(rest_of(connection)) == (408, "upload_timeout")
        # 10 kB pay for one second; after the answer the connection is drained for two.
        assert 0.9 < time.monotonic() - started < 5
        thread.join()


def test_a_slow_upload_above_the_floor_arrives_whole(gated, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.1)
    address = gated()
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(FORM + b"Connection: close\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(6):
            time.sleep(0.1)
            connection.sendall(bytes(10_000))
        assert b'"received":60000' in rest_of(connection)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_above_the_limit(gated, chunked):
    address = gated(max_upload_mb=1)
    if chunked:
        chunk = b"80000\r\n" + bytes(0x80000) + b"\r\n"
        request = FORM + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3 + b"0\r\n\r\n"
    else:
        request = FORM + b"Content-Length: 1200000\r\n\r\n" + bytes(1_200_000)
    assert code_of(exchange(address, request)) == (413, "too_large")


def test_the_memory_for_all_uploads_is_limited_and_comes_back(gated):
    address = gated(max_upload_mb=2, upload_memory_mb=1)
    big = FORM + b"Content-Length: 1500000\r\n\r\n" + bytes(1_500_000)
    assert code_of(exchange(address, big)) == (503, "busy")
    assert ask(address)[0] == 200


def test_a_heap_of_json_values_is_refused(gated):
    body = b"[" + b"0," * 200_000 + b"0]"
    head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    request = FORM + b"Connection: close\r\n" + head.encode() + body
    assert code_of(exchange(gated(), request)) == (413, "too_many_parts")


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x"]
)
def test_who_has_no_key_is_refused(gated, authorization):
    headers = {} if authorization is None else {"authorization": authorization}
    status, told, answer_headers = ask(gated(keys=KEYS), **headers)
    assert (status, told["error"]["code"]) == (401, "unauthorized")
    assert answer_headers["www-authenticate"] == "Bearer"


def test_a_key_opens_and_stays_in_the_gate(gated):
    address = gated(keys=KEYS)
    status, told, _ = ask(
        address,
        authorization=f"bearer {KEY}",
        x_request_timeout_seconds="-1",
        x_request_disconnect_disabled="?1",
    )
    assert status == 200
    assert told["headers"] == ["accept-encoding", "content-length", "host"]
    assert ask(address, "GET", "/healthz")[0] == 200, "health needs no key"
    assert ask(address, "GET", "/metrics")[0] == 401


def test_each_key_has_a_rate(gated):
    keys = KEYS | {"other": hashlib.sha256(b"other").hexdigest()}
    address = gated(keys=keys, requests_per_s=0.1, request_burst=3)
    statuses = [ask(address, authorization=f"Bearer {KEY}")[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert ask(address, authorization="Bearer other")[0] == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example"}, "bad_host"),
        ({"host": "localhost.evil.example:8000"}, "bad_host"),
        ({"host": "localhost", "origin": "https://evil.example"}, "cross_site"),
        ({"host": "localhost", "origin": "null"}, "cross_site"),
    ],
)
def test_other_names_and_other_sites_are_refused(gated, headers, code):
    status, told, _ = ask(gated(allowed_hosts=("reports.example",)), **headers)
    assert (status, told["error"]["code"]) == (403 if code == "cross_site" else 400, code)


@pytest.mark.parametrize("host", ["Reports.Example", "reports.example:443", "[::1]:8000"])
def test_known_names_are_let_in(gated, host):
    address = gated(allowed_hosts=("reports.example",))
    assert ask(address, host=host)[0] == 200
    assert ask(address, host=host, origin=f"https://{host}")[0] == 200


def test_every_answer_is_hardened(gated):
    address = gated()
    for path in ("/healthz", "/nothing", "/metrics"):
        headers = ask(address, "GET", path, host="localhost")[2]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert not any(name.startswith("access-control") for name in headers)


def test_audit_and_metrics_hold_numbers_only(gated, tmp_path):
    address = gated(keys=KEYS)
    ask(address, path="/v1/reports?name=Doe", authorization=f"Bearer {KEY}", x_note="Doe")
    ask(address, path="/v1/Doe", authorization=f"Bearer {KEY}")
    ask(address, authorization="Bearer Doe")
    audit = tmp_path / "audit.jsonl"
    # A line is written after its answer has gone.
    while len(audit.read_text().splitlines()) < 3:
        time.sleep(0.05)
    first, other, refused = map(json.loads, audit.read_text().splitlines())
    assert (first["route"], first["method"], first["key"]) == ("/v1/reports", "POST", "ward3")
    assert (first["status"], first["code"], first["received"]) == (200, "", 10)
    assert first["sent"] > 0
    assert first["ms"] >= 0
    assert (other["route"], other["status"]) == ("other", 404)
    assert (refused["key"], refused["status"], refused["code"]) == (None, 401, "unauthorized")
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o077 == 0
    metrics = ask(address, "GET", "/metrics", authorization=f"Bearer {KEY}")[1]["text"]
    assert 'lmrrg_requests_total{code="unauthorized",route="/v1/reports",status="401"} 1.0' in (
        metrics
    )
    for private in ("Doe", KEY, KEYS["ward3"]):
        assert private not in audit.read_text() + metrics


class Dying:
    """Proxy whose replica dies for the first requests: it then sends ``messages``."""

    def __init__(self, deaths: int, messages: Sequence[Message] = ()):
        self.deaths = deaths
        self._messages = messages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        if self.deaths:
            self.deaths -= 1
            for message in self._messages:
                await send(message)
            return
        await PlainTextResponse(b"whole" + body)(scope, receive, send)


HALF_AN_ANSWER = (
    {"type": "http.response.start", "status": 200, "headers": []},
    {"type": "http.response.body", "body": b"ha", "more_body": True},
)
ERROR_OF_THE_PROXY = (
    {"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/plain")]},
    {"type": "http.response.body", "body": b"The actor died."},
)


@pytest.mark.parametrize("messages", [(), HALF_AN_ANSWER, ERROR_OF_THE_PROXY])
def test_another_replica_answers_when_one_dies(gated, messages):
    status, told, _ = ask(gated(Dying(2, messages)))
    assert (status, told) == (200, {"text": "wholexxxxxxxxxx"})


def test_without_another_replica_the_error_has_a_code(gated):
    status, told, headers = ask(gated(Dying(10_000), retry_s=0.5))
    assert (status, told["error"]["code"]) == (503, "replica_lost")
    assert int(headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [(404, 503, "not_ready"), (408, 504, "timeout"), (429, 503, "busy"), (503, 503, "busy")],
)
def test_what_the_proxy_says_becomes_json(gated, said, status, code):
    answered, told, _ = ask(gated(PlainTextResponse("plain", said)))
    assert (answered, told["error"]["code"]) == (status, code)


def test_a_health_check_is_answered_although_no_replica_is(gated):
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    address = gated(silent, request_timeout_s=1.5)
    started = time.monotonic()
    status, told, _ = ask(address, "GET", "/healthz")
    assert (status, told["error"]["code"]) == (503, "not_ready")
    assert time.monotonic() - started < 1.4
    assert ask(address)[1]["error"]["code"] == "timeout"


def test_a_proxy_that_answers_when_it_is_stopped_is_too_late(gated):
    async def late(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            for message in ERROR_OF_THE_PROXY:
                await send(message)

    status, told, _ = ask(gated(late), "GET", "/healthz")
    assert (status, told["error"]["code"]) == (503, "not_ready")


def test_a_client_that_goes_away_is_no_lost_replica(gated, tmp_path):
    reached = threading.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            reached.set()

    address = gated(waits)
    with socket.create_connection(address) as connection:
        connection.sendall(FORM + b"Content-Length: 2\r\n\r\nhi")
        assert reached.wait(5)
    deadline = time.monotonic() + 5
    while not (audit := (tmp_path / "audit.jsonl").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert json.loads(audit)["status"] == 499
