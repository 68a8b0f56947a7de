"""What the readers of data sets share: tables, JSON files, texts and folders of images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lmrrg.csv_file import CSVFileError, csv_rows
from lmrrg.data.placeholders import without_placeholder
from lmrrg.data.source import Dropped
from lmrrg.studies import Split, StudyError, StudyImage
from lmrrg.views import frontal_first

_SOURCE_CODES = {"csv_missing": "source_missing", "csv_columns": "source_columns"}
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
# "a.png" or "IM0001": without blanks, and with a suffix or a digit.
_FILE_NAME = re.compile(r"(?=.{1,100}$)\S*(?:\.(?:png|jpe?g|dcm|dicom)|\d\S*)", re.IGNORECASE)


class Texts(NamedTuple):
    """The report sections that a study keeps, in the order of :class:`~lmrrg.studies.Study`."""

    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""


def read_csv(
    path: Path, columns: Iterable[str], optional: Iterable[str] = ()
) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of a data set: a CSV file with a header, plain or gzipped.

    Args:
        path: the table.
        columns: the columns that the reader of the data set needs.
        optional: those that it reads where the table has them.

    Raises:
        StudyError: ``source_missing``, ``source_columns`` (the header lacks a column, or has one
            twice) or ``source_csv`` (no UTF-8 text, no gzip archive, or a row that is shorter or
            longer than the header).
    """
    try:
        yield from csv_rows(path, columns, optional)
    except CSVFileError as error:
        raise StudyError(_SOURCE_CODES.get(error.code, "source_csv"), error.args[1]) from error


def find_file(folder: Path, *names: str) -> Path:
    """Return the first of several files that is in a folder, plain or with ``.gz``.

    Raises:
        StudyError: ``source_missing``; the message names the first.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise StudyError("source_missing", f"{folder} has no {names[0]} (or {names[0]}.gz)")


def read_json(path: Path) -> Any:
    """Read a JSON file; NaN and infinities, which are no JSON, become ``None``.

    Raises:
        StudyError: ``source_missing`` or ``source_json``.
    """
    if not path.is_file():
        raise StudyError("source_missing", f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except ValueError as error:
        raise StudyError("source_json", f"{path} is not valid JSON: {error}") from error


def read_annotation(path: Path) -> dict[Split, list[Any]]:
    """Read the records of each split from an annotation file in R2Gen's form.

    The form is JSON, ``{"train": [...], "val": [...], "test": [...]}``; splits may be absent.

    Raises:
        StudyError: ``source_missing``, ``source_json``, or ``source_record`` (no split, or a split
            that is no list).
    """
    annotation = read_json(path)
    if not isinstance(annotation, dict):
        annotation = {}
    found = {split: annotation[split] for split in get_args(Split) if split in annotation}
    if not found:
        raise StudyError("source_record", f"{path} has none of train, val and test")
    for split, records in found.items():
        if not isinstance(records, list):
            raise StudyError("source_record", f"{path}: {split} is no list of records")
    return found


def clean(text: str | None) -> str:
    """Return a text with single spaces and none at its ends; "" for a placeholder.

    >>> clean(" The lungs\\n are clear. "), clean("NaN")
    ('The lungs are clear.', '')
    """
    return without_placeholder(" ".join((text or "").split()))


def differing_rows(
    studies: Iterable[Iterable[tuple[str, ...]]], which_counts: str
) -> dict[str, str]:
    """Return a note on the studies whose rows hold different texts; none where there are none.

    Args:
        studies: the texts of every row, by study.
        which_counts: the row whose texts are used, in words.
    """
    count = sum(len(set(texts)) > 1 for texts in studies)
    if not count:
        return {}
    return {"rows of one study with other texts": f"{count} studies; {which_counts} counts"}


def image_stem(name: str) -> str:
    """Return a file name without any of its image suffixes.

    Editions of one data set differ in their suffixes only:

    >>> image_stem("1_IM-0001-4001.dcm.png"), image_stem("1_IM-0001-4001.jpg")
    ('1_IM-0001-4001', '1_IM-0001-4001')
    """
    stem = name
    while Path(stem).suffix.lower() in _IMAGE_SUFFIXES:
        stem = Path(stem).stem
    return stem


def index_images(folder: Path) -> dict[str, Path]:
    """Return the image files below a folder by :func:`image_stem`.

    Of several files with one stem, the first by path is taken.

    Raises:
        StudyError: ``source_missing``.
    """
    if not folder.is_dir():
        raise StudyError("source_missing", f"{folder} is no folder of images")
    found: dict[str, Path] = {}
    # Sorted: the file system lists files in any order, and an import must not depend on it.
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            found.setdefault(image_stem(path.name), path)
    return found


def first_file(paths: Iterable[Path]) -> Path | None:
    """Return the first path that is a file; ``None`` if none is."""
    return next((path for path in paths if is_file(path)), None)


def is_file(path: Path) -> bool:
    """Return whether a path of a table is that of a file; False also for what can be no path.

    A report that stands in the column of images is too long for a name, and the system's error
    would quote it.
    """
    try:
        return path.is_file()
    except OSError:
        return False


def no_image_file(listed: Iterable[StudyImage]) -> Dropped:
    """Return why a row without any image file makes no study, with the first path looked for."""
    first = next(iter(listed), None)
    return Dropped("no image file", example=_shown_path(first.path) if first else "")


def _shown_path(path: Path) -> str:
    """Return a path for people; of one whose name may be a text from a shifted column, the folder.

    >>> _shown_path(Path("films/IM0001")), _shown_path(Path("films/No effusion."))
    ('films/IM0001', 'films/(a name that is not shown)')
    """
    if _FILE_NAME.fullmatch(path.name):
        return str(path)
    return f"{path.parent}/(a name that is not shown)"


def existing_images(images: Iterable[StudyImage]) -> tuple[StudyImage, ...]:
    """Return those images whose file exists, with the lateral views last."""
    return frontal_first(image for image in images if is_file(image.path))
