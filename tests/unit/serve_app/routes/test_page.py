"""The page's files, and the synthetic films that it offers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from lmrrg.imaging.decoder_pool import DecoderPool
from serve_app.routes.page import EXAMPLES, FOLDER
from tests.support.serving.application import FakeWriter, gated, picture


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    decoders = DecoderPool(1, timeout_s=60, memory_mb=2048)
    with TestClient(gated(FakeWriter(), decoders), base_url="http://localhost") as client:
        yield client
    decoders.close()


def test_the_page_needs_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "For research only" in answer.text
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert sorted(named) == ["data:,", "page/main.js", "page/style.css"]
    for path in FOLDER.iterdir():
        assert "://" not in path.read_text(encoding="utf-8"), path.name


def test_the_page_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 100_000


@pytest.mark.parametrize(
    ("name", "kind"), [("main.js", "text/javascript"), ("style.css", "text/css")]
)
def test_the_files_of_the_page_are_served(client, name, kind):
    answer = client.get(f"/page/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].startswith(kind)


@pytest.mark.parametrize("name", ["none.js", "..%2Fapp.py", "%2e%2e/app.py", ""])
def test_no_other_file_is(client, name):
    answer = client.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_every_script_is_imported_by_a_name_that_exists():
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text(encoding="utf-8")):
            assert (FOLDER / name).is_file(), (path.name, name)


def test_the_page_offers_every_example():
    assert f"const EXAMPLES = {EXAMPLES};" in (FOLDER / "main.js").read_text(encoding="utf-8")


def test_examples_differ_and_can_be_read(client):
    films = [client.get(f"/page/examples/{n}.png").content for n in range(1, EXAMPLES + 1)]
    assert len(set(films)) == EXAMPLES
    assert {Image.open(io.BytesIO(film)).mode for film in films} == {"L"}
    assert client.get(f"/page/examples/{EXAMPLES + 1}.png").status_code == 422


def test_a_film_comes_in_16_bits(client):
    stored = np.array([[0, 40000], [65535, 7]], np.uint16).repeat(40, 0).repeat(40, 1)
    png = io.BytesIO()
    Image.fromarray(stored).save(png, "PNG")
    answer = client.post("/v1/films", files={"file": ("film", png.getvalue())})
    assert answer.headers["content-type"] == "application/octet-stream"
    size = [int(answer.headers[f"x-film-{name}"]) for name in ("rows", "columns")]
    shown = np.frombuffer(answer.content, "<u2").reshape(size)
    assert shown.shape == stored.shape
    assert shown[0, 0] <= shown[79, 79] < shown[0, 79] < shown[79, 0]
    assert len({int(value) % 256 for value in shown.flat}) > 1, "more than 8 bits"


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        ({"file": ("x", b"no image")}, 415, "not_an_image"),
        ({}, 422, "invalid_request"),
        ({"file": ("x", picture()), "other": ("y", picture())}, 422, "invalid_request"),
    ],
)
def test_what_is_no_film_is_refused_by_code(client, files, status, code):
    answer = client.post("/v1/films", files=files or {"other": ("x", b"")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_large_film_is_made_smaller(client, monkeypatch):
    monkeypatch.setattr("serve_app.routes.films.LONGEST_SIDE", 40)
    answer = client.post("/v1/films", files={"file": ("film", picture(size=(80, 64)))})
    assert [answer.headers["x-film-rows"], answer.headers["x-film-columns"]] == ["40", "32"]
