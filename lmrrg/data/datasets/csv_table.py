"""Any CSV file of studies, such as a hospital's own export."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.csv_file import columns_sentence
from lmrrg.data.privacy import hashed_id, salt_from_environment, scrub
from lmrrg.data.sections import parse_sections
from lmrrg.data.source import NO_ID, Dropped, Source, labels_of_row
from lmrrg.data.tables import (
    Texts,
    clean,
    differing_rows,
    existing_images,
    no_image_file,
    read_csv,
)
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
_IMAGE_SEPARATOR = re.compile("[;|]")

_NAME_COLUMNS = "name yours with --columns report=YOURS (data.columns)"
_Row = Mapping[str, str]


@dataclass
class _Table:
    """The rows of each study, by its id in the file, and what is known about all rows."""

    studies: dict[str, list[_Row]] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)
    unread: list[str] = field(default_factory=list)
    rows_without_id: int = 0


def read_csv_table(path: Path, data: DataConfig) -> Source:
    """Read a CSV file with a header, and one image or several ("a.png;b.png") per row.

    Needed columns are :data:`NEEDED`: rows of one ``study_id`` make a study, with the texts and
    labels of the first row that has text. Rows without a study or patient id are dropped. Optional
    are :data:`OPTIONAL` and the 14 classes (1, 0, -1, blank). A ``report`` is cut into sections; a
    column of a section's own name is preferred to it. ``date`` is any text that sorts in time
    (2011-03-28 09:06), or of the form ``data.date_format``. Of several images in one cell, the
    views are those of a cell with as many, else unknown. Other columns are not read.

    With ``data.ids`` "hashed" (default) study and patient ids become salted hashes, and text in the
    shape of an identifier becomes ``___`` (:mod:`lmrrg.data.privacy`). Image paths stay, since the
    files must be found: rows whose path holds the patient's id are counted in the notes.

    Args:
        path: the CSV file.
        data: ``images``: the folder that image paths start from, by default the file's;
            ``columns``: the file's own names of columns.

    Raises:
        StudyError: ``salt_missing``, ``date_format`` (it names no year), ``source_columns`` (a
            column is missing or occurs twice), ``source_record`` (a study of two patients or
            splits, an unknown split, a date of another form, an id that a spreadsheet rounded),
            ``labels_value``.
    """
    if data.date_format and not any(year in data.date_format for year in ("%Y", "%y")):
        message = f"data.date_format {data.date_format} names no year, as %d.%m.%Y does"
        raise StudyError("date_format", message)
    salt = salt_from_environment() if data.ids == "hashed" else None
    read = _read_table(path, {str(name): own for name, own in data.columns.items()})
    studies = read.studies
    for rows in studies.values():
        _check_study(path, rows)
    manifest_id = partial(_manifest_id, salt, "study")
    sortable = partial(_sortable_date, path, data.date_format)
    dates = {manifest_id(study): sortable(rows) for study, rows in studies.items()}
    return Source(
        "csv",
        _rows(path, read, data.images or path.parent, salt),
        total=len(studies) + read.rows_without_id,
        study_dates={study: date for study, date in dates.items() if date},
        notes=_notes(read, is_hashed=salt is not None),
        manifest_id=manifest_id,
    )


def _read_table(path: Path, own_names: Mapping[str, str]) -> _Table:
    table = _Table()
    for row in _named_rows(path, own_names, table):
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
        has = columns_sentence(sorted(table.columns | {*table.unread}))
        message = f"{path} needs one of the columns report, findings and impression; {has}"
        raise StudyError("source_columns", f"{message}; {_NAME_COLUMNS}")
    return table


def _named_rows(path: Path, own_names: Mapping[str, str], table: _Table) -> Iterator[_Row]:
    """Yield the rows with our names of the columns, which are noted in ``table``."""
    name_in_file = {name: own_names.get(name, name) for name in (*NEEDED, *OPTIONAL, *LABELS)}
    needed = {name_in_file[name] for name in (*NEEDED, *own_names)}
    try:
        for row in read_csv(path, needed, name_in_file.values()):
            named = {name: row[own] for name, own in name_in_file.items() if own in row}
            if not table.columns:
                table.columns = set(named)
                table.unread = sorted(set(row) - set(name_in_file.values()))
            yield named
    except StudyError as error:
        if error.code != "source_columns":
            raise
        raise StudyError(error.code, f"{error.args[1]}; {_NAME_COLUMNS}") from error


def _check_study(path: Path, rows: list[_Row]) -> None:
    patients = {clean(row["patient_id"]) for row in rows}
    splits = {_split_word(row) for row in rows}
    if len(patients) > 1 or len(splits) > 1:
        raise StudyError("source_record", f"{path}: a study has two patients or two splits")
    if _split_word(rows[0]) not in _SPLIT_OF_WORD:
        raise StudyError("source_record", f"{path}: a split is none of train, val and test")


def _split_word(row: _Row) -> str:
    return clean(row.get("split")).lower()


def _sortable_date(path: Path, form: str | None, rows: list[_Row]) -> str:
    """Return the first date without hyphens, so that both forms sort together; "" for none."""
    dates = (clean(row.get("date")) for row in rows)
    date = next(filter(None, dates), "")
    if date and form is not None:
        try:
            return datetime.strptime(date, form).strftime("%Y%m%d%H%M%S")
        except ValueError:
            # The message does not quote the date, which may be a patient's.
            message = f"{path}: a date is not of the form {form}"
            raise StudyError("source_record", message) from None
    if date and not _DATE.match(date):
        message = (
            f"{path}: a date is not of the form 2011-03-28, which sorts in time; name its form, as "
            "--date-format %d.%m.%Y (data.date_format)"
        )
        raise StudyError("source_record", message)
    return date.replace("-", "")


def _notes(table: _Table, *, is_hashed: bool) -> dict[str, str]:
    studies = table.studies
    ids = "as in the file"
    if is_hashed:
        exposed = sum(_path_shows_patient(row) for rows in studies.values() for row in rows)
        ids = f"salted hashes; {exposed} image paths hold the patient's id"
    notes = {"ids": ids, "columns not read": ", ".join(table.unread) or "none"}
    all_rows = chain.from_iterable(studies.values())
    unclear = sum(len(_cells(row["image"])) != len(_cells(row.get("view", ""))) for row in all_rows)
    if unclear and "view" in table.columns:
        notes["views unknown"] = f"{unclear} rows with more or fewer views than images"
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
        yield Dropped(NO_ID)
    for study, rows in table.studies.items():
        first = _first_with_text(rows)
        patient = clean(first["patient_id"])
        listed = [image for row in rows for image in _images_of_row(folder, row)]
        images = existing_images(listed)
        if not images:
            missing = no_image_file(listed)
            hidden = (study, patient) if salt else ()
            yield replace(missing, example=_without(missing.example, hidden))
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


def _images_of_row(folder: Path, row: _Row) -> list[StudyImage]:
    names = _cells(row["image"])
    views = _cells(row.get("view", ""))
    if len(views) != len(names):
        views = [""] * len(names)
    pairs = zip(names, views, strict=True)
    return [StudyImage(folder / name, view_of(view)) for name, view in pairs]


def _cells(text: str) -> list[str]:
    """Return the parts of a cell that lists several.

    >>> _cells("1.png; 2.png;"), _cells("")
    (['1.png', '2.png'], [''])
    """
    parts = [part.strip() for part in _IMAGE_SEPARATOR.split(text)]
    return [part for part in parts if part] or [""]


def _without(text: str, identifiers: Iterable[str]) -> str:
    for identifier in identifiers:
        text = text.replace(identifier, "___")
    return text


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
