"""Small helpers of the readers: CSV files, text, and image folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from lmrrg.studies import StudyError

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


def read_csv(path: Path, columns: set[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header.

    Raises:
        StudyError: ``source_missing`` or ``source_columns``.
    """
    if not path.is_file():
        raise StudyError("source_missing", f"{path} does not exist")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = sorted(columns - set(reader.fieldnames or ()))
        if missing:
            raise StudyError("source_columns", f"{path} lacks the columns {', '.join(missing)}")
        return list(reader)


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
