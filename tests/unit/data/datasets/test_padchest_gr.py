"""PadChest-GR from a small tree in the published format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmrrg.studies import StudyError
from tests.support.trees import import_from, picture, table

COLUMNS = [
    "StudyID",
    "ImageID",
    "label",
    "boxes_count",
    "extra_boxes_count",
    "locations",
    "prior_study",
]
COLUMNS += [
    "progression_status",
    "prior_imageID",
    "sentence_en",
    "sentence_es",
    "study_is_benchmark",
]
COLUMNS += [
    "study_is_validation",
    "split",
    "PatientID",
    "patient_is_benchmark",
    "PatientBirth",
    "PatientSex_DICOM",
]
COLUMNS += ["StudyDate_DICOM", "StudyDate", "PatientAge", "label_group", "Year"]
REPORTS = "grounded_reports_20240819.json"


def present(english: str, labels: list[str]) -> dict[str, Any]:
    box = {
        "boxes": [[0.1, 0.2, 0.4, 0.5]],
        "extra_boxes": [],
        "locations": ["basal"],
        "progression": None,
    }
    return {
        "sentence_en": english,
        "sentence_es": "Hay algo.",
        "abnormal": True,
        "labels": labels,
        **box,
    }


def absent(english: str | None) -> dict[str, Any]:
    """The published file leaves boxes and labels out where nothing is found."""
    return {"sentence_en": english, "sentence_es": "No hay nada.", "abnormal": False}


FINDINGS = {
    "1": [
        absent("No pneumothorax."),
        present("Enlarged heart, small effusion.", ["cardiomegaly", "pleural effusion"]),
    ],
    "2": [absent("No significant findings.")],
    "3": [present("Scoliosis.", ["scoliosis"])],
    "4": [absent("Clear lungs."), absent(None)],
    "5": [absent("Clear lungs.")],
    "6": [absent("Clear lungs.")],
}
SPLITS = {"1": "train", "2": "validation", "3": "test", "4": "train", "6": "train"}


@pytest.fixture
def padchest_gr(tmp_path: Path) -> Path:
    """Write six studies: 1 has a row per label.

    Study 4 lacks an English sentence, 5 a row in the table, 6 its image.
    """
    folder = tmp_path / "padchest_gr"
    rows = [
        dict.fromkeys(COLUMNS, "")
        | {
            "StudyID": study,
            "ImageID": f"{study}_abc.png",
            "split": split,
            "PatientID": f"p{study}",
        }
        for study, split in [*SPLITS.items(), ("1", "train")]
    ]
    table(folder / "master_table.csv", COLUMNS, [row.values() for row in rows])
    earlier = {"PreviousStudyID": "77", "PreviousImageID": "77_01-1.png"}
    records = [
        {"StudyID": s, "ImageID": f"{s}_abc.png", **earlier, "findings": f}
        for s, f in FINDINGS.items()
    ]
    (folder / REPORTS).write_text(json.dumps(records))
    for study in "12345":
        picture(folder / "Padchest_GR_files" / "PadChest_GR" / f"{study}_abc.png")
    picture(folder / "PadChest_GR_progression_prior_studies" / "77_01-1.png")
    return folder


def test_sentences_labels_and_splits(padchest_gr):
    made = import_from("padchest-gr", padchest_gr)
    studies = {study.id: study for study in made.studies}
    assert {name: (s.patient, s.split) for name, s in studies.items()} == {
        "1": ("p1", "train"),
        "2": ("p2", "val"),
        "3": ("p3", "test"),
    }
    assert studies["1"].findings == "No pneumothorax. Enlarged heart, small effusion."
    assert [(image.path.name, image.view) for image in studies["1"].images] == [
        ("1_abc.png", "frontal")
    ]
    assert studies["1"].labels == {"Cardiomegaly": 1, "Pleural Effusion": 1}
    assert studies["2"].labels == {"No Finding": 1}
    assert studies["3"].labels == {}, "scoliosis is none of the 14, and no normal film"
    assert made.dropped == {
        "a sentence without English": 1,
        "not in the table of splits": 1,
        "no image file": 1,
    }


def test_refusals(padchest_gr):
    with pytest.raises(StudyError, match="source_section"):
        import_from("padchest-gr", padchest_gr, section="impression")
    (padchest_gr / REPORTS).write_text(json.dumps([{"StudyID": "1", "ImageID": "1_abc.png"}]))
    with pytest.raises(StudyError, match=r"source_record.*findings"):
        import_from("padchest-gr", padchest_gr)
    (padchest_gr / REPORTS).write_text("{}")
    with pytest.raises(StudyError, match="source_record"):
        import_from("padchest-gr", padchest_gr)


def test_a_split_of_another_name_is_an_error(padchest_gr):
    table(padchest_gr / "master_table.csv", ["StudyID", "PatientID", "split"], [["1", "p1", "dev"]])
    with pytest.raises(StudyError, match="source_record"):
        import_from("padchest-gr", padchest_gr)
