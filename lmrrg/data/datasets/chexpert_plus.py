"""CheXpert Plus as Stanford AIMI publishes it.

The folder holds the table ``df_chexpert_plus_240401.csv`` beside the PNG or DICOM images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmrrg.config.data import DataConfig
from lmrrg.data.source import Dropped, Source, label_value
from lmrrg.data.tables import clean, differing_rows, find_file, first_file, read_csv
from lmrrg.studies import LABELS, Section, Split, Study, StudyError, StudyImage, View
from lmrrg.views import frontal_first, view_of

_TABLE = "df_chexpert_plus_240401.csv"
_COLUMNS = (
    "path_to_image",
    "path_to_dcm",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "split",
    "section_findings",
    "section_impression",
    "section_clinical_history",
    "section_history",
    "section_comparison",
)
# "train/patient00001/study1/view1_frontal.jpg"
_STUDY_OF_PATH = re.compile(r"(patient\d+)/(study\d+)/")
_SPLITS: dict[str, Split] = {"train": "train", "valid": "test"}
_VAL_FRACTION = 0.02
_LABEL_FILES: dict[Section, str] = {
    "findings": "findings_fixed.json",
    "impression": "impression_fixed.json",
    "findings+impression": "report_fixed.json",
}


def read_chexpert_plus(folder: Path, data: DataConfig) -> Source:
    """Read the table, which has an image per row, and the labels of the wanted section.

    A study is a patient and study folder of the image paths. Labels are those of
    ``chexbert_labels/*_fixed.json``, where the folder has them. Splits are **ours** where the
    source has none: its ``valid`` (200 patients, held out by CheXpert) is our test, and 2 % of the
    training patients become val. Priors are not linked: the source publishes an order of reports,
    ``patient_report_date_order``, but no dates.

    Args:
        folder: holds the table; images below ``PNG`` (also ``PNG/PNG``), ``DICOM``, or itself.
        data: ``images``: the folder with train and valid, where it is another.

    Raises:
        StudyError: the table or a column is missing, or an image path names no patient and study.
    """
    table = find_file(folder, _TABLE)
    studies: dict[str, list[dict[str, str]]] = {}
    for row in read_csv(table, _COLUMNS):
        # Only what is used is kept: the other columns hold each report several times.
        kept = {column: row[column] for column in _COLUMNS}
        studies.setdefault(_study_id(table, row["path_to_image"]), []).append(kept)
    notes = {"splits": "train; valid as test"}
    texts = (map(_texts_of_row, rows) for rows in studies.values())
    notes |= differing_rows(texts, "the first row")
    labels = _labels(folder, data.section, notes)
    return Source(
        "chexpert-plus",
        _rows(studies, _image_folder(folder, data.images), labels),
        total=len(studies),
        notes=notes,
        published_splits=True,
        val_fraction=_VAL_FRACTION,
    )


def _study_id(table: Path, image_path: str) -> str:
    match = _STUDY_OF_PATH.search(image_path)
    if not match:
        raise StudyError("source_record", f"{table}: a path_to_image has no patient<n>/study<n>/")
    return f"{match[1]}-{match[2]}"


def _texts_of_row(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(clean(row[column]) for column in _COLUMNS if column.startswith("section_"))


def _rows(
    studies: dict[str, list[dict[str, str]]], folder: Path, labels: dict[str, dict[str, int]]
) -> Iterator[Study | Dropped]:
    for name, rows in studies.items():
        images = _images(folder, rows)
        if not images:
            yield Dropped("no image file", str(folder / rows[0]["path_to_image"]))
            continue
        first = rows[0]
        yield Study(
            id=name,
            patient=first["deid_patient_id"],
            images=images,
            findings=clean(first["section_findings"]),
            impression=clean(first["section_impression"]),
            indication=clean(first["section_clinical_history"]) or clean(first["section_history"]),
            comparison=clean(first["section_comparison"]),
            labels=labels.get(first["path_to_image"]),
            split=_SPLITS.get(first["split"].strip()),
            source="chexpert-plus",
        )


def _image_folder(folder: Path, images: Path | None) -> Path:
    if images is not None:
        return images
    # PNG/PNG: how the archive unpacks into a folder of its own name.
    for candidate in (folder / "PNG", folder / "PNG" / "PNG", folder / "DICOM", folder):
        if any((candidate / split).is_dir() for split in _SPLITS):
            return candidate
    message = f"{folder} has no folder PNG or DICOM with train or valid in it"
    raise StudyError("source_missing", message)


def _images(folder: Path, rows: list[dict[str, str]]) -> tuple[StudyImage, ...]:
    images = []
    for row in rows:
        named = folder / row["path_to_image"]
        # The table writes .jpg for what is released as PNG; the DICOM path is a column of its own,
        # blank where there is no DICOM file.
        dicom = folder / (row["path_to_dcm"] or "-")
        file = first_file((named.with_suffix(".png"), named.with_suffix(".jpg"), dicom))
        if file is not None:
            images.append(StudyImage(file, _view(row)))
    return frontal_first(images)


def _view(row: dict[str, str]) -> View:
    if row["frontal_lateral"].strip().lower() == "lateral":
        return "lateral"
    projection = view_of(row["ap_pa"])
    return projection if projection != "unknown" else view_of(row["frontal_lateral"])


def _labels(folder: Path, section: Section, notes: dict[str, str]) -> dict[str, dict[str, int]]:
    """Return the labels by image path; none where the folder has no CheXbert labels."""
    path = folder / "chexbert_labels" / _LABEL_FILES[section]
    if not path.is_file():
        return {}
    notes["labels"] = f"chexbert_labels/{path.name}"
    labels: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            try:
                # The file writes NaN, which is no JSON, for a class that is not mentioned.
                record = json.loads(line, parse_constant=lambda _: None)
                labels[record["path_to_image"]] = _labels_of_record(record, where)
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise StudyError("source_record", f"{where}: {error}") from error
    return labels


def _labels_of_record(record: dict[str, Any], where: str) -> dict[str, int]:
    values = {label: record[label] for label in LABELS}
    return {
        label: label_value(value, f"{where}: {label}")
        for label, value in values.items()
        if value is not None
    }
