"""PadChest as BIMCV publishes it: one table of 160,861 images, the reports in Spanish, the labels in English."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from lmrrg.config.data import DataConfig
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import clean, find_file, read_csv
from lmrrg.studies import LABELS, POSITIVE, Study, StudyError, StudyImage
from lmrrg.views import frontal_first, view_of

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_COLUMNS = (
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "Projection",
    "Report",
    "Labels",
)
_ENGLISH = ("report_en", "report_english", "english_report", "reporten")
_NOT_USED = {"COSTAL": "a rib view", "EXCLUDE": "excluded by the source"}


def read_padchest(folder: Path, data: DataConfig) -> Source:
    """Read the table (an image per row; images of one StudyID are a study) and the images.

    The report has one section, taken as the findings. The published text is Spanish, already lower-cased and stemmed;
    where the table has a column of English text (``Report_en`` and like names) that is taken instead. Labels are those
    of the source, mapped to the 14 classes by ``padchest_labels.yaml`` (**ours**): a class is positive or not
    mentioned. There is no published split. Blank cells hold "nan".

    Args:
        folder: holds the table; images as ``<ImageDir>/<ImageID>`` or ``<ImageID>``.
        data: ``images``: the folder of the images, where it is another.

    Raises:
        StudyError: the table or a column is missing, or ``source_section`` when another section than findings is asked.
    """
    if data.section != "findings":
        raise StudyError(
            "source_section",
            f"a PadChest report has one section, taken as findings, not {data.section}",
        )
    studies: dict[str, list[dict[str, str]]] = {}
    english = ""
    for row in read_csv(find_file(folder, _TABLE), _COLUMNS):
        english = english or next((name for name in row if name.lower() in _ENGLISH), "-")
        row = {column: "" if cell.strip() == "nan" else cell for column, cell in row.items()}
        kept = {column: row[column] for column in _COLUMNS}
        kept["text"] = row.get(english, row["Report"])
        studies.setdefault(row["StudyID"], []).append(kept)
    taken = {
        study: rows[0]["StudyDate_DICOM"]
        for study, rows in studies.items()
        if rows[0]["StudyDate_DICOM"]
    }
    is_english = english not in ("", "-")
    language = (
        f"English (column {english})"
        if is_english
        else "Spanish, stemmed by the source (column Report)"
    )
    notes = {"language": language, "labels": "PadChest's, mapped to the 14 classes"}
    return Source(
        "padchest",
        _rows(studies, data.images or folder),
        total=len(studies),
        taken=taken,
        notes=notes,
    )


def _rows(studies: dict[str, list[dict[str, str]]], images: Path) -> Iterator[Study | Dropped]:
    for study, rows in studies.items():
        used = [row for row in rows if row["Projection"] not in _NOT_USED]
        found = frontal_first(
            StudyImage(path, view_of(row["Projection"]))
            for row in used
            if (path := _image_file(images, row)) is not None
        )
        if len({row["PatientID"] for row in rows}) > 1:
            yield Dropped("one study of two patients")
        elif not used:
            yield Dropped(f"only {_NOT_USED[rows[0]['Projection']]}")
        elif not found:
            yield Dropped("no image file")
        elif not rows[0]["Labels"].strip():
            yield Dropped("no labels in the source")
        else:
            yield Study(
                id=study,
                patient=rows[0]["PatientID"],
                images=found,
                findings=clean(rows[0]["text"]),
                labels=_labels(rows[0]["Labels"]),
                source="padchest",
            )


def _image_file(images: Path, row: dict[str, str]) -> Path | None:
    for path in (images / row["ImageDir"] / row["ImageID"], images / row["ImageID"]):
        if path.is_file():
            return path
    return None


def labels_named(names: Set[str]) -> dict[str, int]:
    """The classes among the 14 that PadChest's own labels ("pleural effusion", "normal") name, as positive."""
    mapped = {label for label, members in _classes().items() if names & members}
    if mapped - {"No Finding", "Support Devices"}:
        mapped.discard("No Finding")
    return {label: POSITIVE for label in LABELS if label in mapped}


def _labels(text: str) -> dict[str, int]:
    """The 14 classes that a list like "['pleural effusion', 'normal']" names."""
    try:
        names = {str(name).strip() for name in ast.literal_eval(text)}
    except (ValueError, SyntaxError, TypeError) as error:
        raise StudyError("source_record", "a cell of Labels is no list of words") from error
    return labels_named(names)


@cache
def _classes() -> dict[str, frozenset[str]]:
    table = yaml.safe_load(
        (files("lmrrg.data.datasets") / "padchest_labels.yaml").read_text(encoding="utf-8")
    )
    return {label: frozenset(names) for label, names in table.items()}
