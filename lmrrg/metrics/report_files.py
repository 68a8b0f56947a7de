"""Read reports from tables, JSON or plain text, and match the reports of two files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmrrg.csv_file import columns_sentence
from lmrrg.metrics.errors import MetricError, some_studies
from lmrrg.metrics.formats.columns import (
    ID_COLUMNS,
    TEXT_COLUMNS,
    OwnColumns,
    Side,
    is_placeholder,
    whole_characters,
)
from lmrrg.metrics.formats.identifiers import identifier, spelling_hint
from lmrrg.metrics.formats.rows import Table, read_table
from lmrrg.metrics.parts import is_empty

_OURS = OwnColumns()


@dataclass(frozen=True)
class ReportFile:
    """The reports of one file, in its order; ``study_ids`` is None where it has no ids."""

    path: Path
    reports: tuple[str, ...]
    study_ids: tuple[str, ...] | None
    columns: tuple[str, ...] = ("report",)
    """The columns that the reports come from; two are joined to one text."""


@dataclass(frozen=True)
class ReportPairs:
    """Matched reports of two files, in the order of the references."""

    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    study_ids: tuple[str, ...]


def read_reports(path: Path, side: Side = "references", own: OwnColumns = _OURS) -> ReportFile:
    """Read one side from a file of reports; ``own`` are its names of columns, if not ours.

    A .csv, .tsv, .jsonl, .ndjson or .json has an id (``study_id`` or ``id``) and a text in each
    row; a .txt or .tok, or a file without a suffix, has one report per line. A file may hold both
    sides, as ``reference`` and ``report``. An empty report is kept; the caller decides whether it
    is allowed. Of R2Gen's annotation.json the list "test" counts.

    Raises:
        MetricError: the codes of :func:`lmrrg.metrics.formats.rows.read_table`, and
            ``missing_column``, ``missing_id``, ``missing_text`` (NaN, null or another placeholder)
            or ``duplicate_id``.
    """
    path = Path(path)
    table = read_table(path, "test", own)
    file = _report_file(path, table, side, own)
    repeated = Counter(file.study_ids or ())
    twice = sorted(study for study, count in repeated.items() if count > 1)
    if twice:
        raise MetricError("duplicate_id", f"{path} has more than one row for {some_studies(twice)}")
    return file


def read_training_reports(path: Path, own: OwnColumns = _OURS) -> tuple[str, ...]:
    """Read the reports whose words are a vocabulary.

    An id may occur more than once and every row counts, as in R2Gen's list of images. Of its
    annotation.json the list "train" is read.

    Raises:
        MetricError: see :func:`read_reports`.
    """
    path = Path(path)
    table = read_table(path, "train", own)
    if own.reference not in table.rows[0]:
        own = _OURS
    return _report_file(path, table, "references", own).reports


def read_pairs(path: Path, own: OwnColumns = _OURS) -> ReportPairs:
    """Read both sides from one file.

    Raises:
        MetricError: ``one_side`` where each row has a single text, and the codes of
            :func:`read_reports` and :func:`pair_reports`.
    """
    references = read_reports(path, "references", own)
    hypotheses = read_reports(path, "hypotheses", own)
    # A side compared with itself would be perfect.
    if references.columns == hypotheses.columns:
        raise MetricError(
            "one_side", f"{path} has one text in each row; give references and hypotheses"
        )
    return pair_reports(references, hypotheses)


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
    for file, other, missing, surplus in (
        (hypotheses, references, expected - found, found - expected),
        (references, hypotheses, found - expected, expected - found),
    ):
        if missing:
            hint = spelling_hint(missing, surplus, other.path)
            raise MetricError(
                "unmatched_id", f"{file.path} has no row for {some_studies(sorted(missing))}{hint}"
            )


def _report_file(path: Path, table: Table, side: Side, own: OwnColumns) -> ReportFile:
    columns = _text_columns(path, table.rows[0], side, own.text(side))
    id_columns = (own.id, *ID_COLUMNS) if own.id else ID_COLUMNS
    reports: list[str] = []
    ids: list[str] = []
    for number, row in enumerate(table.rows, start=1):
        where = f"{path}, row {number}"
        reports.append(_text(row, columns, where))
        if table.has_ids:
            ids.append(_identifier(row, id_columns, where))
    return ReportFile(path, tuple(reports), tuple(ids) if table.has_ids else None, columns)


def _text_columns(
    path: Path, first: Mapping[str, object], side: Side, own: str | None
) -> tuple[str, ...]:
    """Return the columns of a side's text: the first of the known ones that the file has."""
    if own is not None:
        if own in first:
            return (own,)
        raise MetricError(
            "missing_column", f"{path} lacks the column {own!r}; {columns_sentence(first)}"
        )
    for columns in TEXT_COLUMNS[side]:
        if not first.keys().isdisjoint(columns):
            return columns
    raise MetricError(
        "missing_column",
        f"{path} lacks the column 'report'; {columns_sentence(first)}; name the text with "
        "--text-column (reports without ids can be a .txt with one report per line)",
    )


def _text(row: Mapping[str, object], columns: tuple[str, ...], where: str) -> str:
    """Return the report of a row, or refuse a missing one."""
    if row.keys().isdisjoint(columns):
        raise MetricError("missing_column", f"{where} lacks {columns[0]!r}")
    texts = [row[column] for column in columns if column in row]
    present = [text for text in texts if isinstance(text, str) and not is_placeholder(text)]
    if not present:
        raise MetricError("missing_text", f"{where}: the report is missing (NaN or null)")
    # Of findings and impression one may be empty; a single column is taken as it stands.
    whole = present[0] if len(columns) == 1 else " ".join(filter(None, map(str.strip, present)))
    return whole_characters(whole)


def _identifier(row: Mapping[str, object], id_columns: Sequence[str], where: str) -> str:
    """Return the study id of a row, or refuse a missing one."""
    for column in id_columns:
        if column not in row:
            continue
        study = identifier(row[column])
        if study is None:
            raise MetricError("missing_id", f"{where}: the study id is missing")
        return study
    raise MetricError(
        "missing_column",
        f"{where} lacks {id_columns[0]!r}; {columns_sentence(row)}; name the id with --id-column",
    )
