"""Any CSV file of studies, such as a hospital's own export."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.privacy import hashed_id, salt_from_environment, scrub
from lmrrg.data.sections import parse_sections
from lmrrg.data.source import Dropped, Source, labels_of_row
from lmrrg.data.tables import Texts, clean, differing_rows, existing_images, read_csv
from lmrrg.studies import LABELS, Split, Study, StudyError, StudyImage
from lmrrg.views import view_of

NEEDED = ("study_id", "patient_id", "image")
OPTIONAL = ("view", "date", "split", "report", *Texts._fields)
_SPLIT_OF_WORD: dict[str, Split | None] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "test": "test",
    "": None,
}
# 2011-03-28 or 20110328, with or without a time after it; other forms do not sort in time. The
# group holds the hyphen, so that there are two or none.
_DATE = re.compile(r"\d{4}(-?)\d{2}\1\d{2}(?!\d)")

# "1.23E+11" or "1,23E+11": a spreadsheet wrote a long number so, and lost its last digits.
_ROUNDED_ID = re.compile(r"\d([.,]\d+)?E\+?\d+", re.IGNORECASE)
_TEXT_COLUMNS = ("report", *Texts._fields)

_Row = Mapping[str, str]


@dataclass
class _Table:
    """The rows of each study, by its id in the file, and what is known about all rows."""

    studies: dict[str, list[_Row]] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)
    rows_without_id: int = 0


def read_csv_table(path: Path, data: DataConfig) -> Source:
    """Read a CSV file with a header, one image per row.

    Needed columns are :data:`NEEDED`: rows of one ``study_id`` make a study, with the texts and
    labels of the first row that has text. Rows without a study or patient id are dropped. Optional
    are :data:`OPTIONAL` and the 14 classes (1, 0, -1, blank). A ``report`` is cut into sections; a
    column of a section's own name is preferred to it. ``date`` is any text that sorts in time
    (2011-03-28 09:06). Other columns are not read.

    With ``data.ids`` "hashed" (default) study and patient ids become salted hashes, and text in the
    shape of an identifier becomes ``___`` (:mod:`lmrrg.data.privacy`). Image paths stay, since the
    files must be found: rows whose path holds the patient's id are counted in the notes.

    Args:
        path: the CSV file.
        data: ``images``: the folder that image paths start from, by default the file's.

    Raises:
        StudyError: ``salt_missing``, a missing column, ``source_record`` (a study of two patients
            or splits, an unknown split, a date that does not sort, an id that a spreadsheet
            rounded), ``labels_value``.
    """
    salt = salt_from_environment() if data.ids == "hashed" else None
    read = _read_table(path)
    studies = read.studies
    for rows in studies.values():
        _check_study(path, rows)
    manifest_id = partial(_manifest_id, salt, "study")
    dates = {manifest_id(study): _sortable_date(path, rows) for study, rows in studies.items()}
    return Source(
        "csv",
        _rows(path, read, data.images or path.parent, salt),
        total=len(studies) + read.rows_without_id,
        study_dates={study: date for study, date in dates.items() if date},
        notes=_notes(read, is_hashed=salt is not None),
        manifest_id=manifest_id,
    )


def _read_table(path: Path) -> _Table:
    table = _Table()
    for row in read_csv(path, NEEDED):
        table.columns = table.columns or set(row)
        study = clean(row["study_id"])
        patient = clean(row["patient_id"])
        if not (study and patient):
            table.rows_without_id += 1
            continue
        if _ROUNDED_ID.fullmatch(study) or _ROUNDED_ID.fullmatch(patient):
            message = (
                f"{path}: an id was rounded by a spreadsheet, as 1.23E+11 is; export ids as text"
            )
            raise StudyError("source_record", message)
        table.studies.setdefault(study, []).append(row)
    if not table.columns & {"report", "findings", "impression"}:
        message = f"{path} needs one of the columns report, findings and impression"
        raise StudyError("source_columns", message)
    return table


def _check_study(path: Path, rows: list[_Row]) -> None:
    patients = {clean(row["patient_id"]) for row in rows}
    splits = {_split_word(row) for row in rows}
    if len(patients) > 1 or len(splits) > 1:
        raise StudyError("source_record", f"{path}: a study has two patients or two splits")
    if _split_word(rows[0]) not in _SPLIT_OF_WORD:
        raise StudyError("source_record", f"{path}: a split is none of train, val and test")


def _split_word(row: _Row) -> str:
    return clean(row.get("split")).lower()


def _sortable_date(path: Path, rows: list[_Row]) -> str:
    """Return the first date without hyphens, so that both forms sort together; "" for none."""
    dates = (clean(row.get("date")) for row in rows)
    date = next(filter(None, dates), "")
    if date and not _DATE.match(date):
        message = f"{path}: a date is not of the form 2011-03-28, which sorts in time"
        raise StudyError("source_record", message)
    return date.replace("-", "")


def _notes(table: _Table, *, is_hashed: bool) -> dict[str, str]:
    studies = table.studies
    ids = "as in the file"
    if is_hashed:
        exposed = sum(_path_shows_patient(row) for rows in studies.values() for row in rows)
        ids = f"salted hashes; {exposed} image paths hold the patient's id"
    unread = sorted(table.columns - {*NEEDED, *OPTIONAL, *LABELS})
    notes = {"ids": ids, "columns not read": ", ".join(unread) or "none"}
    # A row without any text contradicts no other row.
    texts = (filter(any, map(_cells_of_text, rows)) for rows in studies.values())
    return notes | differing_rows(texts, "the first row with text")


def _cells_of_text(row: _Row) -> tuple[str, ...]:
    return tuple(clean(row.get(column)) for column in _TEXT_COLUMNS)


def _first_with_text(rows: list[_Row]) -> _Row:
    """Return the first row with text; the first of all where none has any."""
    return next((row for row in rows if any(_cells_of_text(row))), rows[0])


def _path_shows_patient(row: _Row) -> bool:
    patient = row["patient_id"].strip()
    return bool(patient) and patient in row["image"]


def _rows(path: Path, table: _Table, folder: Path, salt: bytes | None) -> Iterator[Study | Dropped]:
    has_labels = bool(table.columns & {*LABELS})
    for _ in range(table.rows_without_id):
        yield Dropped("no study or patient id")
    for study, rows in table.studies.items():
        first = _first_with_text(rows)
        patient = clean(first["patient_id"])
        listed = [
            StudyImage(folder / row["image"].strip(), view_of(row.get("view", ""))) for row in rows
        ]
        images = existing_images(listed)
        if not images:
            yield Dropped("no image file")
        else:
            yield Study(
                _manifest_id(salt, "study", study),
                _manifest_id(salt, "patient", patient),
                images,
                *_texts(first, is_private=salt is not None),
                labels=labels_of_row(first, str(path)) if has_labels else None,
                split=_SPLIT_OF_WORD[_split_word(first)],
                source="csv",
            )


def _texts(row: _Row, *, is_private: bool) -> Texts:
    """Return the sections: those of their own columns, else those of the column ``report``."""
    report = parse_sections(row.get("report", ""))
    parsed = Texts(
        report.findings,
        report.impression,
        report.indication or report.history,
        report.comparison,
    )
    own = [clean(row.get(name)) for name in Texts._fields]
    texts = Texts(*(text or other for text, other in zip(own, parsed, strict=True)))
    if not is_private:
        return texts
    return Texts(*(scrub(text, row["patient_id"], row["study_id"]) for text in texts))


def _manifest_id(salt: bytes | None, kind: str, value: str) -> str:
    return hashed_id(salt, kind, value) if salt else value
