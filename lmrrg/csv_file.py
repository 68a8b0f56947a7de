"""A strict reader of CSV files: every row has exactly the cells that the header announces."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from lmrrg.errors import CodedError

_SURPLUS = "cells beyond the header"
"""The key under which the standard library's reader puts the cells that no column names."""
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_ENCODINGS = (
    # The mark of UTF-32 begins with that of UTF-16, so the longer ones are tried first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What a header has and a report has not: study_id, StudyDate, "Accession Number", "Report Text".
_SIGN = re.compile(r"[a-z][A-Z]|[a-zA-Z]_[a-zA-Z]|(?i:accession|mrn|uid|text|path|file|\bid\b)")
# A single word, or words with such a sign; but neither "s1", "MRN-77" nor a date.
_WORD = re.compile(r"[^\W\d](?:[^\W\d]{1,29}|[^\W\d]{2,28}\d{1,2})")
_WORDS = re.compile(r"[^\W\d]{2,}(?:[\s()#-]+[^\W\d]+){0,3}\)?")
_MOST_NAMES = 30
NOT_TEXT = "is not UTF-8 text; save it as UTF-8 (a spreadsheet calls it 'CSV UTF-8')"
"""What error messages say about a file in another encoding."""


class CSVFileError(CodedError):
    """A CSV file that cannot be used; ``code`` is stable, the message names the file.

    Attributes:
        columns_without_cell: the columns that a short row leaves without a cell; otherwise empty.
    """

    def __init__(self, code: str, message: str, columns_without_cell: tuple[str, ...] = ()):
        super().__init__(code, message)
        self.columns_without_cell = columns_without_cell


def csv_rows(
    path: Path, columns: Iterable[str], optional: Iterable[str] = ()
) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a header, plain or gzipped (``.gz``).

    The text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. Cells are separated by commas,
    or by semicolons or tabs where the header is. Cells may be of any length. Blank lines are
    skipped, and so is the line ``sep=;`` that some spreadsheets write first.

    Args:
        path: the file.
        columns: the columns that the header must have; it may have others, which are read as well.
            A name in the header may differ in upper and lower case and have blanks around it; the
            rows have the names of ``columns``.
        optional: further names that are spelled so in the rows, where the header has them.

    Raises:
        CSVFileError: ``csv_missing`` (no such file), ``csv_columns`` (the header lacks a column, or
            has one of them twice), ``csv_not_text`` (not UTF-8), ``csv_row`` (a row that is shorter
            or longer than the header) or ``csv_damaged`` (no gzip archive, or no table).
    """
    if not path.is_file():
        raise CSVFileError("csv_missing", f"{path} does not exist")
    # The standard library refuses cells of more than 131,072 characters; a report may be longer.
    # The limit holds for the whole process; nothing else in the project depends on it.
    csv.field_size_limit(sys.maxsize)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as binary:
            wanted = frozenset(columns)
            yield from _rows(path, binary, wanted, frozenset(optional))  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        raise CSVFileError("csv_not_text", f"{path} {NOT_TEXT}") from error
    except (EOFError, OSError, csv.Error, zlib.error) as error:
        raise CSVFileError("csv_damaged", f"{path} cannot be read as CSV: {error}") from error


def text_encoding(start: bytes) -> str:
    """Return the encoding of a text that begins with ``start``: UTF-8 unless a mark says else.

    >>> text_encoding("study_id".encode("utf-16")), text_encoding(b"study_id")
    ('utf-16', 'utf-8-sig')
    """
    for mark, encoding in _ENCODINGS:
        if start.startswith(mark):
            return encoding
    # "-sig": spreadsheets write a byte order mark, which would become part of the name of the
    # first column.
    return "utf-8-sig"


def columns_sentence(names: Iterable[str]) -> str:
    """Return what an error message says about the columns that a table has.

    They are named only where they look like names: the first line of a table without a header is a
    row of a patient, which no message may quote.

    >>> columns_sentence(["AccessionNumber", "Report Text", ""])
    'it has AccessionNumber, Report Text'
    >>> columns_sentence(["study_id", "No effusion"])
    'it has study_id and 1 that is not shown'
    >>> columns_sentence(["s1", "No effusion"])
    'its first line may be no header and is not shown'
    """
    present = [name.strip() for name in names if name.strip()]
    if not any(map(_is_sign, present)):
        return "its first line may be no header and is not shown"
    shown = [name for name in present if _WORD.fullmatch(name) or _is_sign(name)][:_MOST_NAMES]
    hidden = len(present) - len(shown)
    more = f" and {hidden} that {'is' if hidden == 1 else 'are'} not shown" if hidden else ""
    return f"it has {', '.join(shown)}{more}"


def _is_sign(name: str) -> bool:
    return len(name) <= 30 and bool(_SIGN.search(name) and _WORDS.fullmatch(name))


def _rows(
    path: Path, binary: BinaryIO, columns: frozenset[str], optional: frozenset[str]
) -> Iterator[dict[str, str]]:
    encoding = text_encoding(binary.read(4))
    binary.seek(0)
    # newline="" leaves the line ends inside of quoted cells as they are.
    text = io.TextIOWrapper(binary, encoding=encoding, newline="")
    header, skipped = _header_line(text)
    delimiter = _delimiter(header, columns)
    reader = csv.DictReader(chain([header], text), restkey=_SURPLUS, delimiter=delimiter)
    names = list(reader.fieldnames or ())
    reader.fieldnames = _renamed(names, columns | optional)
    _check_header(path, reader.fieldnames, columns, optional)
    for number, row in enumerate(reader, start=1):
        # The reader gives None to a column for which a short row has no cell.
        if _SURPLUS in row or None in row.values():
            where = f"{path}, row {number} (line {skipped + reader.line_num})"
            raise _row_error(where, row, _DELIMITERS[delimiter])
        yield row


def _header_line(text: Iterable[str]) -> tuple[str, int]:
    """Return the first line that names columns, and how many lines precede it."""
    skipped = 0
    for line in text:
        hint = line.strip().lower()
        if hint and not (hint.startswith("sep=") and len(hint) <= len("sep=;")):
            return line, skipped
        skipped += 1
    return "", skipped


def _delimiter(header: str, columns: frozenset[str]) -> str:
    """Return what separates the cells of a header: a comma unless another gives more cells."""
    cells = {each: next(csv.reader([header], delimiter=each), []) for each in _DELIMITERS}
    # A header with the wanted columns is separated by commas however many semicolons it has.
    if columns and columns <= set(_renamed(cells[","], columns)):
        return ","
    return max(cells, key=lambda each: len(cells[each]))


def _renamed(names: list[str], columns: frozenset[str]) -> list[str]:
    """Return the header with the spelling of ``columns`` where a name differs in case or blanks."""
    wanted = {_plain(column): column for column in columns}
    # A name that is right as it stands keeps another spelling of it from being taken, too.
    present = columns & set(names)
    result: list[str] = []
    for name in names:
        column = wanted.get(_plain(name), name)
        result.append(name if column in present else column)
    return result


def _plain(name: str) -> str:
    # Two programs may each have written a byte order mark.
    return name.strip().strip("\ufeff").casefold()


def _check_header(
    path: Path, names: list[str], columns: frozenset[str], optional: frozenset[str]
) -> None:
    missing = sorted(columns - set(names))
    if missing:
        lacks = f"{path} lacks the columns {', '.join(missing)}"
        raise CSVFileError("csv_columns", f"{lacks}; {columns_sentence(names)}")
    # The reader would keep the last of them in silence.
    twice = sorted(name for name in columns | optional if names.count(name) > 1)
    if twice:
        raise CSVFileError("csv_columns", f"{path} has the column {twice[0]} twice")


def _row_error(where: str, row: dict[str, str], separators: str) -> CSVFileError:
    if _SURPLUS in row:
        why = f"more cells than the header; quote texts that contain {separators}"
        return CSVFileError("csv_row", f"{where} has {why}")
    without_cell = tuple(column for column, cell in row.items() if cell is None)
    return CSVFileError("csv_row", f"{where} has fewer cells than the header", without_cell)
