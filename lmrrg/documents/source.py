"""Who a draft is about: patient, study and films, as their DICOM headers state them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmrrg.documents.draft import DocumentError
from lmrrg.imaging.dicom.identity import file_identity
from lmrrg.imaging.radiograph import ImageError

_SAME = ("StudyInstanceUID", "PatientID")
"""What all films of a study agree in."""


@dataclass(frozen=True)
class SourceImage:
    """One film, as a document refers to it; "" for what its header does not state."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    modality: str


@dataclass(frozen=True)
class SourceStudy:
    """Patient and study, by DICOM keyword, and the films.

    A film without a DICOM header (PNG, JPEG) is not among ``images``. All of it identifies a
    patient: it goes into documents, never into a log.
    """

    header: Mapping[str, str]
    images: tuple[SourceImage, ...] = ()

    def value(self, keyword: str) -> str:
        """Return an element of patient or study; "" where no film states it."""
        return self.header.get(keyword, "")

    @property
    def uid(self) -> str:
        """Return Study Instance UID (0020,000D).

        Raises:
            DocumentError: ``no_study_uid``.
        """
        stated = self.value("StudyInstanceUID")
        if not stated:
            raise DocumentError(
                "no_study_uid",
                "no film states a Study Instance UID, so a document cannot name its study",
            )
        return stated


def source_study(headers: Sequence[Mapping[str, str]]) -> SourceStudy:
    """Return the study of films whose headers :func:`lmrrg.imaging.dicom.identity.identity` read.

    Args:
        headers: one for each film; empty for one without a DICOM header. What only some films
            state of patient and study is taken from the first that does.

    Raises:
        DocumentError: ``mixed_study``, two films name different studies or patients.
    """
    together: dict[str, str] = {}
    for header in headers:
        for keyword in _SAME:
            stated = header.get(keyword, "")
            if stated and together.get(keyword, stated) != stated:
                raise DocumentError("mixed_study", f"the films differ in {keyword}")
        together = {**header, **together}
    images = [
        SourceImage(
            sop_class_uid=header.get("SOPClassUID", ""),
            sop_instance_uid=header.get("SOPInstanceUID", ""),
            series_instance_uid=header.get("SeriesInstanceUID", ""),
            modality=header.get("Modality", ""),
        )
        for header in headers
        if header
    ]
    return SourceStudy(together, tuple(images))


def read_source(paths: Sequence[Path]) -> SourceStudy:
    """Return the study of DICOM files.

    Raises:
        DocumentError: ``mixed_study``, or ``unreadable`` for a damaged file.
    """
    try:
        return source_study([file_identity(path.read_bytes()) for path in paths])
    except ImageError as error:
        raise DocumentError("unreadable", "a film's DICOM header cannot be read") from error
