"""What goes over HTTP: the JSON of a report and of an error."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from lmrrg.studies import View

NOTICE = (
    "For research only. This text was written by a machine from images alone and has not been checked by a "
    "radiologist; it must not be used for the care of a patient."
)


class Schema(BaseModel):
    """Base of all: a field called ``model`` is allowed."""

    model_config = ConfigDict(protected_namespaces=())


class ModelInfo(Schema):
    """Which model wrote the report."""

    version: str = Field(description="hash of the checkpoint's files")
    architecture: str
    decoder: str = Field(description="architecture of the language model")
    provenance: dict[str, str | int | float | bool] = Field(
        description="what the checkpoint says about its training"
    )


class ImageInfo(Schema):
    """One image that the model saw."""

    view: View
    source: str = Field(description="dicom, png or jpeg")
    burned_in: bool = Field(
        False, description="the DICOM header says that text is burned into the pixels"
    )
    preview: str | None = Field(
        None, description="with details=true: the square that the model saw, a PNG data URL"
    )


class RegionHeat(Schema):
    """Where the model looked for one of the 29 regions."""

    name: str
    heat: list[list[list[float]]] = Field(
        description="attention: image, row, column of the square; sums to 1 over all images"
    )


class ReportResponse(Schema):
    """A generated report with everything that is needed to judge it."""

    findings: str
    complete: bool = Field(description="False when the report was cut at the length limit")
    probabilities: dict[str, float] = Field(
        description="the 14 classes in CheXbert's order, each 0 to 1"
    )
    images: list[ImageInfo] = Field(description="the images that the model saw, frontal first")
    images_not_used: int = Field(
        description="images beyond the number of views that the model takes"
    )
    indication_used: bool = Field(
        description="whether the model reads the indication, and one was given"
    )
    prior_used: bool = Field(
        description="whether the model reads the prior report, and one was given"
    )
    regions: list[RegionHeat] | None = Field(None, description="with details=true")
    model: ModelInfo
    generated_at: datetime = Field(description="UTC")
    seconds: float = Field(description="time for encoding and generation")
    notice: str = NOTICE


class ErrorDetail(Schema):
    """A stable code for programs, a sentence for people."""

    code: str
    message: str


class ErrorResponse(Schema):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class Health(Schema):
    """Answer of the health checks."""

    status: str
