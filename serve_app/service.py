"""Define what the routes work with: who writes reports, and what decodes the uploads."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from lmrrg.imaging.decoder_pool import DecoderPool
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ErrorResponse, ReportResponse

MAX_IMAGES = 8
"""Most images of one study."""


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


@dataclass(frozen=True)
class Service:
    """What every route may use."""

    writer: ReportWriter
    decoders: DecoderPool
    """Child processes that decode the uploads."""
    image_size: int
    """Side of the square that the model sees. Only that square is kept while a study waits,
    because a file of some kilobytes may decode to 100 MB of pixels."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's errors, by HTTP status."""
    return {status: {"model": ErrorResponse} for status in statuses}
