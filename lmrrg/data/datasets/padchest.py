"""PadChest as BIMCV publishes it.

One table names 160,861 images, the reports in Spanish, the labels in English.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from lmrrg.config.data import DataConfig
from lmrrg.data.placeholders import without_placeholder
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import clean, find_file, first_file, read_csv
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
_SPANISH_COLUMN = "Report"
_ENGLISH_COLUMNS = ("report_en", "report_english", "english_report", "reporten")
_UNUSED_PROJECTIONS = {"COSTAL": "a rib view", "EXCLUDE": "excluded by the source"}

_Row = dict[str, str]


def read_padchest(folder: Path, data: DataConfig) -> Source:
    """Read the table: an image per row; images of one StudyID are a study.

    The report has one section, taken as the findings. The published text is Spanish, already
    lower-cased and stemmed; where the table has a column of English text (``Report_en`` and like
    names) that is taken instead. Labels are those of the source, mapped to the 14 classes by
    ``padchest_labels.yaml`` (**ours**): a class is positive or not mentioned. There is no published
    split.

    Args:
        folder: holds the table; images as ``<ImageDir>/<ImageID>`` or ``<ImageID>``.
        data: ``images``: the folder of the images, where it is another.

    Raises:
        StudyError: the table or a column is missing, or ``source_section`` if another section than
            findings is wanted.
    """
    if data.section != "findings":
        message = f"a PadChest report has one section, taken as findings, not {data.section}"
        raise StudyError("source_section", message)
    studies: dict[str, list[_Row]] = {}
    text_column = ""
    for row in read_csv(find_file(folder, _TABLE), _COLUMNS):
        text_column = text_column or _text_column(row)
        kept = _cells(row, text_column)
        studies.setdefault(kept["StudyID"], []).append(kept)
    is_english = text_column not in ("", _SPANISH_COLUMN)
    language = "English" if is_english else "Spanish, stemmed by the source"
    dates = {study: rows[0]["StudyDate_DICOM"] for study, rows in studies.items()}
    return Source(
        "padchest",
        _rows(studies, data.images or folder),
        total=len(studies),
        study_dates={study: date for study, date in dates.items() if date},
        notes={
            "language": f"{language} (column {text_column or _SPANISH_COLUMN})",
            "labels": "PadChest's, mapped to the 14 classes",
        },
    )


def _text_column(row: _Row) -> str:
    english = (name for name in row if name.lower() in _ENGLISH_COLUMNS)
    return next(english, _SPANISH_COLUMN)


def _cells(row: _Row, text_column: str) -> _Row:
    """Return the cells that are used; the report's is ``text``. A placeholder is "".

    The table writes blank as "nan".
    """
    kept = {column: row[column] for column in _COLUMNS} | {"text": row[text_column]}
    return {column: without_placeholder(cell) for column, cell in kept.items()}


def _rows(studies: dict[str, list[_Row]], folder: Path) -> Iterator[Study | Dropped]:
    for study, rows in studies.items():
        first = rows[0]
        used = [row for row in rows if row["Projection"] not in _UNUSED_PROJECTIONS]
        images = _images(folder, used)
        if any(row["PatientID"] != first["PatientID"] for row in rows):
            yield Dropped("one study of two patients")
        elif not used:
            yield Dropped(f"only {_UNUSED_PROJECTIONS[first['Projection']]}")
        elif not images:
            yield Dropped("no image file", str(folder / used[0]["ImageID"]))
        elif not first["Labels"].strip():
            yield Dropped("no labels in the source")
        else:
            yield Study(
                id=study,
                patient=first["PatientID"],
                images=images,
                findings=clean(first["text"]),
                labels=_labels(first["Labels"]),
                source="padchest",
            )


def _images(folder: Path, rows: list[_Row]) -> tuple[StudyImage, ...]:
    images = []
    for row in rows:
        name = row["ImageID"]
        file = first_file((folder / row["ImageDir"] / name, folder / name))
        if file is not None:
            images.append(StudyImage(file, view_of(row["Projection"])))
    return frontal_first(images)


def labels_named(names: Set[str]) -> dict[str, int]:
    """Return the classes that PadChest's own labels name, as positive.

    >>> labels_named({"pleural effusion", "normal"})
    {'Pleural Effusion': 1}
    """
    mapped = {label for label, members in _padchest_labels().items() if names & members}
    # As CheXbert: "No Finding" goes together with support devices, and with no other class.
    if mapped - {"No Finding", "Support Devices"}:
        mapped.discard("No Finding")
    return {label: POSITIVE for label in LABELS if label in mapped}


def _labels(text: str) -> dict[str, int]:
    """Return the classes that a list like "['pleural effusion', 'normal']" names."""
    try:
        # The table writes lists as Python does, with single quotes, so they are no JSON.
        names = {str(name).strip() for name in ast.literal_eval(text)}
    except (ValueError, SyntaxError, TypeError) as error:
        raise StudyError("source_record", "a cell of Labels is no list of words") from error
    return labels_named(names)


@cache
def _padchest_labels() -> dict[str, frozenset[str]]:
    """Return the labels of PadChest that each class covers."""
    file = files("lmrrg.data.datasets") / "padchest_labels.yaml"
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {label: frozenset(names) for label, names in table.items()}
