"""The CSV reader takes a table whole or refuses it by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrrg.csv_file import CSVFileError, csv_rows
from tests.support.trees import table


def read(path: Path, *columns: str) -> list[dict[str, str]]:
    return list(csv_rows(path, columns))


def error_of(path: Path, *columns: str) -> CSVFileError:
    with pytest.raises(CSVFileError) as caught:
        read(path, *columns)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_rows_come_back_as_written(tmp_path: Path, name: str) -> None:
    path = table(tmp_path / name, ["id", "report"], [["1", 'Clear,\n"no" effusion.'], ["2", ""]])
    rows = [{"id": "1", "report": 'Clear,\n"no" effusion.'}, {"id": "2", "report": ""}]
    assert read(path, "id") == rows


def test_cells_may_be_of_any_length(tmp_path: Path) -> None:
    report = "Lungs clear. " * 50_000
    path = table(tmp_path / "a.csv", ["id", "report"], [["1", report]])
    assert read(path)[0]["report"] == report


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfid,report\r\n1,clear\r\n")
    assert read(path, "id", "report") == [{"id": "1", "report": "clear"}]


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,report\n\n1,clear\n\n")
    assert read(path) == [{"id": "1", "report": "clear"}]


def test_a_table_without_rows_is_read(tmp_path: Path) -> None:
    assert read(table(tmp_path / "a.csv", ["id"], []), "id") == []


def truncated(content: bytes) -> bytes:
    return gzip.compress(content)[:-12]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.csv", b"", "csv_columns"),
        ("a.csv", b"id,text\n1,clear\n", "csv_columns"),
        ("a.csv", b"id,report\n1\n", "csv_row"),
        ("a.csv", b"id,report\n1,clear, no effusion\n", "csv_row"),
        ("a.csv", b"id,report\n1,\xff\xfe\n", "csv_not_text"),
        ("a.csv.gz", b"id,report\n1,clear\n", "csv_damaged"),
        ("a.csv.gz", truncated(b"id,report\n1,clear\n"), "csv_damaged"),
    ],
)
def test_what_is_refused_has_a_code(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert error_of(tmp_path / name, "id", "report").code == code


def test_an_absent_file_has_a_code(tmp_path: Path) -> None:
    assert error_of(tmp_path / "a.csv").code == "csv_missing"
    assert error_of(tmp_path).code == "csv_missing"


def test_a_short_row_names_its_place_and_its_missing_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,report,age,sex\n1,"two\nlines",60,F\n2,clear\n')
    error = error_of(path)
    assert error.columns_without_cell == ("age", "sex")
    assert "row 2 (line 4)" in str(error)


def test_a_file_without_header_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("MRN-77,Jane Roe\nMRN-78,John Roe\n")
    assert "Roe" not in str(error_of(path, "id"))


CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@given(rows=st.lists(st.tuples(CELLS, CELLS)))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = table(tmp_path_factory.mktemp("csv") / "a.csv", ["id", "report"], rows)
    assert [(row["id"], row["report"]) for row in read(path)] == rows


def test_a_second_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfid,text\n1,Clear.\n")
    assert list(csv_rows(path, ["id"])) == [{"id": "1", "text": "Clear."}]
