"""A draft report as DICOM Structured Reports, in the study of its films.

There are two objects with one content: a Basic Text SR (PS3.16 TID 2000), which every archive shows
as text, and a measurement report (TID 1500), whose probabilities viewers such as OHIF list. Both
are PARTIAL, UNVERIFIED and PRELIMINARY. Their UIDs depend on the study, its films and the model
alone: a draft that is made again is the same object, so an archive that gets it twice has it once.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Literal

from highdicom import sr
from highdicom.sr import CodedConcept, RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom
from pydicom.uid import UID, BasicTextSRStorage

from lmrrg.documents import codes
from lmrrg.documents.draft import INCOMPLETE, MODEL_NAME, DocumentError, DraftReport
from lmrrg.documents.source import SourceStudy

SRKind = Literal["text", "tid1500"]
_NUMBERS: dict[SRKind, int] = {"text": 1, "tid1500": 2}
"""Instance Number (0020,0013) in the series of the drafts."""
_SERIES_NUMBER = 9001
"""Far above the numbers that a modality gives to its own series."""
_UTF8 = "ISO_IR 192"
_ENGLISH = CodedConcept("en", "RFC5646", "English")
_COPIED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Elements of patient and study that every film passes on (type 2: empty where unknown)."""

_NAMES = ("PatientName", "ReferringPhysicianName")
"""Set at the end: highdicom would quote a name that is written in an unusual way in a warning."""

# Its log names the films.
logging.getLogger("highdicom").setLevel(logging.CRITICAL)


def structured_report(draft: DraftReport, source: SourceStudy, kind: SRKind) -> Dataset:
    """Return the draft as a DICOM object with file meta information.

    Raises:
        DocumentError: ``no_study_uid``, ``no_images`` or ``no_instance_uid``: the films do not say
            what a Structured Report must refer to.
    """
    evidence = _evidence(source)
    build: Callable[[DraftReport, list[Dataset]], Dataset] = (
        _basic_text if kind == "text" else _measurement_report
    )
    # In the local time of this machine, as DICOM has it; the study's own times stay as they are.
    made = draft.generated_at.astimezone()
    films = sorted(item.SOPInstanceUID for item in evidence)
    key = (source.uid, *films, draft.model_version)
    document = sr.ComprehensiveSR(
        evidence=evidence,
        content=build(draft, evidence),
        series_instance_uid=codes.stable_uid("series", *key),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=codes.stable_uid(kind, *key),
        instance_number=_NUMBERS[kind],
        manufacturer=MODEL_NAME,
        manufacturer_model_name=MODEL_NAME,
        software_versions=draft.model_version,
        device_serial_number="0",
        series_description="DRAFT report by machine, research use only",
        is_complete=False,
        is_final=False,
        is_verified=False,
        specific_character_set=_UTF8,
        content_date=made.date(),
        content_time=made.time(),
    )
    for keyword in _NAMES:
        setattr(document, keyword, source.value(keyword))
    document.InstanceCreationDate = document.ContentDate
    document.InstanceCreationTime = document.ContentTime
    if kind == "text":
        # The content is allowed in both; highdicom has no class for the smaller one.
        document.SOPClassUID = document.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    return document


def sr_bytes(document: Dataset) -> bytes:
    """Return a DICOM object as the bytes of a file."""
    out = io.BytesIO()
    document.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _evidence(source: SourceStudy) -> list[Dataset]:
    """Return patient, study and reference of every film, as highdicom takes them."""
    if not source.images:
        raise DocumentError("no_images", "a DICOM document needs the DICOM files of the films")
    evidence = []
    for image in source.images:
        if not (image.sop_class_uid and image.sop_instance_uid and image.series_instance_uid):
            raise DocumentError(
                "no_instance_uid",
                "a film lacks SOP Class, SOP Instance or Series Instance UID, so that a document "
                "cannot refer to it",
            )
        item = Dataset()
        item.SpecificCharacterSet = _UTF8
        item.StudyInstanceUID = source.uid
        item.SOPClassUID = UID(image.sop_class_uid)
        item.SOPInstanceUID = image.sop_instance_uid
        item.SeriesInstanceUID = image.series_instance_uid
        for keyword in _COPIED:
            setattr(item, keyword, "" if keyword in _NAMES else source.value(keyword))
        if issuer := source.value("IssuerOfPatientID"):
            item.IssuerOfPatientID = issuer
        evidence.append(item)
    return evidence


