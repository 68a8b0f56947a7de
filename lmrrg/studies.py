"""The nouns that everything passes around: a study, its images, its report, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lmrrg.errors import CodedError

# The names are those of the CheXpert label files.
Label = Literal[
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
]

LABELS: tuple[str, ...] = get_args(Label)
"""The 14 classes in CheXbert's order."""

# Label values; a class that the report does not mention is absent from ``Study.labels``.
POSITIVE = 1
NEGATIVE = 0
UNCERTAIN = -1

View = Literal["PA", "AP", "frontal", "lateral", "unknown"]
Split = Literal["train", "val", "test"]
Section = Literal["findings", "impression", "findings+impression"]


def is_abnormal(labels: Mapping[str, int], *, count_uncertain: bool = False) -> bool:
    """Return whether any class other than "No Finding" is labelled positive.

    Args:
        labels: label values by class; an absent class is not mentioned.
        count_uncertain: whether an uncertain class counts as positive.

    >>> is_abnormal({"Edema": NEGATIVE, "No Finding": POSITIVE})
    False
    >>> is_abnormal({"Edema": UNCERTAIN}), is_abnormal({"Edema": UNCERTAIN}, count_uncertain=True)
    (False, True)
    """
    abnormal_values = (POSITIVE, UNCERTAIN) if count_uncertain else (POSITIVE,)
    return any(value in abnormal_values for label, value in labels.items() if label != "No Finding")


class StudyError(CodedError):
    """A study record that cannot be used; the message names the record."""


@dataclass(frozen=True)
class StudyImage:
    """One radiograph of a study: the path of its file, and its view."""

    path: Path
    view: View = "unknown"


@dataclass(frozen=True)
class Study:
    """One imaging study with its reference report.

    Attributes:
        labels: 1 positive, 0 negative or -1 uncertain, by class of :data:`LABELS`. The report does
            not mention an absent class. ``None``: nobody labelled the study.
        prior: id of the same patient's previous study in the manifest, where the source has dates.
        truth: facts about a phantom that no real study has, such as its region masks.
    """

    id: str
    patient: str
    images: tuple[StudyImage, ...]
    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    labels: Mapping[str, int] | None = None
    split: Split | None = None
    source: str = ""
    prior: str | None = None
    truth: Mapping[str, object] = field(default_factory=dict)

    def report(self, section: Section) -> str:
        """Return the reference text of a section; two sections are joined by one space."""
        if section == "findings":
            return self.findings
        if section == "impression":
            return self.impression
        return " ".join(part for part in (self.findings, self.impression) if part)

    @property
    def is_abnormal(self) -> bool:
        """Whether the study's own labels are abnormal: :func:`is_abnormal`."""
        return is_abnormal(self.labels or {})
