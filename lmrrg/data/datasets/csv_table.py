"""Any CSV file of studies: the door for a hospital's own export."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.privacy import hashed_id, salt_from_environment, scrub
from lmrrg.data.sections import parse_sections
from lmrrg.data.source import Dropped, Source, label_value
from lmrrg.data.tables import Texts, clean, read_csv
from lmrrg.studies import LABELS, Split, Study, StudyError, StudyImage
from lmrrg.views import frontal_first, view_of

NEEDED = ("study_id", "patient_id", "image")
OPTIONAL = ("view", "date", "split", "report", *Texts._fields)
_SPLITS: dict[str, Split | None] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "test": "test",
    "": None,
}
_DATE = re.compile(r"\d{4}(-?)\d{2}\1\d{2}(?!\d)")


def read_csv_table(path: Path, data: DataConfig) -> Source:
    """Read a CSV file with a header, one image per row.

    Needed columns are :data:`NEEDED`: rows of one ``study_id`` make a study, with the texts of the first. Optional are
    :data:`OPTIONAL` and the 14 classes (1, 0, -1, blank). A ``report`` is cut into sections; a column of a section's
    own name goes before it. ``date`` is any text that sorts in time (2011-03-28 09:06). Other columns are not read.

    With ``data.ids`` "hashed" (default) study and patient ids become salted hashes, and text in the shape of an
    identifier becomes ``___`` (:mod:`lmrrg.data.privacy`). Image paths stay, since the files must be found: rows whose
    path holds the patient's id are counted in the notes.

    Args:
        path: the CSV file.
        data: ``images``: the folder that image paths start from, by default the file's.

    Raises:
        StudyError: ``salt_missing``, a missing column, ``source_record`` (a study of two patients or splits, an
            unknown split, a date that does not sort), ``labels_value``.
    """
    salt = salt_from_environment() if data.ids == "hashed" else None
    studies: dict[str, list[dict[str, str]]] = {}
    present: set[str] = set()
    for row in read_csv(path, NEEDED):
        present = present or set(row)
        studies.setdefault(row["study_id"].strip(), []).append(row)
    if not present & {"report", "findings", "impression"}:
        raise StudyError(
            "source_columns", f"{path} needs one of the columns report, findings and impression"
        )
    for images in studies.values():
        _check_study(path, images)
    exposed = sum(_shows_patient(row) for images in studies.values() for row in images)
    notes = {
        "ids": f"salted hashes; {exposed} image paths hold the patient's id"
        if salt
        else "as in the file",
        "columns not read": ", ".join(sorted(present - {*NEEDED, *OPTIONAL, *LABELS})) or "none",
    }
    id_of = partial(_id, salt, "study")
    taken = {
        id_of(study): date for study, images in studies.items() if (date := _date(path, images[0]))
    }
    rows = _rows(path, studies, data.images or path.parent, salt, bool(present & set(LABELS)))
    return Source("csv", rows, total=len(studies), taken=taken, notes=notes, id_of=id_of)


def _rows(
    path: Path,
    studies: Mapping[str, list[dict[str, str]]],
    images: Path,
    salt: bytes | None,
    labelled: bool,
) -> Iterator[Study | Dropped]:
    for study, rows in studies.items():
        found = frontal_first(
            StudyImage(file, view_of(row.get("view", "")))
            for row in rows
            if (file := images / row["image"].strip()).is_file()
        )
        first = rows[0]
        if not (study and first["patient_id"].strip()):
            yield Dropped("no study or patient id")
        elif not found:
            yield Dropped("no image file")
        else:
            yield Study(
                _id(salt, "study", study),
                _id(salt, "patient", first["patient_id"].strip()),
                found,
                *_texts(first, bool(salt)),
                labels=_labels(path, first) if labelled else None,
                split=_SPLITS[first.get("split", "").strip().lower()],
                source="csv",
            )


def _texts(row: Mapping[str, str], private: bool) -> Texts:
    report = parse_sections(row.get("report", ""))
    parsed = (
        report.findings,
        report.impression,
        report.indication or report.history,
        report.comparison,
    )
    texts = [clean(row.get(name)) or text for name, text in zip(Texts._fields, parsed, strict=True)]
    return Texts(
        *(scrub(text, row["patient_id"], row["study_id"]) for text in texts) if private else texts
    )


def _shows_patient(row: Mapping[str, str]) -> bool:
    patient = row["patient_id"].strip()
    return bool(patient) and patient in row["image"]


def _date(path: Path, row: Mapping[str, str]) -> str:
    """As digits, which sort in time; "" for none."""
    date = row.get("date", "").strip()
    if date and not _DATE.match(date):
        raise StudyError(
            "source_record", f"{path}: a date is not of the form 2011-03-28, which sorts in time"
        )
    return date.replace("-", "")


def _check_study(path: Path, rows: list[dict[str, str]]) -> None:
    if (
        len({row["patient_id"].strip() for row in rows}) > 1
        or len({row.get("split", "") for row in rows}) > 1
    ):
        raise StudyError("source_record", f"{path}: a study has two patients or two splits")
    if rows[0].get("split", "").strip().lower() not in _SPLITS:
        raise StudyError("source_record", f"{path}: a split is none of train, val and test")


def _labels(path: Path, row: Mapping[str, str]) -> dict[str, int]:
    return {
        label: label_value(row[label], f"{path}: {label}")
        for label in LABELS
        if row.get(label, "").strip()
    }


def _id(salt: bytes | None, kind: str, value: str) -> str:
    return hashed_id(salt, kind, value) if salt else value
