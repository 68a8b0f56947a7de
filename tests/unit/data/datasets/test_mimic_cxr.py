"""MIMIC-CXR(-JPG) from a small tree in PhysioNet's folder and file format."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from lmrrg.manifest import read_studies, write_studies
from lmrrg.studies import LABELS, StudyError
from tests.support.trees import CLEAR, LARGE, import_from, picture, table

METADATA = [
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
]
METADATA += [
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
]
METADATA += ["PatientOrientationCodeSequence_CodeMeaning"]
IMAGES = [
    ("a1", "10000032", "50414267", "LATERAL", "21800506", "81013.312", "lateral"),
    ("a2", "10000032", "50414267", "PA", "21800506", "81013.312", "postero-anterior"),
    ("b1", "10000032", "53189527", "", "21800506", "213014.531", "antero-posterior"),
    ("c1", "10000764", "57375967", "AP", "21321015", "83919.0", ""),
    ("d1", "10000898", "50771383", "LL", "21880323", "93545.0", "left lateral"),
    ("e1", "10000935", "50578979", "AP", "21830910", "1.0", ""),
    ("f1", "10000980", "50985099", "AP", "21890205", "1.0", ""),
    ("g1", "10001038", "58224503", "AP", "21430730", "1.0", ""),
]
SPLITS = {"10000032": "train", "10000764": "validate", "10000898": "test"}
REPORT = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 HISTORY:  ___ year old with cough.
 
 COMPARISON:  ___
 
 FINDINGS: 
 
 {}
 
 IMPRESSION: 
 
 As above.
"""  # noqa: W291, W293 (lines of these reports end with spaces)


IMAGE_TABLE = "mimic-cxr-2.0.0-metadata.csv.gz"
SPLIT_TABLE = "mimic-cxr-2.0.0-split.csv"
SPLIT_HEADER = "study_id,split\n"


