"""The phantom data set, version 1: drawn chest films with known findings, as DICOM files and a manifest of studies.

Every study depends only on the seed and its own number, so the same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from lmrrg.config.data import PhantomConfig
from lmrrg.data.importing import Import, complete_source
from lmrrg.data.phantom.drawn.anatomy import Map
from lmrrg.data.phantom.drawn.findings import Finding, draw_phantom, sample_findings
from lmrrg.data.phantom.drawn.reports import labels_of, text_of, write_report
from lmrrg.data.source import Source
from lmrrg.imaging.radiograph import MIN_SIDE
from lmrrg.progress import progress_bar
from lmrrg.studies import Section, Split, Study, StudyError, StudyImage

VERSION = 1
"""Part of every seed and of the settings hash of a run: raise it when the films or the wording change."""
_WHITE = 4095
_INDICATIONS = (
    "Shortness of breath.",
    "Chest pain.",
    "Cough.",
    "Fever.",
    "Follow-up.",
    "Preoperative evaluation.",
    "",
)


def import_phantoms(
    folder: Path,
    counts: PhantomConfig,
    *,
    seed: int,
    section: Section = "findings",
    progress: bool = True,
) -> Import:
    """Write ``folder/<id>.dcm`` for every study; the studies of all splits come back with an audit.

    Args:
        folder: made when missing.
        counts: studies per split, and the rows and columns of each file (at least 64).
        section: labels follow the text of this section.

    Raises:
        StudyError: ``phantom_size``, for an image too small to read back.
    """
    if counts.image_size < MIN_SIDE:
        raise StudyError(
            "phantom_size", f"a phantom needs at least {MIN_SIDE} pixels, not {counts.image_size}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    plan = progress_bar(
        list(_plan(counts, seed)), desc="phantoms", unit="study", disable=not progress
    )
    studies = [
        _make_study(
            folder, number, patient, split, size=counts.image_size, seed=seed, section=section
        )
        for number, patient, split in plan
    ]
    source = Source("phantom", studies, notes={"phantom version": str(VERSION)})
    return complete_source(source, section=section, seed=seed)


def _plan(counts: PhantomConfig, seed: int) -> Iterator[tuple[int, int, Split]]:
    """(study number, patient number, split) of every study: one patient in eight comes twice, within one split."""
    rng = np.random.default_rng([VERSION, seed])
    number = patient = 0
    splits: tuple[tuple[Split, int], ...] = (
        ("train", counts.train),
        ("val", counts.val),
        ("test", counts.test),
    )
    for split, count in splits:
        for index in range(count):
            if index == 0 or rng.random() >= 0.11:
                patient += 1
            yield number, patient, split
            number += 1


def _make_study(
    folder: Path, number: int, patient: int, split: Split, *, size: int, seed: int, section: Section
) -> Study:
    truth, film, wording, acquisition = (
        np.random.default_rng([VERSION, seed, number, part]) for part in range(4)
    )
    body = np.random.default_rng([VERSION, seed, patient])
    pixels, findings = draw_phantom(film, sample_findings(truth), size, patient=body)
    report = write_report(wording, findings)
    sentences = {"findings": report.findings, "impression": report.impression}
    shown = sentences.get(section, report.findings + report.impression)
    path = folder / f"phantom-{number:05d}.dcm"
    view = "AP" if acquisition.random() < 0.2 else "PA"
    write_dicom(
        path, pixels, acquisition, view=view, patient=patient, entropy=f"{VERSION}/{seed}/{number}"
    )
    return Study(
        id=f"phantom-{number:05d}",
        patient=f"phantom-patient-{patient:05d}",
        images=(StudyImage(path, view),),  # type: ignore[arg-type]
        findings=text_of(report.findings),
        impression=text_of(report.impression),
        indication=str(wording.choice(_INDICATIONS)),
        labels=labels_of(shown),
        split=split,
        source=f"phantom-v{VERSION}",
        truth={"findings": [_truth(finding) for finding in findings]},
    )


def _truth(finding: Finding) -> dict[str, object]:
    facts = asdict(finding)
    facts["type"] = facts.pop("kind")
    return {key: value for key, value in facts.items() if value != ""}


def write_dicom(
    path: Path,
    pixels: Map,
    rng: np.random.Generator,
    *,
    view: str,
    patient: int,
    entropy: str,
    version: int = VERSION,
) -> None:
    """Write brightness [S, S] in [0, 1] as a computed radiograph of 12 bits stored in 16.

    One in four is MONOCHROME1, as older plates are.
    """
    inverted = rng.random() < 0.25
    low, high = int(rng.integers(0, 300)), int(rng.integers(3300, _WHITE + 1))
    values = np.rint(low + pixels * (high - low)).astype(np.uint16)
    stored = _WHITE - values if inverted else values
    center, width = (low + high) / 2, high - low + 1
    dataset = Dataset()
    dataset.file_meta = _file_meta(entropy)
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        _uid(entropy, "study"),
        _uid(entropy, "series"),
    )
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", view
    dataset.Manufacturer, dataset.ManufacturerModelName = "LM-RRG", f"chest phantom v{version}"
    dataset.PatientID = dataset.PatientName = f"phantom-{patient:05d}"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (
        1,
        16,
        12,
        11,
    )
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.WindowCenter, dataset.WindowWidth = (
        str(_WHITE - center if inverted else center),
        str(width),
    )
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def _file_meta(entropy: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(entropy, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _uid(entropy: str, role: str) -> UID:
    """A UID of the 2.25 form, always the same for the same study."""
    digest = hashlib.sha256(f"{entropy}/{role}".encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")
