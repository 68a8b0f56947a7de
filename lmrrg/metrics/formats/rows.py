"""Read the rows of a file of reports, whatever its form; which of its columns count comes later."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lmrrg.csv_file import NOT_TEXT, CSVFileError, csv_rows, text_encoding
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.formats.columns import (
    ID_COLUMNS,
    LINE,
    TABLE_COLUMNS,
    OwnColumns,
    is_known,
    plain_row,
)
from lmrrg.metrics.formats.json_tables import RepeatedKeyError, json_table, load_json

Row = Mapping[str, object]
_CSV_CODES = {"csv_columns": "missing_column", "csv_not_text": "not_text"}


@dataclass(frozen=True)
class Table:
    """The rows of a file, with plain column names."""

    rows: list[dict[str, object]]
    has_ids: bool
    """Whether each row must have an id; otherwise rows are matched by their position."""


def read_table(path: Path, split: str, own: OwnColumns) -> Table:
    """Read all rows of a file.

    Args:
        path: the file.
        split: the list that counts in R2Gen's annotation.json.
        own: the file's own names of columns, where it has others.

    Raises:
        MetricError: ``file_missing``, ``not_a_file``, ``unknown_format`` (by the suffix),
            ``no_rows``, ``not_text`` (not UTF-8), ``missing_column``, ``missing_text`` (a short row
            of a table), ``bad_row`` (not CSV or JSON, or cells that do not fit the header),
            ``length_mismatch`` (JSON lists of different lengths) or ``duplicate_id`` (a JSON object
            with a key twice).
    """
    if path.is_dir():
        raise MetricError("not_a_file", f"{path} is a directory, not a file of reports")
    if not path.is_file():
        raise MetricError("file_missing", f"{path} does not exist")
    reader = _reader(path)
    try:
        rows = [plain_row(row) for row in reader(path, split)]
    except UnicodeDecodeError as error:
        raise MetricError("not_text", f"{path} {NOT_TEXT}") from error
    if not rows:
        raise MetricError("no_rows", f"{path} has no reports")
    # Rows with a column that is no text may have ids under an unknown name: matching them by their
    # position could pair the wrong reports.
    has_ids = not all(_has_only_texts(row, own) for row in rows)
    return Table(rows, has_ids=has_ids)


def _has_only_texts(row: Mapping[str, object], own: OwnColumns) -> bool:
    ids = (*ID_COLUMNS, own.id)
    return all(name not in ids and (name in own.texts or is_known(name)) for name in row)


def _reader(path: Path) -> Callable[[Path, str], Iterable[Row]]:
    """Return the function that reads a file with this suffix."""
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _csv_table
        case ".jsonl" | ".ndjson":
            return _jsonl_table
        case ".json":
            return _json_file
        case ".txt" | ".tok" | "":
            return _line_table
    raise MetricError(
        "unknown_format",
        f"{path} must be a .csv, .tsv, .json, .jsonl (or .ndjson), or a .txt or .tok (or a name "
        "without suffix) with one report per line",
    )


def _csv_table(path: Path, split: str) -> Iterable[Row]:
    try:
        yield from csv_rows(path, (), TABLE_COLUMNS)
    except CSVFileError as error:
        message = error.args[1]
        if any(column.strip().lower() == "report" for column in error.columns_without_cell):
            raise MetricError("missing_text", f"{message}: the report is missing") from error
        raise MetricError(_CSV_CODES.get(error.code, "bad_row"), message) from error


def _jsonl_table(path: Path, split: str) -> Iterable[Row]:
    return _json_lines(path, _decoded(path))


def _json_file(path: Path, split: str) -> Iterable[Row]:
    text = _decoded(path)
    try:
        content = load_json(text)
    except RepeatedKeyError as error:
        raise MetricError("duplicate_id", f"{path} has the same key twice") from error
    except (ValueError, RecursionError) as error:
        # Many write one object per line under the name .json.
        if text.lstrip().startswith("{") and "\n" in text.strip():
            return _json_lines(path, text)
        raise MetricError("bad_row", f"{path} is not JSON") from error
    return json_table(path, content, split)


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    # StringIO ends lines at \n, \r and \r\n only; `splitlines` would also split at other breaks,
    # which JSON allows inside of a string.
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            record = load_json(line)
        except (ValueError, RecursionError) as error:
            raise MetricError("bad_row", f"{path}:{number} is not JSON") from error
        if not isinstance(record, dict):
            raise MetricError(
                "missing_column", f"{path}:{number} must be an object with an id and a report"
            )
        yield record


def _line_table(path: Path, split: str) -> Iterable[Row]:
    # Not `splitlines`: it would also split a report at a form feed or another Unicode line break.
    text = _decoded(path).replace("\r\n", "\n")
    lines = text.removesuffix("\n").split("\n") if text else []
    return [{LINE: line} for line in lines]


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    return content.decode(text_encoding(content[:4]))