def place(patient: str, study: str) -> str:
    return f"files/p{patient[:2]}/p{patient}/s{study}"


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    """Write seven studies: one lacks findings, one its report, one its image file."""
    folder = tmp_path / "mimic"
    rows = [
        [d, p, s, "CHEST", view, 3056, 2544, date, time, "", code, ""]
        for d, p, s, view, date, time, code in IMAGES
    ]
    table(folder / IMAGE_TABLE, METADATA, rows)
    splits = [[d, s, p, SPLITS.get(p, "train")] for d, p, s, *_ in IMAGES]
    table(
        folder / SPLIT_TABLE,
        ["dicom_id", "study_id", "subject_id", "split"],
        splits,
    )
    columns = ["subject_id", "study_id", *sorted(LABELS)]
    values = {"Edema": "-1.0", "Cardiomegaly": "1.0", "Pneumothorax": "0.0"}
    labels = [["10000032", "50414267", *(values.get(label, "") for label in sorted(LABELS))]]
    table(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", columns, labels)
    for dicom, patient, study, *_ in IMAGES:
        image = folder / place(patient, study) / f"{dicom}.jpg"
        if dicom != "f1":
            picture(image)
        report = image.parent.with_suffix(".txt")
        report.parent.mkdir(parents=True, exist_ok=True)
        if dicom != "e1":
            report.write_text(
                REPORT.format("" if dicom == "g1" else CLEAR if patient != "10000764" else LARGE)
            )
    return folder


def test_tables_reports_and_images(mimic):
    made = import_from("mimic-cxr", mimic)
    studies = {study.id: study for study in made.studies}
    assert {name: study.split for name, study in studies.items()} == {
        "50414267": "train",
        "53189527": "train",
        "57375967": "val",
        "50771383": "test",
    }
    first = studies["50414267"]
    assert [(image.path.name, image.view) for image in first.images] == [
        ("a2.jpg", "PA"),
        ("a1.jpg", "lateral"),
    ]
    assert (first.patient, first.findings, first.impression) == ("10000032", CLEAR, "As above.")
    assert (first.indication, first.comparison) == ("___ year old with cough.", "___")
    assert first.labels == {"Edema": -1, "Cardiomegaly": 1, "Pneumothorax": 0}
    assert studies["53189527"].images[0].view == "AP", (
        "the view code serves where ViewPosition is blank"
    )
    assert studies["57375967"].labels == {"Cardiomegaly": 1}, (
        "the rule-based labeler where the table has no row"
    )
    assert made.dropped == {
        "no report file": 1,
        "no image file": 1,
        "no text in the section findings": 1,
    }
    assert made.notes["lateral views only"].startswith("1 ")
    assert made.notes["labels"].startswith(
        "mimic-cxr-2.0.0-chexpert.csv.gz, and the rule-based labeler for 3 of 4"
    )


def test_priors_follow_the_shifted_dates_and_survive_the_manifest(mimic, tmp_path):
    studies = import_from("mimic-cxr", mimic).studies
    priors = {study.id: study.prior for study in studies}
    # 08:10:13 is before 21:30:14 although 81013.312 sorts after 213014.531 as text
    assert priors == {"50414267": None, "53189527": "50414267", "57375967": None, "50771383": None}
    write_studies(tmp_path / "m.jsonl", studies)
    assert {study.id: study.prior for study in read_studies(tmp_path / "m.jsonl")} == priors
    assert not any("2180" in line for line in (tmp_path / "m.jsonl").read_text().splitlines()), (
        "no date is kept"
    )


def test_reports_in_their_archive_and_dicom_images_elsewhere(mimic, tmp_path):
    unpacked = import_from("mimic-cxr", mimic)
    with ZipFile(mimic / "mimic-cxr-reports.zip", "w") as archive:
        for report in (mimic / "files").rglob("*.txt"):
            archive.write(report, report.relative_to(mimic))
            report.unlink()
    (mimic / "files").rename(tmp_path / "dicoms")
    for image in (tmp_path / "dicoms").rglob("*.jpg"):
        image.rename(image.with_suffix(".dcm"))
    made = import_from("mimic-cxr", mimic, images=tmp_path / "dicoms")
    assert [study.findings for study in made.studies] == [
        study.findings for study in unpacked.studies
    ]
    assert made.studies[0].images[0].path == tmp_path / "dicoms/p10/p10000032/s50414267/a2.dcm"


def test_a_damaged_report_in_the_archive_is_named(mimic):
    with ZipFile(mimic / "mimic-cxr-reports.zip", "w", ZIP_DEFLATED) as archive:
        for report in (mimic / "files").rglob("*.txt"):
            archive.write(report, report.relative_to(mimic))
        first = archive.infolist()[0]
    content = bytearray((mimic / "mimic-cxr-reports.zip").read_bytes())
    content[first.header_offset + 30 + len(first.filename) + 2] ^= 0xFF
    (mimic / "mimic-cxr-reports.zip").write_bytes(content)
    with pytest.raises(StudyError, match=rf"source_archive: .*{first.filename} is damaged"):
        import_from("mimic-cxr", mimic)


def test_unusual_reports_are_counted(mimic):
    report = mimic / f"{place('10000032', '53189527')}.txt"
    report.write_text(
        f" WET READ: ___ ___\n  Fine.\n ____________________\n FINAL REPORT\n {CLEAR}\n"
    )
    made = import_from("mimic-cxr", mimic)
    assert "preliminary reading 1" in made.notes["unusual reports"]
    assert {study.id: study.findings for study in made.studies}["53189527"] == CLEAR


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda m: (m / SPLIT_TABLE).unlink(), "source_missing"),
        (lambda m: (m / IMAGE_TABLE).write_bytes(b"\x1f\x8bnonsense"), "source_csv"),
        (lambda m: (m / SPLIT_TABLE).write_text(SPLIT_HEADER + "50414267,dev\n"), "source_record"),
        (lambda m: table(m / SPLIT_TABLE, ["study_id", "set"], []), "source_columns"),
        (lambda m: (m / SPLIT_TABLE).write_text(SPLIT_HEADER + "1\n"), "source_csv"),
        (lambda m: (m / "mimic-cxr-reports.zip").write_bytes(b"no zip"), "source_archive"),
    ],
)
def test_refusals(mimic, damage, code):
    damage(mimic)
    with pytest.raises(StudyError) as caught:
        import_from("mimic-cxr", mimic)
    assert caught.value.code == code


def test_a_patient_in_two_splits_is_an_error(mimic):
    splits = [[d, s, p, "train" if s == "50414267" else "test"] for d, p, s, *_ in IMAGES]
    table(mimic / SPLIT_TABLE, ["dicom_id", "study_id", "subject_id", "split"], splits)
    with pytest.raises(StudyError, match="split_leak"):
        import_from("mimic-cxr", mimic)


def test_the_annotation_of_r2gen(mimic):
    def record(number: int) -> dict[str, object]:
        dicom, patient, study, *_ = IMAGES[number]
        path = f"{place(patient, study).removeprefix('files/')}/{dicom}.jpg"
        return {
            "id": dicom,
            "study_id": int(study),
            "subject_id": int(patient),
            "report": CLEAR,
            "image_path": [path],
        }

    annotation = {"train": [record(1), record(2)], "val": [record(3)], "test": []}
    (mimic / "annotation.json").write_text(json.dumps(annotation))
    made = import_from("r2gen", mimic, images=mimic / "files")
    assert [(s.id, s.patient, s.split, s.images[0].view) for s in made.studies] == [
        ("a2", "10000032", "train", "PA"),
        ("b1", "10000032", "train", "AP"),
        ("c1", "10000764", "val", "AP"),
    ]
