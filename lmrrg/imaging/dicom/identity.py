"""Read who and what a DICOM file is: patient, study, series and instance, as plain texts."""

from __future__ import annotations

import re
from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from lmrrg.imaging.dicom import elements
from lmrrg.imaging.dicom.header import is_dicom, parse
from lmrrg.imaging.radiograph import DEFAULT_LIMITS, ImageError, Limits

_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")


def _is_uid(value: str) -> bool:
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _is_date(value: str) -> bool:
    return len(value) == 8 and _converts(DA, value)


def _is_time(value: str) -> bool:
    return value[:1].isdigit() and _converts(TM, value)


def _converts(kind: Callable[[str], object], value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _is_name(value: str) -> bool:
    """Return whether a person name has at most three groups of five parts (PS3.5 6.2)."""
    groups = value.split("=")
    fits = all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    return fits and len(groups) <= 3 and value.isprintable()


def _is_plain(longest: int) -> Callable[[str], bool]:
    return lambda value: len(value) <= longest and value.isprintable()


_IS_VALID: dict[str, Callable[[str], bool]] = {
    "PatientID": _is_plain(64),
    "IssuerOfPatientID": _is_plain(64),
    "PatientName": _is_name,
    "PatientBirthDate": _is_date,
    "PatientSex": lambda value: value in ("M", "F", "O"),
    "StudyInstanceUID": _is_uid,
    "StudyDate": _is_date,
    "StudyTime": _is_time,
    "StudyID": _is_plain(16),
    "AccessionNumber": _is_plain(16),
    "ReferringPhysicianName": _is_name,
    "SeriesInstanceUID": _is_uid,
    "SOPClassUID": _is_uid,
    "SOPInstanceUID": _is_uid,
    "Modality": _is_plain(16),
}
"""Keyword of each element that is read, and which values of it are believed (PS3.5 6.2)."""


def identity(dataset: Dataset) -> dict[str, str]:
    """Return the elements that identify a file, by keyword; what is absent or invalid is left out.

    The values identify a patient. They go into documents about this patient, and nowhere else.

    >>> header = Dataset()
    >>> header.PatientID = "MRN-1 "
    >>> header.StudyInstanceUID = "1.2.3"
    >>> header.StudyDate = ""
    >>> identity(header)
    {'PatientID': 'MRN-1', 'StudyInstanceUID': '1.2.3'}
    """
    found = {}
    for keyword, is_valid in _IS_VALID.items():
        value = _text(dataset, keyword)
        if value and is_valid(value):
            found[keyword] = value
    return found


def file_identity(data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, str]:
    """Return :func:`identity` of a file's bytes; empty for what is no DICOM file.

    Raises:
        ImageError: ``unreadable``, or ``too_large`` for a deflated file beyond the limits.
    """
    if not is_dicom(data):
        return {}
    try:
        return identity(parse(data, limits))
    except ImageError:
        raise
    except elements.DAMAGE:
        # `from None`: pydicom's messages quote header values.
        raise ImageError("unreadable") from None


def checked_identity(stated: object) -> dict[str, str]:
    """Return what another process read, if :func:`identity` could have returned it.

    Raises:
        ValueError: it could not.
    """
    if not isinstance(stated, dict):
        raise ValueError("no identity")
    for keyword, value in stated.items():
        is_valid = _IS_VALID.get(keyword)
        if is_valid is None or not isinstance(value, str) or not is_valid(value):
            raise ValueError("no identity")
    return dict(stated)


def _text(dataset: Dataset, keyword: str) -> str:
    """Return an element as text, without the blanks around it; "" where it cannot be read."""
    try:
        value = dataset.get(keyword)
    except elements.DAMAGE:
        return ""
    return "" if value is None else str(value).strip(" \0")
