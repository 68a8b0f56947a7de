"""Small helpers of the readers: CSV files, text, and image folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lmrrg.csv_file import CSVFileError, csv_rows
from lmrrg.studies import Split, StudyError

_SOURCE_CODES = {"csv_missing": "source_missing", "csv_columns": "source_columns"}
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


class Texts(NamedTuple):
    """The sections that a study keeps, in the order of its fields."""

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""


def read_csv(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of a data set: a CSV file with a header, plain or gzipped.

    Args:
        path: the table.
        columns: the columns that the reader of the data set needs.

    Raises:
        StudyError: ``source_missing``, ``source_columns`` (the header lacks a column) or
            ``source_csv`` (no UTF-8 text, no gzip archive, or a row that is shorter or longer than
            the header).
    """
    try:
        yield from csv_rows(path, columns)
    except CSVFileError as error:
        raise StudyError(_SOURCE_CODES.get(error.code, "source_csv"), error.args[1]) from error


def find_file(folder: Path, *names: str) -> Path:
    """The first of several file names that lies in a folder, plain or with ``.gz``.

    Raises:
        StudyError: ``source_missing``; the message names the first.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise StudyError("source_missing", f"{folder} has no {names[0]} (or {names[0]}.gz)")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StudyError: ``source_missing`` or ``source_json``.
    """
    if not path.is_file():
        raise StudyError("source_missing", f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError("source_json", f"{path} is not valid JSON: {error}") from error


def read_annotation(path: Path) -> dict[Split, list[Any]]:
    """The records of each split that an annotation file of R2Gen's form names: JSON, ``{"train": [...], ...}``.

    Raises:
        StudyError: ``source_missing``, ``source_json``, or ``source_record`` where it has no split or another form.
    """
    annotation = read_json(path)
    if not isinstance(annotation, dict) or not any(
        split in annotation for split in get_args(Split)
    ):
        raise StudyError("source_record", f"{path} has none of train, val and test")
    found = {split: annotation[split] for split in get_args(Split) if split in annotation}
    for split, records in found.items():
        if not isinstance(records, list):
            raise StudyError("source_record", f"{path}: {split} is no list of records")
    return found


def clean(text: str | None) -> str:
    """Text with single spaces and none at its ends."""
    return " ".join((text or "").split())


def image_stem(name: str) -> str:
    """A file name without any of its image suffixes: ``1_IM-0001-4001.dcm.png`` and ``.dcm.jpg`` are one image."""
    stem = name
    while Path(stem).suffix.lower() in _IMAGE_SUFFIXES:
        stem = Path(stem).stem
    return stem


def index_images(folder: Path) -> dict[str, Path]:
    """Image files below a folder by :func:`image_stem`; of two with one stem the first by name counts.

    Raises:
        StudyError: ``source_missing``.
    """
    if not folder.is_dir():
        raise StudyError("source_missing", f"{folder} is no folder of images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            found.setdefault(image_stem(path.name), path)
    return found
