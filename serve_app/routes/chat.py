"""``/v1/chat/completions`` and ``/v1/models``: what clients of OpenAI's interface need."""

from __future__ import annotations

import base64
import binascii
import time
import uuid
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from serve_app.errors import ServiceError
from serve_app.reporter import UploadedStudy
from serve_app.schemas import NOTICE, ReportResponse
from serve_app.service import Service, errors
from serve_app.uploads import check_count, decode_images

MODEL = "lmrrg"
"""Name of the model for clients that must name one."""
_LONGEST_TEXT = 2000


class TextPart(BaseModel):
    """Text of a message: the indication."""

    type: Literal["text"]
    text: str


class ImageURL(BaseModel):
    """An image inside the request."""

    url: str = Field(description="data:...;base64,... of a DICOM, PNG or JPEG file")
    detail: str = Field("auto", description="is accepted and changes nothing")


class ImagePart(BaseModel):
    """Image of a message."""

    type: Literal["image_url"]
    image_url: ImageURL


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user"]
    content: str | list[Part]


class ChatRequest(BaseModel):
    """What is read of a request; other parameters, such as ``stop``, are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = MODEL
    messages: list[Message] = Field(min_length=1, max_length=8)
    n: Literal[1] = 1
    stream: bool = False
    temperature: float = Field(0, ge=0, le=2, description="only 0: reports are decoded greedily")
    user: str | None = Field(None, description="is accepted and not kept")


class ReportMessage(BaseModel):
    """The message with the report."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The only answer."""

    index: Literal[0] = 0
    message: ReportMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatResponse(BaseModel):
    """A chat completion, with what the service adds to it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    probabilities: dict[str, float] = Field(description="as in /v1/reports")
    notice: str = NOTICE


class Model(BaseModel):
    """One model of the list."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "local"


class Models(BaseModel):
    """The list of models."""

    object: Literal["list"] = "list"
    data: list[Model]


def chat(service: Service) -> APIRouter:
    """Return the routes for clients of OpenAI's interface."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models() -> Models:
        """Return the only model."""
        return Models(data=[Model(id=MODEL)])

    @router.post(
        "/v1/chat/completions", responses=errors(400, 404, 413, 415, 422, 429, 500, 503, 504)
    )
    async def create_completion(request: ChatRequest) -> ChatResponse:
        """Write the report of the images in the messages; texts are the indication."""
        _check_supported(request)
        service.writer.check_ready()
        parts = [part for message in request.messages for part in _parts(message)]
        urls = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
        check_count(len(urls))
        if not urls:
            raise ServiceError("no_images", "the messages hold no image_url part")
        # Of what the system says nothing reaches the model: it knows one task.
        indication = "\n".join(part.text for part in parts if isinstance(part, TextPart))
        if len(indication) > _LONGEST_TEXT:
            raise ServiceError("bad_request", f"texts of more than {_LONGEST_TEXT} characters")
        files = [_file_in(url) for url in urls]
        with service.writer.queue_slot():
            images = await decode_images(service, files)
            report = await service.writer.write(UploadedStudy(images, indication))
        return _response(report)

    return router


def _check_supported(request: ChatRequest) -> None:
    """Refuse what would silently be left out.

    Raises:
        ServiceError: ``unknown_model``, ``no_streaming`` or ``greedy_only``.
    """
    if request.model != MODEL:
        raise ServiceError("unknown_model", f"the only model is {MODEL}")
    if request.stream:
        raise ServiceError("no_streaming", "reports are sent whole: set stream to false")
    if request.temperature > 0:
        raise ServiceError("greedy_only", "reports are decoded greedily: set temperature to 0")


def _parts(message: Message) -> list[Part]:
    """Return the parts of a message of the user; other roles have none."""
    if message.role != "user":
        return []
    if isinstance(message.content, str):
        return [TextPart(type="text", text=message.content)]
    return message.content


def _file_in(url: str) -> bytes:
    """Return the file inside a ``data:`` URL.

    No other URL is followed: a service that fetches what a client names can be made to fetch from
    the network that it is in.

    Raises:
        ServiceError: ``bad_image_url``.
    """
    head, comma, content = url.partition(",")
    if not (comma and head[:5].lower() == "data:" and head.lower().endswith(";base64")):
        raise ServiceError("bad_image_url", "an image must be a data: URL in base64")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise ServiceError("bad_image_url", "a data: URL holds no valid base64") from None


def _response(report: ReportResponse) -> ChatResponse:
    reason: Literal["stop", "length"] = "stop" if report.complete else "length"
    return ChatResponse(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=f"{MODEL}@{report.model.version}",
        choices=[Choice(message=ReportMessage(content=report.findings), finish_reason=reason)],
        probabilities=report.probabilities,
    )
