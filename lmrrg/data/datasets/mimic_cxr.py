"""MIMIC-CXR and MIMIC-CXR-JPG as PhysioNet publishes them.

One folder holds what the user downloaded::

    mimic-cxr-2.0.0-metadata.csv[.gz]   MIMIC-CXR-JPG: an image per row, with view and shifted date
    mimic-cxr-2.0.0-split.csv[.gz]      MIMIC-CXR-JPG: the official split
    mimic-cxr-2.0.0-chexpert.csv[.gz]   MIMIC-CXR-JPG: 14 labels per study (optional; -negbio.csv
                                        is read where it is missing)
    mimic-cxr-reports.zip               MIMIC-CXR: the reports, here or unpacked into files/
    files/p10/p10000032/s50414267.txt
    files/p10/p10000032/s50414267/<dicom_id>.jpg    or .dcm (MIMIC-CXR) or .png
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from lmrrg.config.data import DataConfig
from lmrrg.data.sections import parse_sections
from lmrrg.data.source import Dropped, Source, labels_of_row
from lmrrg.data.tables import find_file, read_csv
from lmrrg.studies import LABELS, Split, Study, StudyError, StudyImage, View
from lmrrg.views import frontal_first, view_of

_METADATA = "mimic-cxr-2.0.0-metadata.csv"
_SPLIT = "mimic-cxr-2.0.0-split.csv"
_LABEL_TABLES = ("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.0.0-negbio.csv")
_REPORTS = "mimic-cxr-reports.zip"
_SPLITS: dict[str, Split] = {"train": "train", "validate": "val", "test": "test"}
_SUFFIXES = (".jpg", ".dcm", ".png")


@dataclass
class _ListedStudy:
    """One study of the metadata table: images by their DICOM id, and a date that sorts in time."""

    patient: str
    images: list[tuple[str, View]] = field(default_factory=list)
    date: str = ""


def read_mimic_cxr(folder: Path, data: DataConfig) -> Source:
    """Read the tables, then each study's report and images.

    A study's id and its patient's are MIMIC's numbers (already pseudonyms), so that the published
    CSV files can be joined. Reports are cut by :func:`lmrrg.data.sections.parse_sections`; the
    indication is that section, else the history. MIMIC shifts dates, by the same time for all
    studies of a patient, so they can order priors.

    Args:
        folder: see the module.
        data: ``images``: the folder that holds p10 to p19; by default ``folder/files``.

    Raises:
        StudyError: a file or a column is missing, or a study is in two splits.
    """
    studies = _listed_studies(find_file(folder, _METADATA))
    splits = _splits(find_file(folder, _SPLIT))
    notes = {"splits": "official"}
    labels = _labels(folder, notes)
    return Source(
        "mimic-cxr",
        _rows(folder, data.images or folder / "files", studies, splits, labels, notes),
        total=len(studies),
        study_dates={name: study.date for name, study in studies.items() if study.date},
        notes=notes,
        published_splits=True,
    )


def views_of_images(folder: Path) -> dict[str, View]:
    """Return the view of every image by its DICOM id; none where the folder has no metadata table.

    Raises:
        StudyError: the table is not of its form.
    """
    try:
        path = find_file(folder, _METADATA)
    except StudyError:
        return {}
    studies = _listed_studies(path)
    return {dicom_id: view for study in studies.values() for dicom_id, view in study.images}


def _rows(
    folder: Path,
    image_folder: Path,
    studies: Mapping[str, _ListedStudy],
    splits: Mapping[str, Split],
    labels: Mapping[str, dict[str, int]],
    notes: dict[str, str],
) -> Iterator[Study | Dropped]:
    forms: Counter[str] = Counter()
    with ExitStack() as stack:
        read_report = _report_reader(folder, stack)
        for name, listed in studies.items():
            path = f"p{listed.patient[:2]}/p{listed.patient}/s{name}"
            text = read_report(f"{path}.txt")
            images = _images(image_folder / path, listed.images)
            if text is None:
                yield Dropped("no report file")
                continue
            if not images:
                yield Dropped("no image file", example=str(image_folder / path))
                continue
            sections = parse_sections(text)
            forms.update(sections.form)
            yield Study(
                id=name,
                patient=listed.patient,
                images=images,
                findings=sections.findings,
                impression=sections.impression,
                indication=sections.indication or sections.history,
                comparison=sections.comparison,
                labels=labels.get(name),
                split=splits.get(name),
                source="mimic-cxr",
            )
    unusual = ", ".join(f"{form} {count}" for form, count in forms.most_common())
    notes["unusual reports"] = unusual or "none"


def _report_reader(folder: Path, stack: ExitStack) -> Callable[[str], str | None]:
    """Return a function that reads a report by its path ("p10/p10000032/s50414267.txt").

    It returns ``None`` where the report does not exist. An archive stays open as long as ``stack``.
    """
    archive = folder / _REPORTS
    if not archive.is_file():
        return lambda path: _text_of_file(folder / "files" / path)
    try:
        reports = stack.enter_context(ZipFile(archive))
    except BadZipFile as error:
        raise StudyError("source_archive", f"{archive} is no zip archive: {error}") from error
    names = set(reports.namelist())

    def read(path: str) -> str | None:
        name = f"files/{path}"
        return _text_of_member(reports, name) if name in names else None

    return read


def _text_of_member(archive: ZipFile, name: str) -> str:
    try:
        return archive.read(name).decode("utf-8", "replace")
    except (BadZipFile, zlib.error, EOFError) as error:
        message = f"{archive.filename}: {name} is damaged: {error}"
        raise StudyError("source_archive", message) from error


def _text_of_file(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _images(folder: Path, listed: list[tuple[str, View]]) -> tuple[StudyImage, ...]:
    # One listing, instead of a question to the file system for each possible name of each image.
    try:
        present = {entry.name for entry in os.scandir(folder)}
    except FileNotFoundError:
        return ()
    images = []
    for dicom_id, view in listed:
        names = (f"{dicom_id}{suffix}" for suffix in _SUFFIXES)
        name = next((name for name in names if name in present), None)
        if name is not None:
            images.append(StudyImage(folder / name, view))
    return frontal_first(images)


def _listed_studies(path: Path) -> dict[str, _ListedStudy]:
    columns = {"dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime"}
    studies: dict[str, _ListedStudy] = {}
    for row in read_csv(path, columns):
        study = studies.setdefault(row["study_id"], _ListedStudy(row["subject_id"]))
        if study.patient != row["subject_id"]:
            raise StudyError("source_record", f"{path}: a study has two patients")
        view = view_of(row["ViewPosition"] or row.get("ViewCodeSequence_CodeMeaning", ""))
        study.images.append((row["dicom_id"], view))
        # The images of a study differ in time; the first one counts.
        dates = (study.date, _sortable_date(row["StudyDate"], row["StudyTime"]))
        study.date = min(filter(None, dates), default="")
    return studies


def _sortable_date(date: str, time: str) -> str:
    """Return "21800506 081013" for the date 21800506 and the time "81013.5"; "" without a date.

    The table writes times as numbers, so they lack their leading zeros.
    """
    day = date.strip()
    seconds = time.strip().split(".")[0]
    return f"{day} {seconds.zfill(6)}" if day else ""


def _splits(path: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for row in read_csv(path, {"study_id", "split"}):
        split = _SPLITS.get(row["split"].strip())
        # The table has a row per image, so a study occurs several times.
        if split is None or splits.setdefault(row["study_id"], split) != split:
            message = f"{path}: a split is not train, validate or test, or a study is in two"
            raise StudyError("source_record", message)
    return splits


def _labels(folder: Path, notes: dict[str, str]) -> dict[str, dict[str, int]]:
    """Return the labels by study; none where the folder has no table of them."""
    try:
        path = find_file(folder, *_LABEL_TABLES)
    except StudyError:
        return {}
    notes["labels"] = path.name
    rows = read_csv(path, {"study_id", *LABELS})
    return {row["study_id"]: labels_of_row(row, str(path)) for row in rows}
