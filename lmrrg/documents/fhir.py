"""A draft report as a FHIR R4 bundle (hl7.org/fhir/R4).

The bundle is a collection of

- DiagnosticReport, preliminary, with the whole text as its presented form;
- Observations: the text of the findings, that of the impression, a probability for each class;
- Device: the model and its version;
- ImagingStudy and Patient: what the DICOM headers name, so that every reference resolves inside.

All ids depend on the study, its films and the model alone: the same draft has the same ids again.
"""

from __future__ import annotations

import base64
import html
from datetime import UTC
from typing import Any

from lmrrg.documents import codes
from lmrrg.documents.draft import MODEL_NAME, DraftReport
from lmrrg.documents.source import SourceImage, SourceStudy

MEDIA_TYPE = "application/fhir+json"
Resource = dict[str, Any]

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_DICOM_TERMS = "http://dicom.nema.org/resources/ontology/DCM"
_UNITS = "http://unitsofmeasure.org"
_RESEARCH = {
    "system": f"{_TERMINOLOGY}/v3-ActReason",
    "code": "HRESCH",
    "display": "healthcare research",
}
_GENDERS = {"M": "male", "F": "female", "O": "other"}


def fhir_bundle(draft: DraftReport, source: SourceStudy) -> Resource:
    """Return the bundle as JSON values.

    Args:
        draft: the report.
        source: patient and study; without DICOM headers their resources have no identifiers.
    """
    return _BundleBuilder(draft, source).bundle()


