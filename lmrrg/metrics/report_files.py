"""Read reports from CSV, JSONL or plain text, and match the reports of two files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lmrrg.csv_file import CSVFileError, csv_rows
from lmrrg.metrics.errors import MetricError, some_studies
from lmrrg.metrics.parts import is_empty

ID = "study_id"
REPORT = "report"
# What programs write into a table where there was no text. An empty cell is an empty report.
_NULLS = frozenset({"nan", "null", "none", "<na>", "n/a"})
_CSV_CODES = {"csv_columns": "missing_column", "csv_not_text": "not_text"}


@dataclass(frozen=True)
class ReportFile:
    """The reports of one file, in its order; ``study_ids`` is None for plain text."""

    path: Path
    reports: tuple[str, ...]
    study_ids: tuple[str, ...] | None


@dataclass(frozen=True)
class ReportPairs:
    """Matched reports of two files, in the order of the references."""

    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    study_ids: tuple[str, ...]


def read_reports(path: Path) -> ReportFile:
    """Read a file of reports.

    A .csv, .jsonl or .ndjson has ``study_id`` and ``report``; a .txt, or a file without a suffix,
    has one report per line. An empty report is kept; the caller decides whether it is allowed.

    Raises:
        MetricError: ``file_missing``, ``not_a_file``, ``unknown_format`` (by the suffix),
            ``no_rows``, ``not_text`` (not UTF-8), ``missing_column``, ``bad_row`` (not CSV or JSON,
            or cells that do not fit the header), ``missing_id``, ``missing_text`` (NaN or null) or
            ``duplicate_id``.
    """
    path = Path(path)
    if path.is_dir():
        raise MetricError("not_a_file", f"{path} is a directory, not a file of reports")
    if not path.is_file():
        raise MetricError("file_missing", f"{path} does not exist")
    reader = _reader(path)
    try:
        rows = list(reader(path))
    except UnicodeDecodeError as error:
        raise MetricError("not_text", f"{path} is not UTF-8 text") from error
    if not rows:
        raise MetricError("no_rows", f"{path} has no reports")
    reports = tuple(_text(report, path, row) for row, (_, report) in enumerate(rows, start=1))
    if reader is _line_rows:
        return ReportFile(path, reports, None)
    ids = tuple(_identifier(study, path, row) for row, (study, _) in enumerate(rows, start=1))
    twice = sorted(study for study, count in Counter(ids).items() if count > 1)
    if twice:
        raise MetricError("duplicate_id", f"{path} has more than one row for {some_studies(twice)}")
    return ReportFile(path, reports, ids)


def pair_reports(references: ReportFile, hypotheses: ReportFile) -> ReportPairs:
    """Match two files by study id where both have ids, else line by line.

    >>> truth = ReportFile(Path("truth.csv"), ("Clear.", "Effusion."), ("s1", "s2"))
    >>> mine = ReportFile(Path("mine.csv"), ("An effusion.", "Clear lungs."), ("s2", "s1"))
    >>> pair_reports(truth, mine).hypotheses
    ('Clear lungs.', 'An effusion.')

    Raises:
        MetricError: ``unmatched_id``, ``length_mismatch`` or ``empty_reference``.
    """
    if references.study_ids is not None and hypotheses.study_ids is not None:
        ids = references.study_ids
        by_id = dict(zip(hypotheses.study_ids, hypotheses.reports, strict=True))
        _check_same_ids(references, hypotheses)
        found = tuple(by_id[study] for study in ids)
    else:
        count = len(references.reports)
        if count != len(hypotheses.reports):
            counts = f"{count} reports, {hypotheses.path} {len(hypotheses.reports)}"
            why = "they are matched by position because a file has no study ids"
            raise MetricError("length_mismatch", f"{references.path} has {counts}, and {why}")
        line_numbers = tuple(str(row) for row in range(1, count + 1))
        ids = references.study_ids or hypotheses.study_ids or line_numbers
        found = hypotheses.reports
    empty = [study for study, text in zip(ids, references.reports, strict=True) if is_empty(text)]
    if empty:
        raise MetricError(
            "empty_reference", f"{references.path} has no reference text for {some_studies(empty)}"
        )
    return ReportPairs(references.reports, found, ids)


def _check_same_ids(references: ReportFile, hypotheses: ReportFile) -> None:
    """Refuse a study that is in only one of the files."""
    expected = set(references.study_ids or ())
    found = set(hypotheses.study_ids or ())
    for file, missing in ((hypotheses, expected - found), (references, found - expected)):
        if missing:
            raise MetricError(
                "unmatched_id", f"{file.path} has no row for {some_studies(sorted(missing))}"
            )


def _reader(path: Path) -> Callable[[Path], Iterable[tuple[object, object]]]:
    """Return the function that yields (study id, report) from a file with this suffix."""
    match path.suffix.lower():
        case ".csv":
            return _csv_rows
        case ".jsonl" | ".ndjson":
            return _jsonl_rows
        case ".txt" | "":
            return _line_rows
    raise MetricError(
        "unknown_format",
        f"{path} must be a .csv, a .jsonl (or .ndjson), or a .txt (or a name without suffix) "
        "with one report per line",
    )


def _csv_rows(path: Path) -> Iterable[tuple[object, object]]:
    try:
        for row in csv_rows(path, (ID, REPORT)):
            yield row[ID], row[REPORT]
    except CSVFileError as error:
        message = error.args[1]
        if REPORT in error.columns_without_cell:
            raise MetricError("missing_text", f"{message}: the report is missing") from error
        raise MetricError(_CSV_CODES.get(error.code, "bad_row"), message) from error


def _jsonl_rows(path: Path) -> Iterable[tuple[object, object]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise MetricError("bad_row", f"{path}:{number} is not JSON") from error
            if not isinstance(record, dict) or not {ID, REPORT} <= record.keys():
                raise MetricError(
                    "missing_column",
                    f"{path}:{number} must be an object with {ID!r} and {REPORT!r}",
                )
            yield record[ID], record[REPORT]


def _line_rows(path: Path) -> Iterable[tuple[object, object]]:
    # Not `splitlines`: it would also split a report at a form feed or another Unicode line break.
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    return [(None, line) for line in text.removesuffix("\n").split("\n")] if text else []


def _text(report: object, path: Path, row: int) -> str:
    """Return the report of a row, or refuse a missing one."""
    if not isinstance(report, str) or report.strip().lower() in _NULLS:
        raise MetricError("missing_text", f"{path}, row {row}: the report is missing (NaN or null)")
    return report


def _identifier(study: object, path: Path, row: int) -> str:
    """Return the study id of a row as text, or refuse a missing one."""
    # pandas writes whole numbers as floats in a column that has gaps.
    if isinstance(study, float) and study.is_integer():
        study = int(study)
    # A Python bool is an int, but `true` in JSON is no id.
    if isinstance(study, bool) or not isinstance(study, str | int):
        raise MetricError("missing_id", f"{path}, row {row}: the study id is missing")
    text = str(study).strip()
    if not text or text.lower() in _NULLS:
        raise MetricError("missing_id", f"{path}, row {row}: the study id is missing")
    return text
