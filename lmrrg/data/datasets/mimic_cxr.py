"""MIMIC-CXR and MIMIC-CXR-JPG as PhysioNet publishes them.

One folder holds what the user downloaded::

    mimic-cxr-2.0.0-metadata.csv[.gz]     MIMIC-CXR-JPG: an image per row, with view and (shifted) date
    mimic-cxr-2.0.0-split.csv[.gz]        MIMIC-CXR-JPG: the official split
    mimic-cxr-2.0.0-chexpert.csv[.gz]     MIMIC-CXR-JPG: 14 labels per study (optional; -negbio serves as well)
    mimic-cxr-reports.zip                 MIMIC-CXR: the reports, in the archive or unpacked into files/
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
from lmrrg.data.source import Dropped, Source, label_value
from lmrrg.data.tables import find_file, read_csv
from lmrrg.studies import LABELS, Split, Study, StudyError, StudyImage, View
from lmrrg.views import frontal_first, view_of

_METADATA, _SPLIT = "mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv"
_LABELS = ("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.0.0-negbio.csv")
_REPORTS = "mimic-cxr-reports.zip"
_SPLITS: dict[str, Split] = {"train": "train", "validate": "val", "test": "test"}
_SUFFIXES = (".jpg", ".dcm", ".png")


@dataclass
class _Listed:
    """What the tables say about one study."""

    patient: str
    images: list[tuple[str, View]] = field(default_factory=list)
    taken: str = ""


def read_mimic_cxr(folder: Path, data: DataConfig) -> Source:
    """Read the tables, then each study's report and images.

    A study's id and its patient's are MIMIC's numbers (already pseudonyms), so that the published CSV files join.
    Reports pass through :func:`lmrrg.data.sections.parse_sections`; indication is that section, else the history.
    The dates are shifted by MIMIC, the same for all studies of a patient: they order priors.

    Args:
        folder: see the module.
        data: ``images``: the folder that holds p10 to p19, ``folder/files`` by default.

    Raises:
        StudyError: a file or a column is missing, or a study is in two splits.
    """
    listed = _listed(find_file(folder, _METADATA))
    splits = _splits(find_file(folder, _SPLIT))
    notes = {"splits": "official"}
    labels = _labels(folder, notes)
    taken = {study: facts.taken for study, facts in listed.items() if facts.taken}
    rows = _rows(folder, data.images or folder / "files", listed, splits, labels, notes)
    return Source(
        "mimic-cxr", rows, total=len(listed), taken=taken, notes=notes, published_splits=True
    )


def views_of_images(folder: Path) -> dict[str, View]:
    """The view of every image, by its DICOM id; nothing when the metadata table is not in the folder."""
    try:
        listed = _listed(find_file(folder, _METADATA))
    except StudyError as error:
        if error.code != "source_missing":
            raise
        return {}
    return {dicom: view for facts in listed.values() for dicom, view in facts.images}


def _rows(
    folder: Path,
    images: Path,
    listed: Mapping[str, _Listed],
    splits: Mapping[str, Split],
    labels: Mapping[str, dict[str, int]],
    notes: dict[str, str],
) -> Iterator[Study | Dropped]:
    forms: Counter[str] = Counter()
    with ExitStack() as stack:
        read_report = _report_reader(folder, stack)
        for study, facts in listed.items():
            place = f"p{facts.patient[:2]}/p{facts.patient}/s{study}"
            text = read_report(f"{place}.txt")
            found = _images(images / place, facts.images)
            if text is None or not found:
                yield Dropped("no report file" if text is None else "no image file")
                continue
            sections = parse_sections(text)
            forms.update(sections.form)
            yield Study(
                id=study,
                patient=facts.patient,
                images=found,
                findings=sections.findings,
                impression=sections.impression,
                indication=sections.indication or sections.history,
                comparison=sections.comparison,
                labels=labels.get(study),
                split=splits.get(study),
                source="mimic-cxr",
            )
    notes["unusual reports"] = (
        ", ".join(f"{form} {count}" for form, count in forms.most_common()) or "none"
    )


def _report_reader(folder: Path, stack: ExitStack) -> Callable[[str], str | None]:
    """A function from a report's place ("p10/p10000032/s50414267.txt") to its text, or ``None`` without a file."""
    archive = folder / _REPORTS
    if not archive.is_file():
        return lambda place: _text_of(folder / "files" / place)
    try:
        reports = stack.enter_context(ZipFile(archive))
    except BadZipFile as error:
        raise StudyError("source_archive", f"{archive} is no zip archive: {error}") from error
    names = set(reports.namelist())
    return lambda place: (
        _member_of(reports, f"files/{place}") if f"files/{place}" in names else None
    )


def _member_of(archive: ZipFile, name: str) -> str:
    try:
        return archive.read(name).decode("utf-8", "replace")
    except (BadZipFile, zlib.error, EOFError) as error:
        raise StudyError(
            "source_archive", f"{archive.filename}: {name} is damaged: {error}"
        ) from error


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _images(folder: Path, listed: list[tuple[str, View]]) -> tuple[StudyImage, ...]:
    try:
        here = {entry.name for entry in os.scandir(folder)}
    except FileNotFoundError:
        return ()
    return frontal_first(
        StudyImage(folder / name, view)
        for dicom, view in listed
        if (
            name := next(
                (f"{dicom}{suffix}" for suffix in _SUFFIXES if f"{dicom}{suffix}" in here), ""
            )
        )
    )


def _listed(path: Path) -> dict[str, _Listed]:
    columns = {"dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime"}
    studies: dict[str, _Listed] = {}
    for row in read_csv(path, columns):
        facts = studies.setdefault(row["study_id"], _Listed(row["subject_id"]))
        if facts.patient != row["subject_id"]:
            raise StudyError("source_record", f"{path}: a study has two patients")
        view = view_of(row["ViewPosition"] or row.get("ViewCodeSequence_CodeMeaning", ""))
        facts.images.append((row["dicom_id"], view))
        taken = _moment(row["StudyDate"], row["StudyTime"])
        facts.taken = min(filter(None, (facts.taken, taken)), default="")
    return studies


def _moment(date: str, time: str) -> str:
    """ "21800506 081013": the table writes times as numbers, without their leading zeros ("81013.5")."""
    date, time = date.strip(), time.strip().split(".")[0]
    return f"{date} {time.zfill(6)}" if date else ""


def _splits(path: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for row in read_csv(path, {"study_id", "split"}):
        split = _SPLITS.get(row["split"].strip())
        if split is None or splits.setdefault(row["study_id"], split) != split:
            raise StudyError(
                "source_record",
                f"{path}: a split is not train, validate or test, or a study is in two",
            )
    return splits


def _labels(folder: Path, notes: dict[str, str]) -> dict[str, dict[str, int]]:
    """Labels by study; none where the folder has no table of them."""
    try:
        path = find_file(folder, *_LABELS)
    except StudyError:
        return {}
    notes["labels"] = path.name
    return {
        row["study_id"]: {
            label: label_value(row[label], f"{path}: {label}")
            for label in LABELS
            if row[label].strip()
        }
        for row in read_csv(path, {"study_id", *LABELS})
    }
