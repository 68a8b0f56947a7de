"""``POST /v1/reports``: unknown fields, refused files, repeats, FHIR and DICOM; ``/v1/score``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pydicom
import pytest
from fastapi.testclient import TestClient

from lmrrg.documents.fhir import MEDIA_TYPE as FHIR
from lmrrg.imaging.decoder_pool import DecoderPool
from serve_app.routes.reports import reports
from serve_app.routes.scores import score_pair, scores
from serve_app.service import Service
from tests.support.dicom_files import NAME, dicom, ramp
from tests.support.fhir_checks import problems
from tests.support.served import CountingWriter, png


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(memory_mb=200, timeout_s=60) as pool:
        yield pool


@pytest.fixture
def writer() -> CountingWriter:
    return CountingWriter()


@pytest.fixture
def client(writer: CountingWriter, decoders: DecoderPool) -> TestClient:
    from fastapi import FastAPI

    from serve_app.errors import install

    api = FastAPI()
    install(api)
    api.include_router(reports(Service(writer, decoders, 64)))
    api.include_router(scores())
    return TestClient(api, raise_server_exceptions=False)


def post(client: TestClient, *images: bytes, path: str = "/v1/reports", **more: Any) -> Any:
    files = [("files", ("secret.bin", image)) for image in images]
    return client.post(path, files=files, **more)


def film(**elements: Any) -> bytes:
    uids = {
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.4",
        "SOPInstanceUID": "1.2.5",
    }
    return dicom(ramp(), **(uids | elements))


@pytest.mark.parametrize(
    ("path", "data", "named"),
    [
        ("/v1/reports", {"indicaton": "Cough"}, "indicaton"),
        ("/v1/reports?detail=true", {}, "detail"),
        ("/v1/reports?sr=pdf", {}, "sr"),
        ("/v1/reports?details=perhaps", {}, "details"),
    ],
)
def test_an_unknown_field_is_an_error_that_names_it(client, writer, path, data, named) -> None:
    answer = post(client, png(), path=path, data=data)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"
    assert named in answer.json()["error"]["message"]
    assert "Cough" not in answer.text
    assert writer.written == 0


def test_every_refused_file_is_named_by_its_number(client, writer) -> None:
    answer = post(client, png(), b"no image", png()[:100])
    assert answer.status_code == 415
    error = answer.json()["error"]
    assert error["code"] == "not_an_image"
    assert [(file["index"], file["code"]) for file in error["files"]] == [
        (1, "not_an_image"),
        (2, "truncated"),
    ]
    assert all(file["message"] for file in error["files"])
    assert "secret" not in answer.text
    assert writer.written == 0


def test_a_repeat_gets_the_first_answer_and_another_request_is_refused(client, writer) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = post(client, png(), headers=headers)
    again = post(client, png(), headers=headers)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert writer.written == 1
    other = post(client, png(1), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    texts = post(client, png(), headers=headers, data={"indication": "Cough"})
    assert texts.json()["error"]["code"] == "idempotency_key_reused"
    # Another client may have the same key by chance.
    stranger = post(client, png(1), headers=headers | {"Authorization": "Bearer other"})
    assert stranger.status_code == 200
    assert post(client, png(), headers={"Idempotency-Key": "x" * 200}).status_code == 422
    assert writer.written == 2


def test_a_repeat_after_an_error_is_tried_again(client, writer) -> None:
    headers = {"Idempotency-Key": "order-18"}
    writer.fails = True
    assert post(client, png(), headers=headers).status_code == 500
    writer.fails = False
    assert post(client, png(), headers=headers).status_code == 200


def test_the_answer_says_where_the_time_went(client) -> None:
    latencies = post(client, png()).json()["latencies"]
    assert latencies["writing"] >= 0.05
    assert latencies["total"] == pytest.approx(
        latencies["decoding"] + latencies["writing"], abs=0.001
    )


def test_the_answer_can_be_a_fhir_bundle(client) -> None:
    answer = post(client, film(), headers={"Accept": FHIR})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(FHIR)
    bundle = answer.json()
    # The notice of this writer's answers is the service's own.
    assert [found for found in problems(bundle) if "notice" not in found] == []
    assert "1.2.3" in answer.text
    assert NAME.split("^")[0] not in answer.text
    assert post(client, png(), headers={"Accept": FHIR}).status_code == 200


@pytest.mark.parametrize(("query", "name"), [("", "Basic Text"), ("?sr=tid1500", "Comprehensive")])
def test_the_answer_can_be_a_structured_report(client, query, name) -> None:
    answer = post(
        client, film(), path=f"/v1/reports{query}", headers={"Accept": "application/dicom"}
    )
    assert answer.status_code == 200
    document = pydicom.dcmread(io.BytesIO(answer.content))
    assert document.SOPClassUID.name.startswith(name)
    assert (document.StudyInstanceUID, document.PatientID) == ("1.2.3", "MRN-12345")


def test_a_document_that_cannot_be_made_is_a_coded_error(client, writer) -> None:
    answer = post(client, png(), headers={"Accept": "application/dicom"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_images")
    answer = post(client, png(), headers={"Accept": "text/html"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (406, "not_acceptable")
    answer = post(client, png(), headers={"Accept": "application/json;q=0, text/html"})
    assert answer.status_code == 406
    assert post(client, png(), headers={"Accept": "text/html, */*;q=0.8"}).status_code == 200


def test_a_pair_is_scored_and_its_claims_are_told(client) -> None:
    pair = {
        "candidate": "Large left effusion. There is a pneumothorax.",
        "reference": "There is a small left effusion. Mild edema.",
    }
    body = client.post("/v1/score", json=pair).json()
    assert [(claim["finding"], claim["verdict"]) for claim in body["claims"]] == [
        ("edema", "missed"),
        ("effusion", "different"),
        ("pneumothorax", "invented"),
    ]
    assert [each["verdict"] for each in body["candidate"]] == ["different", "invented"]
    same = client.post("/v1/score", json=pair | {"candidate": pair["reference"]}).json()
    assert same["radcliq_v1"] < body["radcliq_v1"]
    assert same["parts"]["radgraph"] == 1
    assert {claim["verdict"] for claim in same["claims"]} == {"matched"}
    assert "Research use only" in body["notice"]
    assert score_pair("", pair["reference"]).radcliq_v1 > body["radcliq_v1"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"candidate": "Clear."}, "invalid_request"),
        ({"candidate": "Clear.", "reference": "Clear.", "refrence": "x"}, "invalid_request"),
        ({"candidate": "Clear.", "reference": "x" * 10_001}, "invalid_request"),
        ({"candidate": "Clear.", "reference": " . "}, "unscorable"),
        ({"candidate": "Clear.", "reference": "Derrame pleural izquierdo."}, "unscorable"),
        ([], "invalid_request"),
    ],
)
def test_what_cannot_be_scored_is_a_coded_error(client, body, code) -> None:
    answer = client.post("/v1/score", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert "izquierdo" not in answer.text
