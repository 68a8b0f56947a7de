"""``POST /v1/reports``: films of one study to its report."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Form, Header, Query, Request, Response, UploadFile
from pydantic import ConfigDict, Field

from lmrrg.documents.source import SourceStudy, source_study
from lmrrg.documents.sr import SRKind
from serve_app.forms import FormRoute
from serve_app.idempotency import AnswerMemory, check_key, fingerprint
from serve_app.media_types import RESPONSES, chosen_type, rendered
from serve_app.reporter import UploadedStudy
from serve_app.schemas import Latencies, ReportResponse, Schema
from serve_app.service import Service, errors
from serve_app.uploads import check_count, decode_images

logger = logging.getLogger("ray.serve")


class ReportForm(Schema):
    """The form: the images, and what is known of the patient."""

    model_config = ConfigDict(extra="forbid")

    files: list[UploadFile] = Field(
        min_length=1, description="DICOM, PNG or JPEG images of one study"
    )
    indication: str = Field("", max_length=2000, description="why the study was made")
    prior: str = Field(
        "", max_length=2000, description="the report of the patient's previous study"
    )


class ReportOptions(Schema):
    """The query: what the answer shall hold."""

    model_config = ConfigDict(extra="forbid")

    details: bool = Field(False, description="add previews and the heat maps of the 29 regions")
    sr: SRKind = Field(
        "text", description="with Accept: application/dicom: a Basic Text SR, or one of TID 1500"
    )


def reports(service: Service) -> APIRouter:
    """Return the route that writes reports."""
    router = APIRouter(route_class=FormRoute)
    memory: AnswerMemory[ReportResponse] = AnswerMemory()

    @router.post(
        "/v1/reports",
        response_model=ReportResponse,
        responses=RESPONSES | errors(406, 413, 415, 422, 500, 503),
    )
    async def create_report(
        request: Request,
        form: Annotated[ReportForm, Form(media_type="multipart/form-data")],
        options: Annotated[ReportOptions, Query()],
        idempotency_key: Annotated[
            str, Header(description="the same key and request give the same answer again")
        ] = "",
    ) -> Response:
        """Write the report of one study."""
        # Everything that can be refused cheaply is refused before an image is decoded.
        kind = chosen_type(request.headers.get("accept", ""))
        check_key(idempotency_key)
        service.writer.check_ready()
        check_count(len(form.files))
        files = [await file.read() for file in form.files]

        async def write() -> ReportResponse:
            return await write_report(service, files, form, options)

        report = await memory.once(
            _owned_key(request, idempotency_key), _fingerprint(files, form, options), write
        )
        source = await _source(service, files) if kind != "application/json" else SourceStudy({})
        return rendered(report, kind, options.sr, source)

    return router


async def write_report(
    service: Service, files: Sequence[bytes], form: ReportForm, options: ReportOptions
) -> ReportResponse:
    """Decode the images of a study and write its report."""
    started = time.perf_counter()
    with service.writer.queue_slot():
        images = await decode_images(service, files)
        decoded = time.perf_counter()
        study = UploadedStudy(images, form.indication, form.prior, options.details)
        response = await service.writer.write(study)
    ended = time.perf_counter()
    # Numbers only: neither texts nor file names may reach the log.
    logger.info(
        "report written: %d images, %.3f s, model %s",
        len(files),
        response.seconds,
        response.model.version,
    )
    latencies = Latencies(
        decoding=round(decoded - started, 4),
        writing=round(ended - decoded, 4),
        total=round(ended - started, 4),
    )
    return response.model_copy(update={"latencies": latencies})


async def _source(service: Service, files: Sequence[bytes]) -> SourceStudy:
    """Return whom the films are of; read by the decoders, as everything in a file is."""
    return source_study(
        [await asyncio.to_thread(service.decoders.identity, data) for data in files]
    )


def _owned_key(request: Request, key: str) -> str:
    """Return the key as a client's own: those of two API keys never meet; "" for none."""
    if not key:
        return ""
    return fingerprint([request.headers.get("authorization", "").encode(), key.encode()])


def _fingerprint(files: Sequence[bytes], form: ReportForm, options: ReportOptions) -> str:
    """Return a hash of everything that the report depends on; not the form it is sent in."""
    texts = [form.indication, form.prior, str(options.details)]
    return fingerprint([*(text.encode() for text in texts), *files])