def _basic_text(draft: DraftReport, evidence: list[Dataset]) -> Dataset:
    root = sr.ContainerContentItem(
        name=dicom.LN.DiagnosticImagingReport, is_content_continuous=False, template_id="2000"
    )
    root.ContentSequence = sr.ContentSequence(
        [
            *sr.LanguageOfContentItemAndDescendants(_ENGLISH),
            *_observer(draft),
            *_sections(draft),
            *_images(evidence),
        ],
        is_root=False,
    )
    return root


def _measurement_report(draft: DraftReport, evidence: list[Dataset]) -> Dataset:
    algorithm = sr.AlgorithmIdentification(name=MODEL_NAME, version=draft.model_version)
    measurements = [
        sr.Measurement(
            name=CodedConcept(
                codes.finding_code(label)[:16],
                codes.FINDINGS_SCHEME,
                f"Probability of {label}",
            ),
            value=probability,
            unit=dicom.UCUM.NoUnits,
            algorithm_id=algorithm,
        )
        for label, probability in draft.probabilities.items()
    ]
    films = [
        sr.SourceImageForMeasurementGroup(item.SOPClassUID, item.SOPInstanceUID)
        for item in evidence
    ]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=codes.stable_uid("group", *(item.SOPInstanceUID for item in evidence)),
            identifier="classifier of 14 findings",
        ),
        measurements=measurements,
        source_images=films,
    )
    procedure = codes.procedure_code(len(evidence))
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(draft)),
        procedure_reported=CodedConcept(procedure.value, "LN", procedure.meaning),
        imaging_measurements=[group],
        title=dicom.DCM.ImagingMeasurementReport,
        referenced_images=None,
    )
    root: Dataset = report[0]
    # TID 1500 can be extended: the text stands behind the measurements.
    root.ContentSequence.extend(_sections(draft))
    return root


def _observer(draft: DraftReport) -> sr.ObserverContext:
    """Return that a device, the model, observed (TID 1002, 1004)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=codes.stable_uid("device", draft.model_version),
        name=MODEL_NAME,
        manufacturer_name=MODEL_NAME,
        model_name=draft.model_version,
    )
    return sr.ObserverContext(
        observer_type=dicom.DCM.Device, observer_identifying_attributes=device
    )


def _sections(draft: DraftReport) -> list[sr.ContainerContentItem]:
    """Return findings, impression where there is one, and the notice, as sections (TID 2002)."""
    findings = draft.findings if draft.complete else f"{draft.findings} {INCOMPLETE}"
    sections = [_section(dicom.DCM.Findings, dicom.DCM.Finding, findings or "(none written)")]
    if draft.impression:
        sections.append(_section(dicom.LN.Impressions, dicom.DCM.Impression, draft.impression))
    sections.append(_section(dicom.DCM.Summary, dicom.DCM.Comment, draft.notice))
    return sections


def _section(heading: CodedConcept, name: CodedConcept, text: str) -> sr.ContainerContentItem:
    section = sr.ContainerContentItem(
        name=heading,
        is_content_continuous=False,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    item = sr.TextContentItem(name, _clean(text), RelationshipTypeValues.CONTAINS)
    section.ContentSequence = sr.ContentSequence([item])
    return section


def _images(evidence: list[Dataset]) -> list[sr.ImageContentItem]:
    return [
        sr.ImageContentItem(
            name=dicom.DCM.SourceOfMeasurement,
            referenced_sop_class_uid=item.SOPClassUID,
            referenced_sop_instance_uid=item.SOPInstanceUID,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        for item in evidence
    ]


def _clean(text: str) -> str:
    """Return a text without characters that unlimited text cannot hold (PS3.5 6.2, VR UT)."""
    return "".join(each for each in text if each.isprintable() or each in "\n\r\t")
