"""Cells and sections that only stand for a missing value: they are no text in any reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmrrg.data.placeholders import is_empty_text, is_placeholder
from lmrrg.data.sections import parse_sections
from lmrrg.data.tables import clean, read_json
from lmrrg.studies import StudyError
from tests.support.trees import CLEAR, import_from, picture, table

PLACEHOLDERS = ("nan", "NaN", "NONE", "null", "N/A", "n/a.", "NA", "<NA>", r"\N", "-", "--", ".")


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_no_text(text):
    assert is_placeholder(text)
    assert clean(f" {text}\n") == ""
    sections = parse_sections(f"FINDINGS: {text}\nIMPRESSION: No effusion.\nHISTORY: {text}\n")
    assert (sections.findings, sections.history) == ("", "")
    assert sections.impression == "No effusion."


@pytest.mark.parametrize("text", ["Nannies.", "None seen.", "No.", "A.", "___", "None."])
def test_other_short_texts_stay(text):
    assert not is_placeholder(text)
    assert clean(text) == text


def test_none_as_a_sentence_is_a_comparison_but_no_finding():
    assert is_empty_text("None.")
    sections = parse_sections("COMPARISON: None.\nFINDINGS: None.\nIMPRESSION: No effusion.")
    assert (sections.comparison, sections.findings) == ("None.", "")


def test_a_repeated_section_with_a_placeholder_does_not_count():
    assert parse_sections("FINDINGS: Clear lungs.\nFINDINGS: n/a\n").findings == "Clear lungs."


def test_a_csv_counts_them_as_without_text(tmp_path: Path):
    picture(tmp_path / "a.png")
    rows = [[f"s{n}", "p", "a.png", "nan", text] for n, text in enumerate(PLACEHOLDERS)]
    columns = ["study_id", "patient_id", "image", "Edema", "findings"]
    rows.append(["kept", "p", "a.png", "NaN", CLEAR])
    made = import_from("csv", table(tmp_path / "t.csv", columns, rows), ids="published")
    assert made.dropped == {"no text in the section findings": len(PLACEHOLDERS)}
    assert [study.labels for study in made.studies] == [{}]


def test_a_manifest_counts_them_as_without_text(tmp_path: Path):
    picture(tmp_path / "a.png")
    records = [
        {"id": f"s{n}", "patient": "p", "images": [{"path": "a.png", "view": "PA"}], "findings": t}
        for n, t in enumerate(("NaN", "None.", CLEAR))
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, records)))
    made = import_from("jsonl", manifest)
    assert [study.id for study in made.studies] == ["s2"]
    assert made.dropped == {"no text in the section findings": 2}


def test_nan_of_a_json_file_is_null(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('[{"report": NaN}, Infinity]')
    assert read_json(path) == [{"report": None}, None]
    path.write_text("[NaN")
    with pytest.raises(StudyError, match="source_json"):
        read_json(path)
