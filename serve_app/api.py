"""The routes of the service, independent of the model that writes the reports."""

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
# The page loads nothing from other servers, and no other site can embed it.
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MAX_IMAGES = 8
"""Most images of one study."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (413, 415, 422, 500, 503)
}


class ReportWriter(Protocol):
    """Writes the reports that the routes return: :class:`serve_app.app.ReportService`."""

    def check_ready(self) -> None:
        """Raise :class:`ServiceError` while no report can be written."""

    def queue_slot(self) -> AbstractContextManager[None]:
        """Hold one of the limited slots for studies.

        Raises :class:`ServiceError` ``busy`` when all slots are taken.
        """

    async def write(self, study: UploadedStudy) -> ReportResponse:
        """Write the report of one study."""


def build_api(
    writer: ReportWriter, decoders: DecoderPool, max_upload_bytes: int, image_size: int
) -> FastAPI:
    """Build the ASGI application: reports, health checks and the upload page.

    Args:
        writer: writes the reports.
        decoders: child processes that decode the uploads.
        max_upload_bytes: size of the largest accepted request body.
        image_size: side of the square that the model sees. Only that square is kept while a study
            waits, because a file of some kilobytes may decode to 100 MB of pixels.
    """
    # FastAPI's interactive pages load scripts from other servers; the schema is at /openapi.json.
    api = FastAPI(
        title="LM-RRG chest radiograph reports", version="1", docs_url=None, redoc_url=None
    )
    api.add_middleware(UploadLimit, limit=max_upload_bytes)
    install(api)

    @api.get("/healthz")
    async def healthz() -> Health:
        """Answer while the process is alive."""
        return Health(status="alive")

    @api.get("/readyz", responses={503: _ERRORS[503]})
    async def readyz() -> Health:
        """Answer 200 once the model is loaded and has written a first report."""
        writer.check_ready()
        return Health(status="ready")

    @api.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """Return the upload page."""
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
        # Everything that can be refused cheaply is refused before an image is decoded.
        writer.check_ready()
        if len(files) > MAX_IMAGES:
            raise ServiceError(
                "too_many_images", f"{len(files)} images; one study has at most {MAX_IMAGES}"
            )
        with writer.queue_slot():
            images = [
                await _decode(decoders, image_size, number, file)
                for number, file in enumerate(files, start=1)
            ]
            response = await writer.write(UploadedStudy(images, indication, prior, details))
        # Numbers only: neither texts nor file names may reach the log.
        logger.info(
            "report written: %d images, %.3f s, model %s",
            len(files),
            response.seconds,
            response.model.version,
        )
        return response

    return api


async def _decode(
    decoders: DecoderPool, image_size: int, number: int, file: UploadFile
) -> Radiograph:
    """Decode an upload outside the event loop.

    An error names the image by its ``number``, because a file name may contain a patient's name.
    """
    try:
        return await asyncio.to_thread(decoders.decode, await file.read(), image_size)
    except ImageError as error:
        detail = str(error).removeprefix(f"{error.code}: ")
        raise ImageError(error.code, f"image {number}: {detail}") from error
