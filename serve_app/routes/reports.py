"""``POST /v1/reports``: films of one study to its report."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, UploadFile

from serve_app.forms import FormRoute
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ReportResponse
from serve_app.service import Service, errors
from serve_app.uploads import check_count, decode_images

logger = logging.getLogger("ray.serve")


def reports(service: Service) -> APIRouter:
    """Return the route that writes reports."""
    router = APIRouter(route_class=FormRoute)

    @router.post("/v1/reports", responses=errors(413, 415, 422, 500, 503))
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
        service.writer.check_ready()
        check_count(len(files))
        with service.writer.queue_slot():
            images = await decode_images(service, [await file.read() for file in files])
            response = await service.writer.write(UploadedStudy(images, indication, prior, details))
        # Numbers only: neither texts nor file names may reach the log.
        logger.info(
            "report written: %d images, %.3f s, model %s",
            len(files),
            response.seconds,
            response.model.version,
        )
        return response

    return router
