"""The phantom data set, version 1: drawn chest films with known findings, as DICOM files.

Every study depends only on the seed and its own number, so the same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

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
from lmrrg.studies import Section, Split, Study, StudyError, StudyImage, View

VERSION = 1
"""Part of every seed and of a run's settings hash: raise it when films or wording change."""
_WHITE = 4095
"""The largest value of 12 bits."""
_RETURN_PROBABILITY = 0.11
"""Of a study being another one of the patient before; about one patient in eight has two."""
_INDICATIONS = (
    "Shortness of breath.",
    "Chest pain.",
    "Cough.",
    "Fever.",
    "Follow-up.",
    "Preoperative evaluation.",
    "",
)


class _Plan(NamedTuple):
    """The numbers of a study and its patient, and the split."""

    number: int
    patient: int
    split: Split


def import_phantoms(
    folder: Path,
    counts: PhantomConfig,
    *,
    seed: int,
    section: Section = "findings",
    progress: bool = True,
) -> Import:
    """Write ``folder/<id>.dcm`` for every study, and return the studies of all splits.

    Args:
        folder: made when missing.
        counts: studies per split, and the rows and columns of each file (at least 64).
        seed: the same seed gives the same bytes.
        section: labels follow the text of this section.
        progress: whether to show a progress bar.

    Raises:
        StudyError: ``phantom_size``, for an image too small to read back.
    """
    if counts.image_size < MIN_SIDE:
        message = f"a phantom needs at least {MIN_SIDE} pixels, not {counts.image_size}"
        raise StudyError("phantom_size", message)
    folder.mkdir(parents=True, exist_ok=True)
    plans = progress_bar(
        list(_plans(counts, seed)), desc="phantoms", unit="study", disable=not progress
    )
    studies = [_make_study(folder, plan, counts.image_size, seed, section) for plan in plans]
    source = Source("phantom", studies, notes={"phantom version": str(VERSION)})
    return complete_source(source, section=section, seed=seed)


def _plans(counts: PhantomConfig, seed: int) -> Iterator[_Plan]:
    """Yield the plan of every study; a patient's studies are all in one split."""
    rng = np.random.default_rng([VERSION, seed])
    number = 0
    patient = 0
    splits: tuple[tuple[Split, int], ...] = (
        ("train", counts.train),
        ("val", counts.val),
        ("test", counts.test),
    )
    for split, count in splits:
        for index in range(count):
            # The first study of a split is of a new patient, and takes no number from the stream.
            if index == 0 or rng.random() >= _RETURN_PROBABILITY:
                patient += 1
            yield _Plan(number, patient, split)
            number += 1


def _make_study(folder: Path, plan: _Plan, size: int, seed: int, section: Section) -> Study:
    # One stream for each part of a study, so that a change of one part leaves the others alone.
    number_seed = [VERSION, seed, plan.number]
    truth = np.random.default_rng([*number_seed, 0])
    film = np.random.default_rng([*number_seed, 1])
    wording = np.random.default_rng([*number_seed, 2])
    acquisition = np.random.default_rng([*number_seed, 3])
    body = np.random.default_rng([VERSION, seed, plan.patient])
    pixels, findings = draw_phantom(film, sample_findings(truth), size, patient=body)
    report = write_report(wording, findings)
    name = f"phantom-{plan.number:05d}"
    path = folder / f"{name}.dcm"
    view: View = "AP" if acquisition.random() < 0.2 else "PA"
    entropy = f"{VERSION}/{seed}/{plan.number}"
    write_dicom(path, pixels, acquisition, view=view, patient=plan.patient, entropy=entropy)
    return Study(
        id=name,
        patient=f"phantom-patient-{plan.patient:05d}",
        images=(StudyImage(path, view),),
        findings=text_of(report.findings),
        impression=text_of(report.impression),
        indication=str(wording.choice(_INDICATIONS)),
        labels=labels_of(report.sentences(section)),
        split=plan.split,
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
    """Write brightness as a computed radiograph of 12 bits stored in 16.

    One in four is MONOCHROME1, as older plates are.

    Args:
        path: the file.
        pixels: brightness [S, S] in [0, 1].
        rng: draws the range of the stored values, and whether they are inverted.
        view: the value of View Position.
        patient: number of the patient.
        entropy: text that the UIDs are made from: unique for each file, and always the same for it.
        version: the phantom's version, for the name of the model.
    """
    inverted = rng.random() < 0.25
    low = int(rng.integers(0, 300))
    high = int(rng.integers(3300, _WHITE + 1))
    values = np.rint(low + pixels * (high - low)).astype(np.uint16)
    stored = _WHITE - values if inverted else values
    center = (low + high) / 2
    dataset = Dataset()
    dataset.file_meta = _file_meta(entropy)
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = _uid(entropy, "study")
    dataset.SeriesInstanceUID = _uid(entropy, "series")
    dataset.Modality = "CR"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view
    dataset.Manufacturer = "LM-RRG"
    dataset.ManufacturerModelName = f"chest phantom v{version}"
    dataset.PatientID = dataset.PatientName = f"phantom-{patient:05d}"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    # The window covers the stored values exactly.
    dataset.WindowCenter = str(_WHITE - center if inverted else center)
    dataset.WindowWidth = str(high - low + 1)
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def _file_meta(entropy: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(entropy, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _uid(entropy: str, role: str) -> UID:
    """Return a UID of the 2.25 form (a number without a registered root).

    It is always the same for the same study and role; 15 bytes stay below the 39 digits allowed.
    """
    digest = hashlib.sha256(f"{entropy}/{role}".encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")
