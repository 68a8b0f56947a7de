"""Any CSV file of studies, such as a hospital's own export."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.privacy import hashed_id, salt_from_environment, scrub
from lmrrg.data.sections import parse_sections
from lmrrg.data.source import Dropped, Source, labels_of_row
from lmrrg.data.tables import Texts, clean, existing_images, read_csv
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

_Row = Mapping[str, str]


def read_csv_table(path: Path, data: DataConfig) -> Source:
    """Read a CSV file with a header, one image per row.

    Needed columns are :data:`NEEDED`: rows of one ``study_id`` make a study, with the texts of the
    first. Optional are :data:`OPTIONAL` and the 14 classes (1, 0, -1, blank). A ``report`` is cut
    into sections; a column of a section's own name is preferred to it. ``date`` is any text that
    sorts in time (2011-03-28 09:06). Other columns are not read.

    With ``data.ids`` "hashed" (default) study and patient ids become salted hashes, and text in the
    shape of an identifier becomes ``___`` (:mod:`lmrrg.data.privacy`). Image paths stay, since the
    files must be found: rows whose path holds the patient's id are counted in the notes.

    Args:
        path: the CSV file.
        data: ``images``: the folder that image paths start from, by default the file's.

    Raises:
        StudyError: ``salt_missing``, a missing column, ``source_record`` (a study of two patients
            or splits, an unknown split, a date that does not sort), ``labels_value``.
    """
    salt = salt_from_environment() if data.ids == "hashed" else None
    studies, columns = _studies_and_columns(path)
    for rows in studies.values():
        _check_study(path, rows)
    manifest_id = partial(_manifest_id, salt, "study")
    dates = {manifest_id(study): _sortable_date(path, rows[0]) for study, rows in studies.items()}
    return Source(
        "csv",
        _rows(
            path, studies, data.images or path.parent, salt, has_labels=bool(columns & {*LABELS})
        ),
        total=len(studies),
        study_dates={study: date for study, date in dates.items() if date},
        notes=_notes(studies, columns, is_hashed=salt is not None),
        manifest_id=manifest_id,
    )


def _studies_and_columns(path: Path) -> tuple[dict[str, list[_Row]], set[str]]:
    """Return the rows of each study, by its id in the file, and the columns of the file."""
    studies: dict[str, list[_Row]] = {}
    columns: set[str] = set()
    for row in read_csv(path, NEEDED):
        columns = columns or set(row)
        studies.setdefault(row["study_id"].strip(), []).append(row)
    if not columns & {"report", "findings", "impression"}:
        message = f"{path} needs one of the columns report, findings and impression"
        raise StudyError("source_columns", message)
    return studies, columns


def _check_study(path: Path, rows: list[_Row]) -> None:
    patients = {row["patient_id"].strip() for row in rows}
    splits = {row.get("split", "") for row in rows}
    if len(patients) > 1 or len(splits) > 1:
        raise StudyError("source_record", f"{path}: a study has two patients or two splits")
    if _split_word(rows[0]) not in _SPLIT_OF_WORD:
        raise StudyError("source_record", f"{path}: a split is none of train, val and test")


def _split_word(row: _Row) -> str:
    return row.get("split", "").strip().lower()


def _sortable_date(path: Path, row: _Row) -> str:
    """Return the date without hyphens, so that both forms sort together; "" for none."""
    date = row.get("date", "").strip()
    if date and not _DATE.match(date):
        message = f"{path}: a date is not of the form 2011-03-28, which sorts in time"
        raise StudyError("source_record", message)
    return date.replace("-", "")


def _notes(
    studies: Mapping[str, list[_Row]], columns: set[str], *, is_hashed: bool
) -> dict[str, str]:
    ids = "as in the file"
    if is_hashed:
        exposed = sum(_path_shows_patient(row) for rows in studies.values() for row in rows)
        ids = f"salted hashes; {exposed} image paths hold the patient's id"
    unread = sorted(columns - {*NEEDED, *OPTIONAL, *LABELS})
    return {"ids": ids, "columns not read": ", ".join(unread) or "none"}


def _path_shows_patient(row: _Row) -> bool:
    patient = row["patient_id"].strip()
    return bool(patient) and patient in row["image"]


def _rows(
    path: Path,
    studies: Mapping[str, list[_Row]],
    folder: Path,
    salt: bytes | None,
    *,
    has_labels: bool,
) -> Iterator[Study | Dropped]:
    for study, rows in studies.items():
        first = rows[0]
        patient = first["patient_id"].strip()
        listed = [
            StudyImage(folder / row["image"].strip(), view_of(row.get("view", ""))) for row in rows
        ]
        images = existing_images(listed)
        if not (study and patient):
            yield Dropped("no study or patient id")
        elif not images:
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
