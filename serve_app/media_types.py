"""Answer a report as the client accepts it: JSON, FHIR, or a DICOM Structured Report."""

from __future__ import annotations

from typing import Any, Literal

from fastapi.responses import JSONResponse, Response

from lmrrg.documents.draft import read_answer
from lmrrg.documents.fhir import MEDIA_TYPE as FHIR
from lmrrg.documents.fhir import fhir_bundle
from lmrrg.documents.source import SourceStudy
from lmrrg.documents.sr import SRKind, sr_bytes, structured_report
from serve_app.errors import ServiceError
from serve_app.schemas import ReportResponse

JSON = "application/json"
DICOM = "application/dicom"
MediaType = Literal["application/json", "application/fhir+json", "application/dicom"]

_BY_NAME: dict[str, MediaType] = {
    JSON: "application/json",
    "application/*": "application/json",
    "*/*": "application/json",
    FHIR: "application/fhir+json",
    DICOM: "application/dicom",
}

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            FHIR: {"schema": {"type": "object"}},
            DICOM: {"schema": {"type": "string", "format": "binary"}},
        }
    }
}
"""OpenAPI description of the answers beside JSON."""


def chosen_type(accept: str) -> MediaType:
    """Return the first media type that the client accepts and the service has (RFC 9110 12.5.1).

    Weights are not compared, but a type of weight 0 is not taken.

    Raises:
        ServiceError: ``not_acceptable``.

    >>> chosen_type("application/fhir+json; charset=utf-8, application/json")
    'application/fhir+json'
    >>> chosen_type("")
    'application/json'
    """
    if not accept.strip():
        return "application/json"
    for choice in accept.split(","):
        name, *parameters = (part.strip().lower() for part in choice.split(";"))
        refused = any(part.startswith("q=0") and not part.strip("q=0.") for part in parameters)
        if name in _BY_NAME and not refused:
            return _BY_NAME[name]
    raise ServiceError(
        "not_acceptable", f"the answer can be {JSON}, {FHIR} or {DICOM}: send one as Accept"
    )


def rendered(report: ReportResponse, kind: MediaType, sr: SRKind, source: SourceStudy) -> Response:
    """Return the report as a response of the media type.

    Args:
        report: the report.
        kind: what the client accepts.
        sr: which Structured Report, for DICOM.
        source: patient and study, for the documents.

    Raises:
        DocumentError: the films do not say what a DICOM document must refer to.
    """
    if kind == "application/json":
        return JSONResponse(report.model_dump(mode="json"))
    draft = read_answer(report.model_dump())
    if kind == "application/fhir+json":
        return JSONResponse(fhir_bundle(draft, source), media_type=FHIR)
    return Response(sr_bytes(structured_report(draft, source, sr)), media_type=DICOM)
