"""The JSON bodies of the service: reports, errors and health."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lmrrg.studies import Section, View

NOTICE = (
    "For research only. This text was written by a machine from images alone and has not been "
    "checked by a radiologist; it must not be used for the care of a patient."
)


class Schema(BaseModel):
    """Base class of all schemas."""

    # pydantic reserves names that begin with "model_" and would warn about some of the fields.

    model_config = ConfigDict(protected_namespaces=())


class ModelInfo(Schema):
    """The model that wrote a report."""

    version: str = Field(description="hash of the checkpoint's files")
    architecture: str
    decoder: str = Field(description="architecture of the language model")
    provenance: dict[str, str | int | float | bool] = Field(
        description="what the checkpoint records about its training"
    )


class ImageWarning(Schema):
    """Something about an image that whoever reads the report should know."""

    code: str = Field(
        description="a stable code: burned_in_annotation, for_processing, looks_inverted, "
        "polarity_corrected, population, colour_picture, unusual_shape or not_a_chest_film"
    )
    message: str


class ImageInfo(Schema):
    """One image that the model used."""

    view: View
    source: str = Field(description="dicom, png or jpeg")
    burned_in: bool = Field(False, description="the DICOM header declares text in the pixels")
    warnings: list[ImageWarning] = Field(
        default_factory=list, description="what was found in the image; empty for most"
    )
    preview: str | None = Field(
        None, description="with details=true: the input of the model, a PNG data URL"
    )


class RegionHeat(Schema):
    """The attention of the model for one of the 29 regions."""

    name: str
    heat: list[list[list[float]]] = Field(
        description="attention by image, row and column of patches; sums to 1 over all images"
    )


class RegionArea(Schema):
    """Where the model attended to for one region; attention is no proof of place."""

    name: str
    image: int = Field(description="index in `images`")
    box: tuple[float, float, float, float] = Field(
        description="left, top, right and bottom of the patches with at least half of the largest "
        "attention, as fractions of the square that the model sees"
    )


class Uncertainty(Schema):
    """How unsure the language model was of the words of a sentence; it can be sure and wrong."""

    value: float = Field(
        description="0 to 1: 1 less the probability that the model gave to the token of which it "
        "was least sure, among those that it wrote here"
    )
    mean_logprob: float = Field(description="mean over the tokens, nats")
    meaning: str


class SentenceInfo(Schema):
    """One sentence of the report, and what it speaks of."""

    section: Literal["findings", "impression"]
    start: int = Field(description="first character in the section's text")
    end: int = Field(description="behind the last character")
    text: str
    findings: list[str] = Field(description="findings that it asserts or suspects")
    regions: list[RegionArea] = Field(
        description="regions that its words name; empty where they name none"
    )
    uncertainty: Uncertainty | None = Field(
        None, description="null where the tokens cannot be placed in the text"
    )


class Latencies(Schema):
    """Where the time of a request went, seconds."""

    decoding: float = Field(description="reading and checking the images")
    writing: float = Field(description="waiting for the engine, encoding and generation")
    total: float = Field(description="from the end of the upload to the answer")


class ReportResponse(Schema):
    """A generated report, and what is needed to judge it."""

    findings: str = Field(description="empty where the service abstains")
    abstain: bool = Field(
        False, description="no report is written, because an image may be no upright chest film"
    )
    reasons: list[ImageWarning] = Field(
        default_factory=list, description="why the service abstains; empty where it does not"
    )
    impression: str | None = Field(
        None, description="null where the model was not trained to write one"
    )
    section: Section = Field(
        "findings",
        description="what the model was trained to write; of findings+impression it writes one "
        "text, which stands in findings",
    )
    sentences: list[SentenceInfo] = Field(
        default_factory=list, description="the sentences of the text, with their regions"
    )
    complete: bool = Field(description="False when the report was cut at the length limit")
    probabilities: dict[str, float] = Field(
        description="the 14 classes in CheXbert's order, each 0 to 1"
    )
    images: list[ImageInfo] = Field(description="the images that the model used, frontal first")
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
    latencies: Latencies | None = Field(None, description="null where no request was made")
    notice: str = NOTICE


class FileError(Schema):
    """Why one file of an upload is refused."""

    index: int = Field(description="of the file in the upload, from 0")
    code: str
    message: str


class ErrorDetail(Schema):
    """An error: a stable code for programs and a message for people."""

    code: str
    message: str
    files: list[FileError] | None = Field(
        None, description="where files are refused: each of them; absent in other errors"
    )


class ErrorResponse(Schema):
    """The body of every response that is an error."""

    error: ErrorDetail


class Health(Schema):
    """The body of the health checks."""

    status: str
