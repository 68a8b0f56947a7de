"""A hospital's own CSV: what is read, and that no id or identifier reaches the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrrg.cli.main import main
from lmrrg.data.privacy import hashed_id, scrub
from lmrrg.studies import LABELS, StudyError
from tests.support.trees import CLEAR, LARGE, import_from, picture, table

SALT = "a salt of sixteen or more characters"
COLUMNS = [
    "study_id",
    "patient_id",
    "image",
    "view",
    "date",
    "report",
    "findings",
    "Edema",
    "phone",
]
REPORT = (
    "HISTORY: Seen by Dr. Jane Roe, MRN-77, 03/04/2021. FINDINGS: Heart is enlarged. "
    "IMPRESSION: On 555-123-4567."
)


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMRRG_ID_SALT", SALT)
    rows = [
        ["ACC1", "MRN-77", "films/1l.png", "LL", "2021-03-04", REPORT, "", "0", "555-000-1111"],
        ["ACC1", "MRN-77", "films/1f.png", "PA", "2021-03-04", REPORT, "", "0", "555-000-1111"],
        ["ACC2", "MRN-77", "films/MRN-77.png", "AP", "2021-05-01", "", CLEAR, "-1", ""],
        ["ACC3", "MRN-78", "films/gone.png", "AP", "2021-05-01", "", CLEAR, "", ""],
        ["ACC4", "", "films/1f.png", "AP", "2021-05-01", "", CLEAR, "", ""],
    ]
    for name in ("1l", "1f", "MRN-77"):
        picture(tmp_path / "films" / f"{name}.png")
    return table(tmp_path / "export.csv", COLUMNS, rows)


def test_table(export):
    made = import_from("csv", export, ids="published")
    studies = {study.id: study for study in made.studies}
    assert set(studies) == {"ACC1", "ACC2"}
    assert [image.view for image in studies["ACC1"].images] == ["PA", "lateral"]
    assert studies["ACC1"].findings == "Heart is enlarged."
    assert studies["ACC1"].labels == {"Edema": 0}
    assert studies["ACC2"].labels == {"Edema": -1}
    assert studies["ACC2"].findings == CLEAR
    assert studies["ACC2"].prior == "ACC1"
    assert studies["ACC1"].split == studies["ACC2"].split
    assert made.dropped == {"no image file": 1, "no study or patient id": 1}
    assert made.notes["columns not read"] == "phone"


def test_identifiers_do_not_get_through(export, tmp_path, capsys):
    out = tmp_path / "out" / "studies.jsonl"
    assert main(["data", "csv", "--source", str(export), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    records = [json.loads(line) for line in out.read_text().splitlines()]
    texts = [json.dumps({k: v for k, v in record.items() if k != "images"}) for record in records]
    everything = "\n".join(
        [*texts, out.with_suffix(".audit.json").read_text(), shown.out, shown.err]
    )
    for secret in ("ACC1", "MRN-77", "Roe", "555-", "2021", SALT):
        assert secret not in everything, secret
    assert records[0]["id"] == hashed_id(SALT.encode(), "study", "ACC1")
    assert records[0]["indication"] == "Seen by ___, ___, ___."
    assert records[1]["prior"] == records[0]["id"]
    assert "1 image paths hold the patient's id" in shown.out


def test_hashes_need_a_salt_and_depend_on_it(export, monkeypatch):
    first = import_from("csv", export).studies[0].patient
    assert import_from("csv", export).studies[0].patient == first
    monkeypatch.setenv("LMRRG_ID_SALT", SALT + "!")
    assert import_from("csv", export).studies[0].patient != first
    for salt in ("", "short"):
        monkeypatch.setenv("LMRRG_ID_SALT", salt)
        with pytest.raises(StudyError, match="salt_missing"):
            import_from("csv", export)


@pytest.mark.parametrize("ids", ["hashed", "published"])
def test_labels_are_keyed_by_the_sources_ids_or_the_manifests(export, tmp_path, ids):
    def labels(name: str, *keys: str) -> Path:
        return table(
            tmp_path / name, ["study_id", *LABELS], [[key, *"1" * len(LABELS)] for key in keys]
        )

    plain = import_from("csv", export, ids=ids)
    for keys in (["ACC1", "ACC2"], [study.id for study in plain.studies]):
        made = import_from("csv", export, ids=ids, labels=labels("labels.csv", *keys))
        assert [study.id for study in made.studies] == [study.id for study in plain.studies]
        assert all(study.labels == dict.fromkeys(LABELS, 1) for study in made.studies)
    with pytest.raises(StudyError, match="no row for 1 of 2 studies"):
        import_from("csv", export, ids=ids, labels=labels("less.csv", "ACC1"))


@given(text=st.text(max_size=60))
def test_scrub_leaves_what_is_no_identifier(text):
    once = scrub(text, "77")
    assert scrub(once, "77") == once
    assert (
        scrub(LARGE + " It measures 12 mm at T7 on the 2nd film.")
        == LARGE + " It measures 12 mm at T7 on the 2nd film."
    )


@pytest.mark.parametrize(
    ("columns", "cells", "code"),
    [
        (["study_id", "image", "report"], ["a", "x.png", CLEAR], "source_columns"),
        (["study_id", "patient_id", "image"], ["a", "p", "x.png"], "source_columns"),
        (
            ["study_id", "patient_id", "image", "findings", "split"],
            ["a", "p", "x.png", CLEAR, "dev"],
            "source_record",
        ),
        (
            ["study_id", "patient_id", "image", "findings", "Edema"],
            ["a", "p", "x.png", CLEAR, "yes"],
            "labels_value",
        ),
    ],
)
def test_refusals(tmp_path, columns, cells, code):
    picture(tmp_path / "x.png")
    with pytest.raises(StudyError) as caught:
        import_from("csv", table(tmp_path / "t.csv", columns, [cells]), ids="published")
    assert caught.value.code == code


@pytest.mark.parametrize("date", ["9/2/2011", "28.03.2011", "2011-3-28", "March", "201103280"])
def test_a_date_that_does_not_sort_is_refused(tmp_path, date):
    path = table(
        tmp_path / "a.csv",
        ["study_id", "patient_id", "image", "findings", "date"],
        [["a", "p", "x", CLEAR, date]],
    )
    with pytest.raises(StudyError, match="source_record") as caught:
        import_from("csv", path, ids="published")
    assert date not in str(caught.value)


def test_a_study_of_two_patients_is_refused(tmp_path):
    columns = ["study_id", "patient_id", "image", "findings"]
    path = table(
        tmp_path / "t.csv", columns, [["a", "p", "x.png", CLEAR], ["a", "q", "x.png", CLEAR]]
    )
    with pytest.raises(StudyError, match="source_record"):
        import_from("csv", path, ids="published")


def test_a_damaged_gzip_file_is_an_error_with_a_code(tmp_path):
    path = table(
        tmp_path / "a.csv.gz",
        ["study_id", "patient_id", "image", "findings"],
        [["a", "p", "x", CLEAR]] * 50,
    )
    content = path.read_bytes()
    for place in range(12, len(content) - 8, 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with pytest.raises(StudyError):
            import_from("csv", path, ids="published")


def _rows_of(tmp_path: Path, *rows: list[str]) -> Path:
    """A table whose rows are id, patient, view and report, all with one image."""
    picture(tmp_path / "a.png")
    columns = ["study_id", "patient_id", "image", "view", "report"]
    return table(tmp_path / "t.csv", columns, [[*row[:2], "a.png", *row[2:]] for row in rows])


def test_the_first_row_with_text_counts_and_other_texts_are_counted(tmp_path):
    path = _rows_of(
        tmp_path,
        ["s1", "p1", "LL", "nan"],
        ["s1", "p1", "PA", f"FINDINGS: {CLEAR}"],
        ["s2", "p1", "PA", f"FINDINGS: {LARGE}"],
        ["s2", "p1", "LL", f"FINDINGS: {CLEAR}"],
    )
    made = import_from("csv", path, ids="published")
    assert [study.findings for study in made.studies] == [CLEAR, LARGE]
    assert [len(study.images) for study in made.studies] == [2, 2]
    note = made.notes["rows of one study with other texts"]
    assert note == "1 studies; the first row with text counts"


def test_rows_without_an_id_are_dropped_one_by_one(tmp_path):
    path = _rows_of(
        tmp_path,
        ["s1", "p1", "PA", f"FINDINGS: {CLEAR}"],
        ["", "p2", "PA", f"FINDINGS: {LARGE}"],
        ["nan", "p3", "PA", f"FINDINGS: {LARGE}"],
        ["s1", "", "LL", f"FINDINGS: {CLEAR}"],
    )
    made = import_from("csv", path, ids="published")
    assert [study.id for study in made.studies] == ["s1"]
    assert made.dropped == {"no study or patient id": 3}
    assert "rows of one study with other texts" not in made.notes


@pytest.mark.parametrize("cells", [("4.56E+11", "p"), ("s", "5,0e+10"), ("2E12", "p")])
def test_an_id_that_a_spreadsheet_rounded_is_refused(tmp_path, cells):
    path = _rows_of(tmp_path, [*cells, "PA", f"FINDINGS: {CLEAR}"])
    with pytest.raises(StudyError, match="rounded") as refusal:
        import_from("csv", path, ids="published")
    assert refusal.value.code == "source_record"


LAB_COLUMNS = ["AccessionNumber", "MRN", "Path", "Projection", "StudyDate", "Report Text"]
LAB_NAMES = {
    "study_id": "AccessionNumber",
    "patient_id": "MRN",
    "image": "Path",
    "view": "Projection",
    "date": "StudyDate",
    "report": "Report Text",
}


def _lab_table(tmp_path: Path, *rows: list[str]) -> Path:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png")
    return table(tmp_path / "lab.csv", LAB_COLUMNS, rows)


def test_a_lab_names_its_columns_and_the_form_of_its_dates(tmp_path):
    text = f"FINDINGS: {CLEAR}"
    path = _lab_table(
        tmp_path,
        ["A2", "m", "b.png", "AP", "02.01.2022", text],
        ["A1", "m", "a.png;c.png", "PA;LL", "05.11.2021", text],
        ["A3", "m", "a.png | b.png", "PA", "07.03.2020", text],
    )
    made = import_from("csv", path, ids="published", columns=LAB_NAMES, date_format="%d.%m.%Y")
    studies = {study.id: study for study in made.studies}
    assert [image.view for image in studies["A1"].images] == ["PA", "lateral"]
    # One view for two images: nobody said whose it is.
    assert [image.view for image in studies["A3"].images] == ["unknown", "unknown"]
    assert made.notes["views unknown"].startswith("1 rows")
    assert [studies[name].prior for name in ("A2", "A1", "A3")] == ["A1", "A3", None]
    assert {study.findings for study in made.studies} == {CLEAR}
    assert made.notes["columns not read"] == "none"


@pytest.mark.parametrize(
    ("form", "code"), [("dd.mm.yyyy", "date_format"), ("%m/%d/%Y", "source_record")]
)
def test_a_form_of_dates_that_does_not_fit_is_refused(tmp_path, form, code):
    path = _lab_table(tmp_path, ["A1", "m", "a.png", "PA", "25.11.2021", CLEAR])
    with pytest.raises(StudyError) as caught:
        import_from("csv", path, ids="published", columns=LAB_NAMES, date_format=form)
    assert caught.value.code == code
    assert "25.11.2021" not in str(caught.value)


def test_a_missing_column_is_one_sentence_with_the_columns_of_the_file(tmp_path):
    path = _lab_table(tmp_path, ["A1", "m", "a.png", "PA", "", CLEAR])
    names = ", ".join(LAB_COLUMNS)
    for columns in ({}, LAB_NAMES | {"report": "ReportText"}, {**LAB_NAMES, "Edema": "Oedema"}):
        with pytest.raises(
            StudyError, match=f"it has {names}; name yours with --columns"
        ) as caught:
            import_from("csv", path, ids="published", columns=columns)
        assert caught.value.code == "source_columns"


def test_no_row_of_a_table_without_header_is_quoted(tmp_path):
    path = table(tmp_path / "t.csv", ["A1", "MRN-77", "a.png", CLEAR], [])
    with pytest.raises(StudyError, match="may be no header") as caught:
        import_from("csv", path, ids="published")
    assert "MRN-77" not in str(caught.value)


def test_a_column_that_occurs_twice_is_refused(tmp_path):
    columns = ["study_id", "patient_id", "image", "Report", "report "]
    path = table(tmp_path / "t.csv", columns, [["a", "p", "a.png", "", CLEAR]])
    with pytest.raises(StudyError, match=r"source_columns.*report twice"):
        import_from("csv", path, ids="published")


@pytest.mark.parametrize("ids", ["published", "hashed"])
def test_the_first_missing_image_is_named_without_the_patient(tmp_path, monkeypatch, ids):
    monkeypatch.setenv("LMRRG_ID_SALT", SALT)
    rows = [[f"A{number}", "M-7", f"films/M-7/{number}.png", "", "", CLEAR] for number in range(3)]
    path = _lab_table(tmp_path, *rows)
    with pytest.raises(StudyError, match="'no image file': 3") as caught:
        import_from("csv", path, ids=ids, columns=LAB_NAMES)
    patient = "M-7" if ids == "published" else "___"
    assert f"first with no image file: {tmp_path}/films/{patient}/0.png" in str(caught.value)


def test_optional_columns_may_be_spelled_otherwise(tmp_path):
    picture(tmp_path / "a.png")
    columns = ["Study_ID", "Patient_ID", "Image", " Findings ", "SPLIT"]
    path = table(tmp_path / "t.csv", columns, [["a", "p", "a.png", CLEAR, "test"]])
    assert [study.split for study in import_from("csv", path, ids="published").studies] == ["test"]


def test_the_sample_path_is_printed_and_not_saved(tmp_path, capsys):
    path = _lab_table(
        tmp_path, ["A1", "m", "a.png", "", "", CLEAR], ["A2", "m", "gone/b.png", "", "", CLEAR]
    )
    out = tmp_path / "out.jsonl"
    names = [f"{name}={own}" for name, own in LAB_NAMES.items()]
    arguments = ["--source", str(path), "--ids", "published", "--out", str(out), "--quiet"]
    assert main(["data", "csv", *arguments, "--columns", *names]) == 0
    assert f"first with no image file: {tmp_path}/gone/b.png" in capsys.readouterr().out
    assert "gone" not in out.with_suffix(".audit.json").read_text()


@pytest.mark.parametrize("cell", ["The heart is enlarged. " * 20, "No effusion.", "Roe^Jane"])
def test_a_text_in_the_column_of_images_is_not_quoted(tmp_path, cell):
    path = _lab_table(tmp_path, ["A1", "m", cell, "", "", CLEAR])
    with pytest.raises(StudyError, match="no image file") as caught:
        import_from("csv", path, ids="published", columns=LAB_NAMES)
    assert cell.strip() not in str(caught.value)
    assert "a name that is not shown" in str(caught.value)
