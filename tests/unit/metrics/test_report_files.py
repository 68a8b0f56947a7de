"""The forms of report files that people have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.formats.columns import OwnColumns
from lmrrg.metrics.report_files import (
    ReportFile,
    pair_reports,
    read_pairs,
    read_reports,
    read_training_reports,
)

TEXTS = ("Clear lungs.", "Small effusion; no edema.")
IDS = ("70000001", "70000002")
PAIRS = list(zip(IDS, TEXTS, strict=True))
ROWS = [{"study_id": study, "report": text} for study, text in PAIRS]


def written(tmp_path: Path, name: str, content: object, encoding: str = "utf-8") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_bytes(text.encode(encoding))
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", ROWS),
        ("a.json", dict(PAIRS)),
        ("a.json", {study: [text] for study, text in PAIRS}),
        ("a.json", {"study_id": IDS, "report": TEXTS}),
        ("a.json", {"study_id": dict(enumerate(IDS)), "report": dict(enumerate(TEXTS))}),
        ("a.json", {"predictions of a model": ROWS}),
        ("a.json", "\n".join(json.dumps(row) for row in ROWS)),
        ("a.jsonl", "\n".join(json.dumps({"ID": float(r["study_id"])} | r) for r in ROWS)),
        ("a.tsv", "study_id\treport\n" + "".join(f"{i}\t{t}\n" for i, t in PAIRS)),
        ("a.csv", "\n Study_ID , REPORT\n" + "".join(f"{i},{t}\n" for i, t in PAIRS)),
        ("a.csv", "study_id;report\n" + "".join(f'{i};"{t}"\n' for i, t in PAIRS)),
        ("a.csv", "sep=;\nid;report\n" + "".join(f'{i}.0;"{t}"\n' for i, t in PAIRS)),
    ],
)
def test_every_form_gives_the_same_reports(tmp_path: Path, name: str, content: object) -> None:
    file = read_reports(written(tmp_path, name, content))
    assert (file.study_ids, file.reports) == (IDS, TEXTS)


@pytest.mark.parametrize("name", ["a.txt", "a.tok", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_files_without_ids_in_every_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    lines = "\n".join(TEXTS)
    content: object = {"a.json": list(TEXTS), "a.csv": f"report\n{lines}"}.get(name, lines)
    file = read_reports(written(tmp_path, name, content, encoding))
    assert (file.study_ids, file.reports) == (None, TEXTS)


def test_another_encoding_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "study_id,report\n1,Überweisung\n", "cp1252")
    with pytest.raises(MetricError, match=r"not_text.*UTF-8"):
        read_reports(path)


PREDICTION = {"model_prediction": "Edema."}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"references": ["Clear."], "hypotheses": ["Edema."]}),
        ("a.jsonl", '{"id": "1", "report": "Edema.", "reference": "Clear."}'),
        ("a.csv", "study_id,report,hypothesis\n1,Clear.,Edema.\n"),
        ("a.json", {"1": {"findings": "nan", "impression": "Clear."} | PREDICTION}),
        ("a.json", {"1": {"section_findings": "Clear.", "section_impression": None} | PREDICTION}),
    ],
)
def test_one_file_with_both_sides(tmp_path: Path, name: str, content: object) -> None:
    pairs = read_pairs(written(tmp_path, name, content))
    assert (pairs.references, pairs.hypotheses) == (("Clear.",), ("Edema.",))


def test_findings_and_impression_are_joined(tmp_path: Path) -> None:
    row = {"findings": "Clear.", "impression": "Normal.", "model_prediction": "Edema."}
    assert read_pairs(written(tmp_path, "a.json", {"1": row})).references == ("Clear. Normal.",)


def test_one_side_is_not_compared_with_itself(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="one_side"):
        read_pairs(written(tmp_path, "a.json", ROWS))


@pytest.mark.parametrize("text", ["NaN", "None", "NULL", "n/A", "<NA>", r"\N", "-", " . "])
def test_placeholders_are_missing_reports(tmp_path: Path, text: str) -> None:
    for name, content in (("a.jsonl", {"study_id": "1", "report": text}), ("a.json", {"1": text})):
        with pytest.raises(MetricError, match="missing_text"):
            read_reports(written(tmp_path, name, content))


def test_half_characters_are_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", r'{"study_id": "\ud83d", "report": "An \ud83d effusion."}')
    file = read_reports(path)
    assert (file.study_ids, file.reports) == (("\ufffd",), ("An \ufffd effusion.",))


@pytest.mark.parametrize(
    ("written_as", "hint"),
    [
        ("s70000001", r"truth\.csv writes 70000001 where this file writes s70000001"),
        ("7.0000001e+07", r"truth\.csv writes 70000001 where this file writes 7\.0000001e\+07"),
        ("7E+07", "a spreadsheet has rounded the ids of this file"),
    ],
)
def test_ids_of_another_spelling_are_explained(tmp_path: Path, written_as: str, hint: str) -> None:
    truth = read_reports(written(tmp_path, "truth.csv", "study_id,report\n70000001,Clear.\n"))
    other = read_reports(written(tmp_path, "a.csv", f"study_id,report\n{written_as},Clear.\n"))
    with pytest.raises(MetricError, match=f"unmatched_id.*{hint}"):
        pair_reports(truth, other)


def test_training_reports_may_repeat_ids(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "study_id,report\n1,Clear.\n1,Clear.\n")
    assert read_training_reports(path) == ("Clear.", "Clear.")
    with pytest.raises(MetricError, match="duplicate_id"):
        read_reports(path)


def test_the_splits_of_an_annotation_file(tmp_path: Path) -> None:
    splits = {name: [{"id": "1", "report": f"{name}."}] for name in ("train", "val", "test")}
    path = written(tmp_path, "annotation.json", splits)
    assert read_training_reports(path) == ("train.",)
    assert read_reports(path).reports == ("test.",)


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="duplicate_id"):
        read_reports(written(tmp_path, "a.json", '{"1": "Clear.", "1": "Edema."}'))


CANARY = "Canary effusion of Jane Roe"
SCALARS = st.sampled_from([None, 1, 1.5, True, float("nan"), CANARY, "s1", "", "-"])
KEYS = st.sampled_from(["study_id", "report", "train", "reference", "findings", CANARY, "x"])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
CELLS = st.sampled_from([CANARY, "study_id", "report", ",", ";", "\t", "\n", '"', "1", "\0", "-"])


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    tree=TREES,
    table=st.lists(CELLS, max_size=12).map("".join),
    name=st.sampled_from(["a.json", "a.jsonl", "a.csv", "a.tsv", "a.txt"]),
    cut=st.integers(0, 60),
)
def test_no_error_quotes_a_report(
    tmp_path: Path, tree: object, table: str, name: str, cut: int
) -> None:
    content = json.dumps(tree) if "json" in name else table
    good = read_reports(written(tmp_path, "good.csv", "study_id,report\n1,Clear.\n"))
    for text in (content, content[:cut]):
        message = error_of(good, written(tmp_path, name, text))
        assert "Canary" not in message
        assert "Roe" not in message


def error_of(good: ReportFile, path: Path) -> str:
    try:
        pair_reports(good, read_reports(path))
    except MetricError as error:
        return str(error)
    return ""


def test_own_names_of_columns(tmp_path):
    both = tmp_path / "both.csv"
    both.write_text("Accession Number,Truth,Generated\n7,Clear.,Edema.\n8,Edema.,Clear.\n")
    pairs = read_pairs(both, OwnColumns.of(["Truth", "generated "], "accession number"))
    assert pairs.references == ("Clear.", "Edema.")
    assert pairs.hypotheses == ("Edema.", "Clear.")
    assert pairs.study_ids == ("7", "8")
    only = tmp_path / "only.csv"
    only.write_text("Report Text\nClear.\nEdema.\n")
    assert read_reports(only, "references", OwnColumns.of(["Report Text"])).study_ids is None


def test_a_missing_column_names_those_of_the_file(tmp_path):
    path = tmp_path / "lab.csv"
    path.write_text("AccessionNumber,ReportText\n7,Clear.\n")
    for columns in ([], ["Report"]):
        with pytest.raises(MetricError, match=r"missing_column.*accessionnumber, reporttext"):
            read_reports(path, "references", OwnColumns.of(columns))
    with pytest.raises(MetricError, match=r"missing_column.*name the id with --id-column"):
        read_reports(path, "references", OwnColumns.of(["ReportText"]))


@pytest.mark.parametrize("header", ["s1,No effusion.", "No acute disease,7", "s1,normal heart"])
def test_a_first_row_is_not_quoted_as_columns(tmp_path, header):
    path = tmp_path / "headless.csv"
    path.write_text(f"{header}\n{header}\n")
    with pytest.raises(MetricError, match="missing_column") as caught:
        read_reports(path)
    assert max(header.lower().split(","), key=len) not in str(caught.value)


def test_a_column_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("study_id,Report,REPORT\n7,Clear.,Edema.\n")
    with pytest.raises(MetricError, match="report twice"):
        read_reports(path)
