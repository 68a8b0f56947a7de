"""The routes with a fake writer: limits, errors, nothing private in answers or logs."""

from __future__ import annotations

import asyncio
import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from lmrrg.config.serve import ServeConfig
from lmrrg.imaging.decoder_pool import DecoderPool
from lmrrg.imaging.radiograph import ImageError, Radiograph
from lmrrg.imaging.reading import read_image, to_square
from lmrrg.studies import LABELS
from lmrrg.vision.files import load_features_from_images
from serve_app.app import ReportService
from serve_app.errors import CODE_OF_STATUS, STATUS, ServiceError
from serve_app.reporter import image_info
from serve_app.routes import PATHS
from serve_app.service import MAX_IMAGES
from serve_app.settings import ServiceSettings
from tests.support.paths import ROOT
from tests.support.serving.application import SQUARE, FakeWriter, gated, picture

LIMIT = 1 << 20


@pytest.fixture
def writer() -> FakeWriter:
    return FakeWriter()


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(memory_mb=100, timeout_s=30) as pool:
        yield pool


@pytest.fixture
def client(writer: FakeWriter, decoders: DecoderPool) -> TestClient:
    return TestClient(
        gated(writer, decoders, max_upload_mb=LIMIT >> 20),
        "http://localhost",
        raise_server_exceptions=False,
    )


def error_of(answer) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) - {"files"} == {"code", "message"}
    assert body["error"]["message"]
    return answer.status_code, body["error"]["code"]


def test_pictures_become_one_study(client, writer):
    files = [
        ("files", ("a.png", picture(), "image/png")),
        ("files", ("b.bin", picture("JPEG"), "text/plain")),
    ]
    answer = client.post(
        "/v1/reports?details=true", files=files, data={"indication": "Cough", "prior": "Clear."}
    )
    assert answer.status_code == 200
    assert answer.json()["findings"] == "2 images."
    assert list(answer.json()["probabilities"]) == list(LABELS)
    assert "research only" in answer.json()["notice"]
    [study] = writer.studies
    assert [image.source for image in study.images] == ["png", "jpeg"], (
        "the content decides, not name or type"
    )
    assert (study.indication, study.prior, study.details) == ("Cough", "Clear.", True)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"%PDF-1.7 not an image", 415, "not_an_image"),
        (b"", 415, "not_an_image"),
        (picture()[:100], 422, "truncated"),
        (picture(size=(80, 20)), 422, "too_small"),
    ],
)
def test_what_is_not_a_radiograph_is_refused_by_code(client, writer, content, status, code):
    files = [("files", ("ok.png", picture())), ("files", ("john-doe.png", content))]
    answer = client.post("/v1/reports", files=files)
    assert error_of(answer) == (status, code)
    assert "image 2" in answer.json()["error"]["message"]
    assert "john" not in answer.text
    assert not writer.studies


def test_the_answer_says_what_was_found_in_an_image():
    pixels = np.eye(80, dtype=np.float32)
    found = ("burned_in_annotation", "looks_inverted")
    told = image_info(Radiograph(pixels, "PA", "dicom", found), None)
    assert told.burned_in
    assert [warning.code for warning in told.warnings] == list(found)
    assert all(warning.message for warning in told.warnings)
    assert told.preview is None
    plain = image_info(Radiograph(pixels, "PA", "dicom"), 64)
    assert (plain.burned_in, plain.warnings) == (False, [])
    assert plain.preview is not None


def test_of_an_image_only_the_square_is_held_and_nothing_else_changes(client, writer, tiny_config):
    """Check that features and previews are bit for bit those of the full image."""
    uploads = [picture(size=(300, 200)), picture("JPEG", (64, 1000)), picture(size=(256, 256))]
    assert (
        client.post(
            "/v1/reports", files=[("files", ("a", upload)) for upload in uploads]
        ).status_code
        == 200
    )
    held, whole = writer.studies[0].images, [read_image(upload) for upload in uploads]
    for image, full in zip(held, whole, strict=True):
        assert image.pixels.shape == (SQUARE, SQUARE)
        np.testing.assert_array_equal(
            to_square(image.pixels, SQUARE), to_square(full.pixels, SQUARE)
        )
        assert (image.view, image.source, image.warnings) == (
            full.view,
            full.source,
            full.warnings,
        )
    assert tiny_config.data.image_size == SQUARE
    few, many = (
        load_features_from_images([images], tiny_config.data).patches for images in (held, whole)
    )
    assert few.equal(many)


def test_a_busy_service_refuses_before_it_decodes(client, writer):
    writer.slots = 0
    answer = client.post("/v1/reports", files=[("files", ("x.png", b"not an image"))])
    assert error_of(answer) == (503, "busy")
    assert answer.headers["retry-after"]
    writer.slots = 1
    assert (
        error_of(client.post("/v1/reports", files=[("files", ("x.png", b"not an image"))]))[0]
        == 415
    )
    assert writer.slots == 1, "a refused study gives its slot back"


def test_a_replica_has_a_fixed_number_of_slots_and_gets_them_back(tiny_config):
    few = tiny_config.model_copy(update={"serve": ServeConfig(max_studies=3)})
    replica = cast(Any, ReportService).func_or_class.__new__(cast(Any, ReportService).func_or_class)
    replica._settings, replica._pending = ServiceSettings.of(few), 0
    with ExitStack() as taken:
        for _ in range(3):
            taken.enter_context(replica.queue_slot())
        with pytest.raises(ServiceError, match="busy"), replica.queue_slot():
            pass
    with pytest.raises(ImageError), replica.queue_slot():
        raise ImageError("truncated")
    assert replica._pending == 0


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    assert error_of(client.post("/v1/reports", files=[("files", ("x.png", bomb))])) == (
        413,
        "too_large",
    )


