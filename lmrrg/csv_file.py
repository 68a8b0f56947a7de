"""A strict reader of CSV files: every row has exactly the cells that the header announces."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmrrg.errors import CodedError

_SURPLUS = "cells beyond the header"
"""The key under which the standard library's reader puts the cells that no column names."""


class CSVFileError(CodedError):
    """A CSV file that cannot be used; ``code`` is stable, the message names the file.

    Attributes:
        columns_without_cell: the columns that a short row leaves without a cell; otherwise empty.
    """

    def __init__(self, code: str, message: str, columns_without_cell: tuple[str, ...] = ()):
        super().__init__(code, message)
        self.columns_without_cell = columns_without_cell


def csv_rows(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a header, in UTF-8, plain or gzipped (``.gz``).

    Cells may be of any length. Blank lines are skipped.

    Args:
        path: the file.
        columns: the columns that the header must have; it may have others, which are read as well.

    Raises:
        CSVFileError: ``csv_missing`` (no such file), ``csv_columns`` (the header lacks a column),
            ``csv_not_text`` (not UTF-8), ``csv_row`` (a row that is shorter or longer than the
            header) or ``csv_damaged`` (no gzip archive, or no table).
    """
    if not path.is_file():
        raise CSVFileError("csv_missing", f"{path} does not exist")
    # The standard library refuses cells of more than 131,072 characters; a report may be longer.
    # The limit holds for the whole process; nothing else in the project depends on it.
    csv.field_size_limit(sys.maxsize)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as binary:
            # "-sig": spreadsheets write a byte order mark, which would become part of the name of
            # the first column. newline="" leaves the line ends inside of quoted cells as they are.
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            reader = csv.DictReader(text, restkey=_SURPLUS)
            _check_header(path, reader, columns)
            for number, row in enumerate(reader, start=1):
                # The reader gives None to a column for which a short row has no cell.
                if _SURPLUS in row or None in row.values():
                    raise _row_error(f"{path}, row {number} (line {reader.line_num})", row)
                yield row
    except UnicodeDecodeError as error:
        raise CSVFileError("csv_not_text", f"{path} is not UTF-8 text: {error}") from error
    except (EOFError, OSError, csv.Error, zlib.error) as error:
        raise CSVFileError("csv_damaged", f"{path} cannot be read as CSV: {error}") from error


def _check_header(path: Path, reader: csv.DictReader[str], columns: Iterable[str]) -> None:
    missing = sorted(set(columns) - set(reader.fieldnames or ()))
    if missing:
        # What the first line has instead is not quoted: without a header it is a patient's row.
        raise CSVFileError("csv_columns", f"{path} lacks the columns {', '.join(missing)}")


def _row_error(where: str, row: dict[str, str]) -> CSVFileError:
    if _SURPLUS in row:
        why = "more cells than the header; quote texts that contain commas"
        return CSVFileError("csv_row", f"{where} has {why}")
    without_cell = tuple(column for column, cell in row.items() if cell is None)
    return CSVFileError("csv_row", f"{where} has fewer cells than the header", without_cell)
