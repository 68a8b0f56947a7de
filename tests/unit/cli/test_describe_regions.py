"""The command that describes the regions, against a real HTTP server that speaks the protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lmrrg.anatomy import REGIONS
from lmrrg.cli.describe_regions import main
from lmrrg.model.region_queries import load_regions

TEXTS = load_regions()


class Endpoint(BaseHTTPRequestHandler):
    """Answers with the packaged text; the first answer for the carina is too short."""

    requests: list[dict]
    broken = ""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(
            {"path": self.path, "key": self.headers.get("Authorization"), **request}
        )
        region = next(
            r
            for r in sorted(REGIONS, key=len, reverse=True)
            if f"'{r}'" in request["messages"][0]["content"]
        )
        text = TEXTS[region]
        if region == "carina" and len(request["messages"]) == 1:
            text = "Too short."
        content = {"": text, "words": "Never long enough.", "format": None}.get(self.broken, text)
        body = json.dumps(
            {"choices": [{"message": {"role": "assistant", "content": f"  {content}\n"}}]}
        )
        if self.broken == "format":
            body = '{"error": "no"}'
        self.send_response(500 if self.broken == "status" else 200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Endpoint, "requests", [], raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_reviewable_file_comes_out(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    out = tmp_path / "regions.yaml"
    assert main(["--endpoint", endpoint, "--model", "writer", "--out", str(out)]) == 0
    assert load_regions(out) == TEXTS
    assert "writer" in out.read_text().splitlines()[0]
    assert "secret" not in out.read_text()
    assert len(Endpoint.requests) == len(REGIONS) + 1  # the carina's was asked for twice
    assert {r["path"] for r in Endpoint.requests} == {"/v1/chat/completions"}
    assert {r["model"] for r in Endpoint.requests} == {"writer"}
    assert {r["key"] for r in Endpoint.requests} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("broken", "code"), [("status", "endpoint"), ("format", "endpoint"), ("words", "regions_words")]
)
def test_a_failing_endpoint_leaves_no_file(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, broken: str, code: str
):
    monkeypatch.setattr(Endpoint, "broken", broken)
    assert main(["--endpoint", endpoint, "--model", "m", "--out", str(tmp_path / "r.yaml")]) == 2
    assert code in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unreachable_endpoint_is_told_in_one_sentence(tmp_path: Path, capsys):
    assert (
        main(
            [
                "--endpoint",
                "http://127.0.0.1:9/v1",
                "--model",
                "m",
                "--out",
                str(tmp_path / "r.yaml"),
            ]
        )
        == 2
    )
    assert "endpoint" in capsys.readouterr().err


def test_an_impossible_address_is_told_in_one_sentence(tmp_path: Path, capsys):
    assert (
        main(["--endpoint", "http://[::1", "--model", "m", "--out", str(tmp_path / "r.yaml")]) == 2
    )
    assert "endpoint: http://[::1 is no URL" in capsys.readouterr().err


def test_an_impossible_output_is_refused_before_any_request(endpoint: str, tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert (
        main(["--endpoint", endpoint, "--model", "m", "--out", str(tmp_path / "file" / "r.yaml")])
        == 2
    )
    assert "bad_output" in capsys.readouterr().err
    assert not Endpoint.requests


def test_the_folder_of_the_output_is_made(endpoint: str, tmp_path: Path):
    assert (
        main(
            [
                "--endpoint",
                endpoint,
                "--model",
                "m",
                "--out",
                str(tmp_path / "new" / "dir" / "r.yaml"),
            ]
        )
        == 0
    )
    assert load_regions(tmp_path / "new" / "dir" / "r.yaml") == TEXTS
