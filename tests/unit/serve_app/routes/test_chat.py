"""OpenAI's own client against the service."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from lmrrg.imaging.decoder_pool import DecoderPool
from tests.support.serving.application import FakeWriter, gated, picture
from tests.support.serving.server import running


@pytest.fixture(scope="module")
def writer() -> FakeWriter:
    return FakeWriter()


@pytest.fixture(scope="module")
def client(writer: FakeWriter) -> Iterator[openai.OpenAI]:
    with DecoderPool(memory_mb=100, timeout_s=60) as pool, running(gated(writer, pool)) as address:
        base = f"http://{address[0]}:{address[1]}/v1"
        yield openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60)


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def ask(client: openai.OpenAI, *urls: str, text: str = "Cough", **options: Any) -> Any:
    parts: Any = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    messages: Any = [
        {"role": "system", "content": "You are a radiologist."},
        {"role": "user", "content": [{"type": "text", "text": text}, *parts]},
    ]
    return client.chat.completions.create(messages=messages, **{"model": "lmrrg"} | options)


def test_a_completion_is_the_report(client, writer):
    answer = ask(client, data_url(picture()), data_url(picture("JPEG"), "application/dicom"))
    assert answer.choices[0].message.content == "2 images."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "lmrrg@sha256:0"
    assert "research only" in answer.notice
    assert len(answer.probabilities) == 14
    study = writer.studies[-1]
    assert (study.indication, [image.source for image in study.images]) == (
        "Cough",
        ["png", "jpeg"],
    )


def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == ["lmrrg"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/film.png",
        "https://example.org/film.png",
        "file:///etc/passwd",
        "data:image/png,plain",
        "data:image/png;base64,%%%",
        "//example.org/a",
        " data:image/png;base64,AAAA",
        "",
    ],
)
def test_no_other_url_is_followed(client, writer, url):
    before = len(writer.studies)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, url)
    assert refused.value.code == "bad_image_url"
    assert len(writer.studies) == before


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"stream": True}, 400, "no_streaming"),
        ({"temperature": 0.7}, 400, "greedy_only"),
        ({"model": "gpt"}, 404, "unknown_model"),
        ({"n": 2}, 422, "invalid_request"),
        ({"stop": "."}, 422, "invalid_request"),
        ({"text": "a" * 2001}, 400, "bad_request"),
    ],
)
def test_what_would_be_left_out_is_refused(client, options, status, code):
    with pytest.raises(openai.APIStatusError) as refused:
        ask(client, data_url(picture()), **options)
    assert (refused.value.status_code, refused.value.code) == (status, code)


def test_images_are_checked_as_uploads_are(client):
    for urls, status, code in (
        ([data_url(b"%PDF")], 415, "not_an_image"),
        ([], 422, "no_images"),
        ([data_url(picture())] * 9, 422, "too_many_images"),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            ask(client, *urls)
        assert (refused.value.status_code, refused.value.code) == (status, code)
