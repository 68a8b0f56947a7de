"""Read what a DICOM header says of the patient: who, how old, which part of the body."""

from __future__ import annotations

import hashlib
import re
from datetime import date

from pydicom.dataset import Dataset

from lmrrg.imaging.dicom import elements

ADULT_AGE = 18
"""Years from which on a patient counts as an adult."""

_YEARS_OF = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
# Defined terms of Body Part Examined (PS3.16 annex L), and words that stand for them.
_CHEST_WORDS = """
CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE HEART LUNG LUNGS MEDIASTINUM NECKCHEST NECKCHESTABDOMEN
NECKCHESTABDPELV RIB RIBS STERNUM THORAX THORACIC TRUNK WHOLEBODY
"""
_OTHER_WORDS = """
ABDOMEN ABDOMENPELVIS ABD ANKLE ARM BLADDER BRAIN BREAST CALCANEUS CALF CERVICAL COCCYX COLON CSPINE
ELBOW EXTREMITY EYE FACE FEMUR FINGER FOOT FOREARM HAND HEAD HEADNECK HIP HUMERUS INTESTINE JAW
KIDNEY KNEE KUB LEG LIVER LSPINE LUMBAR MANDIBLE MAXILLA NECK NOSE ORBIT PATELLA PELVIS RADIUS
SACRUM SCAPULA SHOULDER SINUS SKULL SPINE SSPINE STOMACH THIGH THUMB TIBIA TOE TOOTH TEETH TSPINE
ULNA UTERUS WRIST ZYGOMA
"""
_CHEST = frozenset(_CHEST_WORDS.split())
_OTHER_PARTS = frozenset(_OTHER_WORDS.split())


def digest(identifier: str) -> str:
    """Return what tells one identifier from another; "" for an empty one."""
    return hashlib.blake2b(identifier.encode(), digest_size=16).hexdigest() if identifier else ""


def shows_another_part(dataset: Dataset) -> bool:
    """Return whether the header names a part of the body that is not the chest.

    Body Part Examined (0018,0015) comes first, then the meanings of Anatomic Region Sequence
    (0008,2218). Unknown words say nothing, and a film of the chest and more is one of the chest.

    >>> header = Dataset()
    >>> header.BodyPartExamined = "L HAND"
    >>> shows_another_part(header)
    True
    """
    stated = elements.texts(dataset, "BodyPartExamined")
    for item in elements.items(dataset, "AnatomicRegionSequence"):
        if not stated:
            stated = elements.texts(item, "CodeMeaning")
    words = set(re.findall("[A-Z]+", " ".join(stated)))
    return bool(words & _OTHER_PARTS) and not words & _CHEST


def is_child(dataset: Dataset) -> bool:
    """Return whether the patient is younger than :data:`ADULT_AGE`; False where nobody says so.

    Patient's Age (0010,1010) comes first, then the time from Patient's Birth Date (0010,0030) to
    Study Date (0008,0020).

    >>> header = Dataset()
    >>> header.PatientAge = "002M"
    >>> is_child(header)
    True
    """
    stated = re.fullmatch(r"(\d{1,3})([DWMY])", elements.text(dataset, "PatientAge"))
    if stated:
        return int(stated[1]) * _YEARS_OF[stated[2]] < ADULT_AGE
    born = _date(elements.text(dataset, "PatientBirthDate"))
    made = _date(elements.text(dataset, "StudyDate"))
    if born is None or made is None or made < born:
        return False
    return (made - born).days / 365.25 < ADULT_AGE


def _date(text: str) -> date | None:
    """Return a date of the form 20260131, or 2026.01.31 as old files have it; None for others."""
    found = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", text)
    try:
        return date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None
