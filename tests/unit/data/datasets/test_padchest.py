"""PadChest from a small table in the published format."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.studies import StudyError
from tests.support.trees import import_from, picture, table

COLUMNS = [
    "",
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
]
COLUMNS += [
    "ViewPosition_DICOM",
    "Projection",
    "MethodProjection",
    "Pediatric",
    "ReportID",
    "Report",
    "MethodLabel",
]
COLUMNS += ["Labels", "Localizations"]
SPANISH = "cardiomegali . sin derram pleural ."


def row(image: str, study: str, patient: str, projection: str, **more: str) -> dict[str, str]:
    cells = dict.fromkeys(COLUMNS, "")
    cells |= {
        "ImageID": f"{image}.png",
        "ImageDir": "3",
        "StudyID": study,
        "PatientID": patient,
        "Report": SPANISH,
    }
    return cells | {
        "Projection": projection,
        "StudyDate_DICOM": "20140915",
        "Labels": "['cardiomegaly']",
        **more,
    }


@pytest.fixture
def padchest(tmp_path: Path) -> Path:
    """Write studies 1 and 2 of one patient, and studies that are left out.

    They are a rib view, an excluded image, two patients in one study, and one without labels.
    """
    rows = [
        row("a", "1", "10", "L"),
        row("b", "1", "10", "PA"),
        row(
            "c",
            "2",
            "10",
            "AP_horizontal",
            StudyDate_DICOM="20150101",
            Labels="['normal', ' pacemaker', 'x']",
        ),
        row("d", "3", "11", "COSTAL"),
        row("e", "4", "12", "EXCLUDE"),
        row("f", "5", "13", "PA"),
        row("g", "5", "14", "L"),
        row("h", "6", "15", "PA", Labels="nan"),
        row("i", "7", "16", "UNK", Labels="['hydropneumothorax', 'normal']"),
        row("k", "9", "18", "PA", Report=" nan"),
        row("j", "8", "17", "PA"),
    ]  # fmt: skip
    folder = tmp_path / "padchest"
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    table(folder / name, COLUMNS, [cells.values() for cells in rows])
    for cells in rows[:-1]:
        picture(folder / ("" if cells["ImageID"] == "c.png" else "3") / cells["ImageID"])
    return folder


def test_table_and_images(padchest):
    made = import_from("padchest", padchest)
    studies = {study.id: study for study in made.studies}
    assert set(studies) == {"1", "2", "7"}
    assert [(image.path.name, image.view) for image in studies["1"].images] == [
        ("b.png", "PA"),
        ("a.png", "lateral"),
    ]
    assert studies["2"].images[0].view == "AP", "AP_horizontal"
    assert studies["1"].findings == SPANISH
    assert studies["1"].labels == {"Cardiomegaly": 1}
    assert studies["2"].labels == {"Support Devices": 1, "No Finding": 1}
    assert studies["7"].labels == {"Pneumothorax": 1, "Pleural Effusion": 1}, (
        "not normal beside a finding"
    )
    assert studies["2"].prior == "1"
    assert studies["1"].split == studies["2"].split, "one patient"
    assert made.notes["language"].startswith("Spanish")
    assert made.dropped == {
        "only a rib view": 1,
        "only excluded by the source": 1,
        "one study of two patients": 1,
        "no labels in the source": 1,
        "no image file": 1,
        "no text in the section findings": 1,
    }


def test_english_where_the_table_has_it(padchest):
    table(
        padchest / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
        [*COLUMNS, "Report_en"],
        [[*row("b", "1", "10", "PA").values(), "Cardiomegaly."]],
    )
    made = import_from("padchest", padchest)
    assert [study.findings for study in made.studies] == ["Cardiomegaly."]
    assert made.notes["language"] == "English (column Report_en)"


def test_a_blank_cell_of_the_english_column_is_no_report(padchest):
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    cells = row("b", "1", "10", "PA") | {"Report_en": "nan"}
    table(padchest / name, [*COLUMNS, "Report_en"], [cells.values()])
    with pytest.raises(StudyError, match="no text"):
        import_from("padchest", padchest)


def test_refusals(padchest):
    with pytest.raises(StudyError, match="source_section"):
        import_from("padchest", padchest, section="impression")
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    table(padchest / name, COLUMNS, [row("b", "1", "10", "PA", Labels="open(").values()])
    with pytest.raises(StudyError, match="source_record"):
        import_from("padchest", padchest)
