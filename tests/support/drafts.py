"""A draft report and the headers of its films, for the tests of documents."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.documents.draft import DraftReport
from lmrrg.documents.source import SourceStudy, source_study
from lmrrg.studies import LABELS

FILM = {
    "PatientID": "MRN-4711",
    "PatientName": "Müller^Änne",
    "PatientBirthDate": "19600229",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.826.0.1.3680043.2.1",
    "StudyDate": "20260131",
    "StudyTime": "101112.5",
    "StudyID": "S1",
    "AccessionNumber": "ACC-9",
    "ReferringPhysicianName": "Doc^Ref",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.2.2",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
    "SOPInstanceUID": "1.2.826.0.1.3680043.2.3",
    "Modality": "DX",
}


def draft(**changes: Any) -> DraftReport:
    """Return a draft of one film with findings and impression."""
    whole = DraftReport(
        findings="The heart is enlarged. Small left effusion & <nothing> else.",
        impression="Cardiomegaly.",
        complete=True,
        probabilities={label: round(number / 13, 4) for number, label in enumerate(LABELS)},
        model_version="sha256:0123456789abcdef",
        generated_at=datetime(2026, 2, 1, 9, 30, tzinfo=UTC),
        images=1,
        notice="For research only. " + RESEARCH_USE_ONLY,
    )
    return replace(whole, **changes)


def films(*changes: dict[str, str]) -> SourceStudy:
    """Return a study with one film for each mapping of changes; one film without any."""
    return source_study([FILM | change for change in changes or ({},)])