def test_an_upload_above_the_limit_is_refused_by_its_announced_length(client, writer):
    answer = client.post("/v1/reports", files=[("files", ("x.png", bytes(LIMIT)))])
    assert error_of(answer) == (413, "too_large")
    assert not writer.studies


def test_an_upload_above_the_limit_is_refused_while_it_is_read(writer, decoders):
    """Check that a body without an announced length is not read to its end."""
    read, sent = 0, []

    async def receive() -> dict:
        nonlocal read
        head = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
            if not read
            else b""
        )
        read += 10_000
        return {"type": "http.request", "body": head + bytes(10_000), "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/reports",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(gated(writer, decoders, max_upload_mb=LIMIT >> 20)(scope, receive, send))
    assert sent[0]["status"] == 413
    assert b'"too_large"' in sent[1]["body"]
    assert read <= 2 * LIMIT + 20_000, "a little is thrown away, so that the answer arrives"


def test_a_decoder_that_runs_out_of_memory_or_dies_costs_one_request(client, writer):
    out = io.BytesIO()
    pixels = np.tile(np.arange(6000, dtype=np.uint8), (6000, 1))
    pixels[:100] = np.random.default_rng(0).integers(0, 256, (100, 6000))
    Image.fromarray(pixels).save(out, format="PNG")
    good = [("files", ("a.png", picture()))]
    hungry = [("files", ("b.png", out.getvalue()))]
    assert error_of(client.post("/v1/reports", files=good + hungry)) == (413, "decoder_memory")
    assert client.post("/v1/reports", files=good).status_code == 200
    for child in psutil.Process().children():
        if "lmrrg.imaging.decoder_child" in child.cmdline():
            child.kill()
            child.wait()
    assert client.post("/v1/reports", files=good).status_code == 200
    assert len(writer.studies) == 2


@pytest.mark.parametrize("length", [LIMIT - 1000, LIMIT + 1000])
def test_the_limit_counts_the_whole_body(client, length):
    boundary = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n',
        b"\r\n--x--\r\n",
    )
    body = boundary[0] + bytes(length - sum(map(len, boundary))) + boundary[1]
    answer = client.post(
        "/v1/reports",
        content=iter([body]),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert error_of(answer) == ((415, "not_an_image") if length < LIMIT else (413, "too_large"))


def test_malformed_requests(client):
    assert error_of(client.post("/v1/reports")) == (422, "invalid_request")
    assert error_of(client.post("/v1/reports", data={"files": "text"})) == (422, "invalid_request")
    broken = client.post(
        "/v1/reports", content=b"junk", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert error_of(broken) == (400, "bad_form")
    assert error_of(client.get("/v1/reports")) == (405, "method_not_allowed")
    assert error_of(client.get("/nothing")) == (404, "not_found")
    many = [("files", (f"{i}.png", picture())) for i in range(MAX_IMAGES + 1)]
    assert error_of(client.post("/v1/reports", files=many)) == (422, "too_many_images")


@pytest.mark.parametrize("field", ["indication", "prior"])
def test_an_invalid_request_does_not_echo_what_was_typed(client, field):
    long = "Mr Example " * 1000
    answer = client.post("/v1/reports", files=[("files", ("a.png", picture()))], data={field: long})
    assert error_of(answer) == (422, "invalid_request")
    assert field in answer.text
    assert "Example" not in answer.text


def test_health_and_readiness_differ(client, writer):
    writer.ready = False
    assert client.get("/healthz").json() == {"status": "alive"}
    answer = client.get("/readyz")
    assert error_of(answer) == (503, "not_ready")
    assert answer.headers["retry-after"]
    assert error_of(client.post("/v1/reports", files=[("files", ("a.png", picture()))])) == (
        503,
        "not_ready",
    )
    writer.ready = True
    assert client.get("/readyz").json() == {"status": "ready"}


def test_an_internal_error_says_nothing_about_itself(client):
    answer = client.post(
        "/v1/reports", files=[("files", ("a.png", picture()))], data={"indication": "crash"}
    )
    assert error_of(answer) == (500, "internal")
    assert "secret" not in answer.text


def test_logs_hold_neither_text_nor_names(client, caplog):
    caplog.set_level(logging.DEBUG)
    typed = {"indication": "haemoptysis", "prior": "hydropneumothorax"}
    client.post("/v1/reports", files=[("files", ("jane-doe.png", picture()))], data=typed)
    client.post("/v1/reports", files=[("files", ("jane-doe.png", b"junk"))], data=typed)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("ray")]
    assert any("report written: 1 images" in line for line in ours)
    for private in ("jane", *typed.values(), "1 images."):
        assert private not in "\n".join(ours)


def test_the_documentation_names_every_code():
    table = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for code in {
        *STATUS,
        *CODE_OF_STATUS.values(),
        "too_many_images",
        "invalid_request",
        "internal",
    }:
        assert f"`{code}`" in table, code


def test_the_schema_is_published(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) | {"/metrics", "/openapi.json"} == set(PATHS)
    assert "413" in schema["paths"]["/v1/reports"]["post"]["responses"]