class _BundleBuilder:
    """Builds the resources of one draft, which refer to each other by URN."""

    def __init__(self, draft: DraftReport, source: SourceStudy) -> None:
        self._draft = draft
        self._source = source
        self._issued = draft.generated_at.astimezone(UTC).isoformat(timespec="seconds")
        films = sorted(image.sop_instance_uid for image in source.images)
        self._key = [source.value("StudyInstanceUID"), *films, draft.model_version]
        if not source.value("StudyInstanceUID"):
            # Nothing names the study, so time and text tell this draft from others.
            self._key += [draft.generated_at.isoformat(), draft.findings]

    def bundle(self) -> Resource:
        observations = self._observations()
        resources = [
            self._report(observations),
            *observations,
            self._device(),
            self._study(),
            self._patient(),
        ]
        entries = [{"fullUrl": f"urn:uuid:{each['id']}", "resource": each} for each in resources]
        return self._resource("Bundle", "bundle") | {
            "type": "collection",
            "timestamp": self._issued,
            "entry": entries,
        }

    def _resource(self, kind: str, name: str) -> Resource:
        return {"resourceType": kind, "id": self._id(name), "meta": {"tag": [_RESEARCH]}}

    def _id(self, name: str) -> str:
        return str(codes.stable_uuid(name, *self._key))

    def _refer(self, name: str) -> dict[str, str]:
        return {"reference": f"urn:uuid:{self._id(name)}"}

    def _report(self, observations: list[Resource]) -> Resource:
        draft = self._draft
        text = draft.text()
        report = self._resource("DiagnosticReport", "report") | {
            "text": _narrative(text),
            "status": "preliminary",
            "category": [_concept(f"{_TERMINOLOGY}/v2-0074", "RAD", "Radiology")],
            "code": _loinc(codes.procedure_code(draft.images)),
            "subject": self._refer("patient"),
            "issued": self._issued,
            "result": [{"reference": f"urn:uuid:{each['id']}"} for each in observations],
            "imagingStudy": [self._refer("study")],
            "presentedForm": [
                {
                    "contentType": "text/plain; charset=utf-8",
                    "data": base64.b64encode(text.encode()).decode("ascii"),
                    "title": "Draft report, not verified",
                    "creation": self._issued,
                }
            ],
        }
        if draft.impression:
            report["conclusion"] = draft.impression
        return report | self._effective()

    def _effective(self) -> Resource:
        """Return when the films were taken, where a header says so."""
        day = _date(self._source.value("StudyDate"))
        return {"effectiveDateTime": day} if day else {}

    def _observations(self) -> list[Resource]:
        draft = self._draft
        observations = []
        if draft.findings:
            observations.append(self._text_observation(codes.FINDINGS, draft.findings))
        if draft.impression:
            observations.append(self._text_observation(codes.IMPRESSION, draft.impression))
        for label, probability in draft.probabilities.items():
            observations.append(self._probability(label, probability))
        return observations

    def _observation(self, name: str) -> Resource:
        return self._resource("Observation", name) | {
            "status": "preliminary",
            "category": [_concept(f"{_TERMINOLOGY}/observation-category", "imaging", "Imaging")],
            "subject": self._refer("patient"),
            "issued": self._issued,
            "device": self._refer("device"),
            "derivedFrom": [self._refer("study")],
            "note": [{"text": self._draft.notice}],
            **self._effective(),
        }

    def _text_observation(self, code: codes.Code, text: str) -> Resource:
        return self._observation(code.value) | {"code": _loinc(code), "valueString": text}

    def _probability(self, label: str, probability: float) -> Resource:
        coding = [_coding(codes.FINDINGS_SYSTEM, codes.finding_code(label), label)]
        if label in codes.SNOMED_OF:
            known = codes.SNOMED_OF[label]
            coding.append(_coding(codes.SNOMED, known.value, known.meaning))
        return self._observation(label) | {
            "code": {"coding": coding, "text": f"{label}: probability by the classifier"},
            "valueQuantity": {"value": probability, "unit": "1", "system": _UNITS, "code": "1"},
        }

    def _device(self) -> Resource:
        return self._resource("Device", "device") | {
            "status": "active",
            "deviceName": [{"name": MODEL_NAME, "type": "model-name"}],
            "type": {"text": "software that drafts chest radiograph reports"},
            "version": [{"value": self._draft.model_version}],
            "note": [{"text": self._draft.notice}],
        }

    def _study(self) -> Resource:
        source = self._source
        study = self._resource("ImagingStudy", "study") | {
            "status": "available",
            "subject": self._refer("patient"),
            "numberOfInstances": self._draft.images,
        }
        uid = source.value("StudyInstanceUID")
        if uid:
            study["identifier"] = [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]
        if accession := source.value("AccessionNumber"):
            acsn = _concept(f"{_TERMINOLOGY}/v2-0203", "ACSN", "Accession ID")
            study.setdefault("identifier", []).append({"type": acsn, "value": accession})
        if day := _date(source.value("StudyDate")):
            study["started"] = day
        if series := _series(source.images):
            study |= {
                "series": series,
                "numberOfSeries": len(series),
                "numberOfInstances": len(source.images),
            }
        return study

    def _patient(self) -> Resource:
        source = self._source
        patient = self._resource("Patient", "patient")
        if number := source.value("PatientID"):
            identifier: Resource = {"value": number}
            if issuer := source.value("IssuerOfPatientID"):
                identifier["assigner"] = {"display": issuer}
            patient["identifier"] = [identifier]
        if gender := _GENDERS.get(source.value("PatientSex")):
            patient["gender"] = gender
        if born := _date(source.value("PatientBirthDate")):
            patient["birthDate"] = born
        return patient


def _series(images: tuple[SourceImage, ...]) -> list[Resource]:
    """Return the series of the films that name theirs, with their instances."""
    series: dict[str, Resource] = {}
    for image in images:
        if not (image.series_instance_uid and image.sop_instance_uid and image.sop_class_uid):
            continue
        entry = series.setdefault(
            image.series_instance_uid,
            {
                "uid": image.series_instance_uid,
                "modality": {"system": _DICOM_TERMS, "code": image.modality or "DX"},
                "instance": [],
            },
        )
        kind = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{image.sop_class_uid}"}
        entry["instance"].append({"uid": image.sop_instance_uid, "sopClass": kind})
    return [entry | {"numberOfInstances": len(entry["instance"])} for entry in series.values()]


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [_coding(system, code, display)]}


def _loinc(code: codes.Code) -> Resource:
    return _concept(codes.LOINC, code.value, code.meaning)


def _date(value: str) -> str:
    """Return a DICOM date as FHIR writes it; "" for none.

    >>> _date("20260131")
    '2026-01-31'
    """
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if value else ""


def _narrative(text: str) -> dict[str, str]:
    """Return a text as XHTML, without the control characters that XML cannot hold."""
    printable = "".join(each for each in text if each.isprintable() or each == "\n")
    return {
        "status": "generated",
        "div": '<div xmlns="http://www.w3.org/1999/xhtml"><pre>'
        f"{html.escape(printable)}</pre></div>",
    }
