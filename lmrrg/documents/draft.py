"""A draft report, read from an answer of the service, and the errors of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from lmrrg.errors import CodedError

MODEL_NAME = "LM-RRG"
INCOMPLETE = "[cut at the length limit]"
"""Stands behind a text that the model did not end."""


class DocumentError(CodedError):
    """A document that cannot be made.

    Codes: ``bad_answer``, ``no_study_uid``, ``no_instance_uid``, ``mixed_study``, ``no_images`` and
    ``unreadable``. A message holds nothing that a header or a report says.
    """


@dataclass(frozen=True)
class DraftReport:
    """What the model wrote about one study; nobody has checked it."""

    findings: str
    impression: str
    """"" where the model was not trained to write one."""
    complete: bool
    """False where the text was cut at the length limit."""
    probabilities: Mapping[str, float]
    """Each 0 to 1, by class of :data:`lmrrg.studies.LABELS`."""
    model_version: str
    generated_at: datetime
    """With its time zone."""
    images: int
    """Images that the model used."""
    notice: str

    def text(self) -> str:
        """Return the whole report as plain text, with the notice at either end."""
        parts = [self.notice, f"FINDINGS\n{self.findings or '(none written)'}"]
        if self.impression:
            parts.append(f"IMPRESSION\n{self.impression}")
        if not self.complete:
            parts.append(INCOMPLETE)
        parts.append(
            f"DRAFT by {MODEL_NAME}, model {self.model_version}, "
            f"{self.generated_at.isoformat(timespec='seconds')}. Not verified by a radiologist."
        )
        return "\n\n".join(parts) + "\n"


class _Model(BaseModel):
    version: str = Field(min_length=1, max_length=64)


class _Answer(BaseModel):
    """The fields of the service's answer that a document needs; it has others."""

    model_config = ConfigDict(extra="ignore")

    findings: str = Field(max_length=100_000)
    impression: str | None = Field(None, max_length=100_000)
    complete: bool
    probabilities: dict[str, float]
    images: list[Any] = Field(min_length=1)
    model: _Model
    generated_at: AwareDatetime
    notice: str = Field(min_length=1, max_length=2000)


def read_answer(answer: Mapping[str, Any]) -> DraftReport:
    """Return the draft report in a JSON answer of ``POST /v1/reports``.

    Raises:
        DocumentError: ``bad_answer``; the message names the fields that do not fit.
    """
    try:
        read = _Answer.model_validate(answer)
    except ValidationError as error:
        fields = sorted({".".join(map(str, problem["loc"])) for problem in error.errors()})
        raise DocumentError(
            "bad_answer", f"no answer of this service: {', '.join(fields)} is missing or wrong"
        ) from None
    if any(not 0 <= value <= 1 for value in read.probabilities.values()):
        raise DocumentError("bad_answer", "a probability is not between 0 and 1")
    return DraftReport(
        findings=read.findings,
        impression=read.impression or "",
        complete=read.complete,
        probabilities=read.probabilities,
        model_version=read.model.version,
        generated_at=read.generated_at,
        images=len(read.images),
        notice=read.notice,
    )
