"""The codes of the documents (LOINC, SNOMED CT, our own), and ids that depend on content alone."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
FINDINGS_SYSTEM = "urn:uuid:5c9a4c4e-6a0e-4f56-8a44-0c8f6d1d2f10"
"""Our code system of the 14 classes in FHIR."""
FINDINGS_SCHEME = "99LMRRG"
"""The same in DICOM; 99 marks a private scheme (PS3.16 8.2)."""
_NAMESPACE = UUID("8e1b6b0e-3c1d-4d1c-9a33-54a1f2c7b6a4")


@dataclass(frozen=True)
class Code:
    """A code with its meaning; which system it is of stands beside it."""

    value: str
    meaning: str


ONE_VIEW = Code("36554-4", "XR Chest Single view")
TWO_VIEWS = Code("36643-5", "XR Chest 2 Views")
FINDINGS = Code("18782-3", "Radiology Study observation (narrative)")
IMPRESSION = Code("19005-8", "Radiology Imaging study [Impression] (narrative)")

SNOMED_OF = {
    "Edema": Code("19242006", "Pulmonary edema"),
    "Pneumothorax": Code("36118008", "Pneumothorax"),
    "Pleural Effusion": Code("60046008", "Pleural effusion"),
}
"""SNOMED CT codes, for the classes whose meaning is exactly that of a concept in PS3.16."""


def procedure_code(images: int) -> Code:
    """Return the LOINC code of the examination, by the number of its films.

    >>> procedure_code(1).value, procedure_code(2).value
    ('36554-4', '36643-5')
    """
    return ONE_VIEW if images == 1 else TWO_VIEWS


def finding_code(label: str) -> str:
    """Return our code of one of the 14 classes.

    >>> finding_code("Pleural Effusion")
    'pleural-effusion'
    """
    return label.lower().replace(" ", "-")


def stable_uuid(*parts: str) -> UUID:
    """Return a UUID that depends on the parts alone (version 5, RFC 4122)."""
    # The separator keeps ("ab", "c") and ("a", "bc") apart; no part can contain it.
    return uuid5(_NAMESPACE, "\0".join(parts))


def stable_uid(*parts: str) -> str:
    """Return a DICOM UID that depends on the parts alone, below 2.25 (PS3.5 B.2).

    >>> stable_uid("1.2.3", "text") == stable_uid("1.2.3", "text") != stable_uid("1.2.3", "other")
    True
    """
    return f"2.25.{stable_uuid(*parts).int}"
