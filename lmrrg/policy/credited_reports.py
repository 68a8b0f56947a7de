"""A few sampled reports with the credit of each sentence, on disk for the run report.

The file holds text of patients' studies. It stays in the run folder: it must not reach a log or a
tracking service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.files import atomic_writer
from lmrrg.ppo.errors import PPOError


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CreditedSentence(_Record):
    """One sentence and its centred credit, reward."""

    text: str
    credit: float


class CreditedReport(_Record):
    """One sampled report, cut into sentences."""

    sentences: list[CreditedSentence]
    end: float
    """Credit of the report's end, reward."""
    reward: float | None
    """Of the whole report; None: it could not be scored."""
    finished: bool
    """False for a report that was cut at the length limit."""


class CreditedStudy(_Record):
    """Some of the reports that were sampled for one training study."""

    id: str
    abnormal: bool
    reference: str
    reports: list[CreditedReport]


class CreditedReports(_Record):
    """What an iteration credited."""

    notice: str = RESEARCH_USE_ONLY
    iteration: int
    form: Literal["leave_one_out", "prefix"]
    """``ppo.credit``."""
    weight: float
    """``ppo.credit_weight``, with which the credit joins the report's own advantage."""
    studies: list[CreditedStudy]


def write_credited(path: Path, credited: CreditedReports) -> None:
    """Write the reports as JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as out:
        out.write(credited.model_dump_json(indent=1) + "\n")


def read_credited(path: Path) -> CreditedReports | None:
    """Read what :func:`write_credited` wrote; None where there is no such file.

    Raises:
        PPOError: ``credited_reports``, the file is damaged; the message quotes nothing of it.
    """
    if not path.is_file():
        return None
    try:
        return CreditedReports.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PPOError(
            "credited_reports",
            f"{path} is damaged ({error.error_count()} errors): delete it, or run PPO's last "
            "iteration again",
        ) from None
