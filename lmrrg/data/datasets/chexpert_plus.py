"""CheXpert Plus as Stanford AIMI publishes it: ``df_chexpert_plus_240401.csv`` beside the PNG or DICOM images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.source import Dropped, Source, label_value
from lmrrg.data.tables import clean, find_file, read_csv
from lmrrg.studies import LABELS, Section, Split, Study, StudyError, StudyImage, View
from lmrrg.views import frontal_first, view_of

_TABLE = "df_chexpert_plus_240401.csv"
_COLUMNS = ("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "split")
_TEXTS = (
    "section_findings",
    "section_impression",
    "section_clinical_history",
    "section_history",
    "section_comparison",
)
_STUDY = re.compile(r"(patient\d+)/(study\d+)/")
_SPLITS: dict[str, Split] = {"train": "train", "valid": "test"}
_VAL_SHARE = 0.02
_LABELS: dict[Section, str] = {
    "findings": "findings_fixed.json",
    "impression": "impression_fixed.json",
    "findings+impression": "report_fixed.json",
}


def read_chexpert_plus(folder: Path, data: DataConfig) -> Source:
    """Read the table (an image per row) and, where they are, ``chexbert_labels/*_fixed.json`` for the wanted section.

    A study is a patient and study folder of the image paths. Splits are **ours** where the source has none: its
    ``valid`` (200 patients, held out by CheXpert) is our test, and 2 % of the training patients become val. Priors are
    not linked: the source publishes an order of reports, ``patient_report_date_order``, but no dates.

    Args:
        folder: holds the table; images below ``PNG`` (also ``PNG/PNG``), ``DICOM``, or itself.
        data: ``images``: the folder with train and valid, where it is another.

    Raises:
        StudyError: the table or a column is missing, or an image path names no patient and study.
    """
    table = find_file(folder, _TABLE)
    studies: dict[str, list[dict[str, str]]] = {}
    for row in read_csv(table, (*_COLUMNS, *_TEXTS)):
        match = _STUDY.search(row["path_to_image"])
        if not match:
            raise StudyError(
                "source_record", f"{table}: a path_to_image has no patient<n>/study<n>/"
            )
        studies.setdefault(f"{match[1]}-{match[2]}", []).append(
            {k: row[k] for k in (*_COLUMNS, *_TEXTS)}
        )
    notes = {"splits": "train; valid as test"}
    labels = _labels(folder, data.section, notes)
    rows = _rows(studies, _image_folder(folder, data.images), labels)
    return Source(
        "chexpert-plus",
        rows,
        total=len(studies),
        notes=notes,
        published_splits=True,
        val_share=_VAL_SHARE,
    )


def _rows(
    studies: dict[str, list[dict[str, str]]], images: Path, labels: dict[str, dict[str, int]]
) -> Iterator[Study | Dropped]:
    for name, rows in studies.items():
        found = frontal_first(
            StudyImage(file, _view(row))
            for row in rows
            if (file := _image_file(images, row)) is not None
        )
        if not found:
            yield Dropped("no image file")
            continue
        first = rows[0]
        yield Study(
            id=name,
            patient=first["deid_patient_id"],
            images=found,
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
    for candidate in (folder / "PNG", folder / "PNG" / "PNG", folder / "DICOM", folder):
        if any((candidate / split).is_dir() for split in _SPLITS):
            return candidate
    raise StudyError(
        "source_missing", f"{folder} has no folder PNG or DICOM with train or valid in it"
    )


def _image_file(images: Path, row: dict[str, str]) -> Path | None:
    """The table writes ``.jpg`` for what is released as PNG; the DICOM path is a column of its own."""
    named = images / row["path_to_image"]
    for path in (
        named.with_suffix(".png"),
        named.with_suffix(".jpg"),
        images / (row["path_to_dcm"] or "-"),
    ):
        if path.is_file():
            return path
    return None


def _view(row: dict[str, str]) -> View:
    if row["frontal_lateral"].strip().lower() == "lateral":
        return "lateral"
    beam = view_of(row["ap_pa"])
    return beam if beam != "unknown" else view_of(row["frontal_lateral"])


def _labels(folder: Path, section: Section, notes: dict[str, str]) -> dict[str, dict[str, int]]:
    """Labels by image path; none where the folder has no CheXbert labels."""
    path = folder / "chexbert_labels" / _LABELS[section]
    if not path.is_file():
        return {}
    notes["labels"] = f"chexbert_labels/{path.name}"
    labels: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line, parse_constant=lambda _: None)
                labels[record["path_to_image"]] = {
                    label: label_value(record[label], f"{path}:{number}: {label}")
                    for label in LABELS
                    if record[label] is not None
                }
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise StudyError("source_record", f"{path}:{number}: {error}") from error
    return labels
