"""CheXpert Plus from a small tree in the published folder and file format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmrrg.studies import LABELS, StudyError
from tests.support.trees import CLEAR, LARGE, import_from, picture, table

COLUMNS = [
    "path_to_image",
    "path_to_dcm",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "patient_report_date_order",
]
COLUMNS += [
    "report",
    "section_narrative",
    "section_clinical_history",
    "section_history",
    "section_comparison",
]
COLUMNS += [
    "section_technique",
    "section_procedure_comments",
    "section_findings",
    "section_impression",
]
COLUMNS += [
    "section_end_of_impression",
    "section_summary",
    "section_accession_number",
    "age",
    "sex",
    "race",
]
COLUMNS += ["ethnicity", "interpreter_needed", "insurance_type", "recent_bmi", "deceased", "split"]


def row(
    patient: int, study: int, view: str, *, findings: str = CLEAR, split: str = "train", **more: str
) -> list[str]:
    name = f"{split}/patient{patient:05d}/study{study}/{view}"
    cells = dict.fromkeys(COLUMNS, "")
    cells |= {
        "path_to_image": f"{name}.jpg",
        "path_to_dcm": f"{name}.dcm",
        "deid_patient_id": f"patient{patient:05d}",
    }
    cells |= {
        "frontal_lateral": "Lateral" if "lateral" in view else "Frontal",
        "ap_pa": "" if "lateral" in view else "AP",
    }
    cells |= {
        "section_findings": findings,
        "section_impression": "1.\nFine.",
        "split": split,
        "age": "67",
    }
    cells |= {"section_accession_number": "ACC123", "section_history": "Cough.", **more}
    return list(cells.values())


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    folder = tmp_path / "chexpert"
    rows = [
        row(1, 1, "view2_lateral"),
        row(1, 1, "view1_frontal"),
        row(1, 2, "view1_frontal", findings=""),
    ]
    rows += [row(2, 1, "view1_frontal", findings=LARGE, section_clinical_history="Fever.")]
    rows += [row(3, 1, "view1_frontal", split="valid"), row(4, 1, "view1_frontal")]
    table(folder / "df_chexpert_plus_240401.csv", COLUMNS, rows)
    for cells in rows[:-1]:
        picture(folder / "PNG" / cells[0].replace(".jpg", ".png"))
    return folder


def test_table_and_images(chexpert):
    made = import_from("chexpert-plus", chexpert)
    studies = {study.id: study for study in made.studies}
    assert set(studies) == {"patient00001-study1", "patient00002-study1", "patient00003-study1"}
    first = studies["patient00001-study1"]
    assert [(image.path.name, image.view) for image in first.images] == [
        ("view1_frontal.png", "AP"),
        ("view2_lateral.png", "lateral"),
    ]
    assert (first.patient, first.findings, first.impression) == ("patient00001", CLEAR, "1. Fine.")
    assert first.indication == "Cough."
    assert studies["patient00002-study1"].indication == "Fever."
    assert studies["patient00003-study1"].split == "test", "CheXpert's held-out valid"
    assert made.dropped == {"no image file": 1, "no text in the section findings": 1}
    assert "ACC123" not in repr(made.studies)


def test_labels_of_the_section(chexpert):
    def write(name: str, **values: float | None) -> None:
        lines = [
            {
                "path_to_image": f"train/patient0000{n}/study1/{view}.jpg",
                **dict.fromkeys(LABELS),
                **values,
            }
            for n, view in ((1, "view2_lateral"), (2, "view1_frontal"))
        ]
        path = chexpert / "chexbert_labels" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("findings_fixed.json", Edema=1.0, Pneumonia=-1.0, Fracture=0.0, Atelectasis=float("nan"))
    write("impression_fixed.json", Edema=0.0)
    labels = {s.id: s.labels for s in import_from("chexpert-plus", chexpert).studies}
    assert labels["patient00001-study1"] == {"Edema": 1, "Pneumonia": -1, "Fracture": 0}
    impressions = import_from("chexpert-plus", chexpert, section="impression").studies
    assert {s.id: s.labels for s in impressions}["patient00002-study1"] == {"Edema": 0}
    write("findings_fixed.json", Edema=3.0)
    with pytest.raises(StudyError, match="labels_value"):
        import_from("chexpert-plus", chexpert)


def test_val_comes_from_the_training_patients(tmp_path):
    folder = tmp_path / "many"
    rows = [row(number, study, "view1_frontal") for number in range(400) for study in (1, 2)]
    table(folder / "df_chexpert_plus_240401.csv", COLUMNS, rows)
    (folder / "PNG" / "train").mkdir(parents=True)
    for cells in rows:
        path = folder / "PNG" / cells[0].replace(".jpg", ".png")
        path.parent.mkdir(parents=True)
        path.touch()
    audit = import_from("chexpert-plus", folder).audit()
    assert 0 < audit["split_table"]["val"]["patients"] < 24
    assert (
        audit["split_table"]["train"]["patients"] + audit["split_table"]["val"]["patients"] == 400
    )
    assert audit["patients_in_two_splits"] == 0


def test_dicom_instead_of_png(chexpert):
    for path in [*(chexpert / "PNG").rglob("*.png")]:
        path.rename(path.with_suffix(".dcm"))
    (chexpert / "PNG").rename(chexpert / "DICOM")
    assert import_from("chexpert-plus", chexpert).studies[0].images[0].path.suffix == ".dcm"


def test_refusals(chexpert):
    (chexpert / "PNG").rename(chexpert / "elsewhere")
    with pytest.raises(StudyError, match="source_missing"):
        import_from("chexpert-plus", chexpert)
    assert len(import_from("chexpert-plus", chexpert, images=chexpert / "elsewhere").studies) == 3
    table(
        chexpert / "df_chexpert_plus_240401.csv", COLUMNS, [["odd.jpg", *[""] * (len(COLUMNS) - 1)]]
    )
    with pytest.raises(StudyError, match="source_record"):
        import_from("chexpert-plus", chexpert)


def test_images_of_one_study_with_other_texts_are_counted(chexpert):
    rows = [row(1, 1, "view2_lateral", findings=LARGE), row(1, 1, "view1_frontal")]
    rows.append(row(2, 1, "view1_frontal"))
    table(chexpert / "df_chexpert_plus_240401.csv", COLUMNS, rows)
    made = import_from("chexpert-plus", chexpert)
    assert [study.findings for study in made.studies] == [LARGE, CLEAR]
    note = made.notes["rows of one study with other texts"]
    assert note == "1 studies; the first row counts"
