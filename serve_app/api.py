"""The routes of the service, around anything that can write a report."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, File, Form, Query, UploadFile
from fastapi.responses import HTMLResponse

from lmrrg.imaging.decoder_pool import DecoderPool
from lmrrg.imaging.radiograph import ImageError, Radiograph
from serve_app.errors import ServiceError, UploadLimit, install
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ErrorResponse, Health, ReportResponse

logger = logging.getLogger("ray.serve")

PAGE = Path(__file__).parent / "page" / "index.html"
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MAX_IMAGES = 8
"""Images of one study."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (413, 415, 422, 500, 503)
}


class Writer(Protocol):
    """What stands behind the routes."""

    def check_ready(self) -> None:
        """Raise :class:`ServiceError` while no report can be written."""

    def place(self) -> AbstractContextManager[None]:
        """Hold one of the places for studies; raise :class:`ServiceError` ``busy`` when all are taken."""

    async def write(self, study: UploadedStudy) -> ReportResponse:
        """Write one report."""


def build_api(writer: Writer, decoders: DecoderPool, max_upload_bytes: int, square: int) -> FastAPI:
    """The ASGI application: reports, health checks and the upload page; uploads are decoded in child processes.

    ``square`` is the side of the model's input. Of an image only that square is held while its study waits: a file of
    some kilobytes may have 100 MB of pixels.
    """
    # The interactive pages of FastAPI load their scripts from other servers; the schema stays at /openapi.json.
    api = FastAPI(
        title="LM-RRG chest radiograph reports", version="1", docs_url=None, redoc_url=None
    )
    api.add_middleware(UploadLimit, limit=max_upload_bytes)
    install(api)

    @api.get("/healthz")
    async def healthz() -> Health:
        """The process is alive."""
        return Health(status="alive")

    @api.get("/readyz", responses={503: _ERRORS[503]})
    async def readyz() -> Health:
        """The model is loaded and has written a first report."""
        writer.check_ready()
        return Health(status="ready")

    @api.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """The upload page."""
        return HTMLResponse(
            PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": PAGE_POLICY}
        )

    @api.post("/v1/reports", responses=_ERRORS)
    async def create_report(
        files: Annotated[
            list[UploadFile], File(description="DICOM, PNG or JPEG images of one study")
        ],
        indication: Annotated[
            str, Form(max_length=2000, description="why the study was made")
        ] = "",
        prior: Annotated[
            str, Form(max_length=2000, description="the report of the patient's previous study")
        ] = "",
        details: Annotated[
            bool, Query(description="add previews and the heat maps of the 29 regions")
        ] = False,
    ) -> ReportResponse:
        """Write the report of one study."""
        writer.check_ready()
        if len(files) > MAX_IMAGES:
            raise ServiceError(
                "too_many_images", f"{len(files)} images; one study has at most {MAX_IMAGES}"
            )
        with writer.place():
            images = [
                await _decode(decoders, square, number, file)
                for number, file in enumerate(files, start=1)
            ]
            response = await writer.write(UploadedStudy(images, indication, prior, details))
        logger.info(
            "report written: %d images, %.3f s, model %s",
            len(files),
            response.seconds,
            response.model.version,
        )
        return response

    return api


async def _decode(decoders: DecoderPool, square: int, number: int, file: UploadFile) -> Radiograph:
    """Decode an upload off the event loop; an error says which image it was by its place, never by its name."""
    try:
        return await asyncio.to_thread(decoders.decode, await file.read(), square)
    except ImageError as error:
        detail = str(error).removeprefix(f"{error.code}: ")
        raise ImageError(error.code, f"image {number}: {detail}") from error
