"""ReXGradient-160K from a small tree in the published folder and file format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmrrg.studies import StudyError
from tests.support.trees import CLEAR, LARGE, import_from, picture


def record(patient: str, study: str, views: list[str | None], **more: Any) -> dict[str, Any]:
    path = f"../deid_png/{patient}/{study}/studies/1.2/series/1.3/instances"
    names = [f"{path}/1.4.{number}.png" for number in range(len(views))]
    texts = {
        "Indication": "Cough.",
        "Comparison": "None",
        "Findings": CLEAR,
        "Impression": "Normal.",
    }
    person = {
        "PatientID": patient,
        "AccessionNumber": study,
        "PatientSex": "F",
        "PatientAge": "061Y",
    }
    return person | {
        "StudyDate": "20210304",
        "ImagePath": names,
        "ImageViewPosition": views,
        **texts,
        **more,
    }


@pytest.fixture
def rexgradient(tmp_path: Path) -> Path:
    folder = tmp_path / "rexgradient"
    splits = {
        "train": {
            "pA_s1": record("A", "s1", ["LATERAL", "POSTERO_ANTERIOR"]),
            "pA_s2": record("A", "s2", ["AP"], StudyDate="20210401", Findings=LARGE),
            "pB_s1": record("B", "s1", ["PA"], Findings=None),
        },
        "valid": {"pC_s1": record("C", "s1", [None], Impression=float("nan"))},
        "test": {"pD_s1": record("D", "s1", ["PA"]), "pE_s1": record("E", "s1", ["PA"])},
    }
    for split, table in splits.items():
        path = folder / "metadata" / f"{split}_metadata_view_position.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(table))
        for facts in table.values():
            for name in facts["ImagePath"] if facts["PatientID"] != "E" else []:
                picture(folder / name.removeprefix("../"))
    return folder


@pytest.mark.parametrize("patient", [None, float("nan"), "", "N/A"])
def test_studies_without_a_patient_are_not_one_patient(rexgradient, patient):
    path = rexgradient / "metadata" / "train_metadata_view_position.json"
    table = json.loads(path.read_text())
    for name in ("pA_s1", "pA_s2"):
        table[name]["PatientID"] = patient
    path.write_text(json.dumps(table))
    made = import_from("rexgradient", rexgradient)
    assert made.dropped["no study or patient id"] == 2
    assert {study.id for study in made.studies} == {"pC_s1", "pD_s1"}


def test_tables_and_images(rexgradient):
    made = import_from("rexgradient", rexgradient)
    studies = {study.id: study for study in made.studies}
    splits = {"pA_s1": "train", "pA_s2": "train", "pC_s1": "val", "pD_s1": "test"}
    assert {name: study.split for name, study in studies.items()} == splits
    first = studies["pA_s1"]
    assert [image.view for image in first.images] == ["PA", "lateral"]
    assert (first.patient, first.findings, first.impression, first.indication) == (
        "A",
        CLEAR,
        "Normal.",
        "Cough.",
    )
    assert first.comparison == "", "the word None is no comparison"
    assert studies["pC_s1"].impression == ""
    assert studies["pC_s1"].images[0].view == "unknown"
    assert studies["pA_s2"].prior == "pA_s1"
    assert studies["pA_s2"].labels == {"Cardiomegaly": 1}, "the rule-based labeler"
    assert made.dropped == {"no image file": 1, "no text in the section findings": 1}


def test_refusals(rexgradient):
    path = rexgradient / "metadata" / "test_metadata_view_position.json"
    path.write_text(json.dumps({"x": {"PatientID": "A"}}))
    with pytest.raises(StudyError, match=r"source_record.*ImagePath"):
        import_from("rexgradient", rexgradient)
    path.write_text("[]")
    with pytest.raises(StudyError, match=r"source_record: .*test_metadata_view_position\.json"):
        import_from("rexgradient", rexgradient)
    with pytest.raises(StudyError, match="source_missing"):
        import_from("rexgradient", rexgradient / "metadata")
