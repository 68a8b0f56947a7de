"""Every source from a small tree in its exact format, and the audit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmrrg.data.importing import read_labels, split_of_patient
from lmrrg.studies import StudyError
from tests.support.trees import CLEAR, LARGE, annotate, import_from, labels_csv, picture, real_iu


def test_iu_with_made_splits(iu):
    made = import_from("iu-xray", iu)
    by_id = {study.id: study for study in made.studies}
    assert set(by_id) == {"CXR1", "CXR2", "CXR6"}
    assert made.dropped == {
        "no image file": 1,
        "no frontal image": 1,
        "no text in the section findings": 1,
    }
    assert [image.view for image in by_id["CXR1"].images] == ["frontal", "lateral"], "frontal first"
    assert by_id["CXR1"].images[0].path.name == "1_IM-0001-4001.dcm.jpg"
    assert [image.view for image in by_id["CXR2"].images] == ["frontal"], (
        "the lateral file is absent"
    )
    assert by_id["CXR6"].findings == 'Two lines, "quoted".'
    assert by_id["CXR1"].indication == "Cough"
    assert by_id["CXR1"].split == split_of_patient("CXR1", 7)
    assert by_id["CXR2"].labels == {"Cardiomegaly": 1}


def test_iu_with_the_published_splits(iu):
    annotate(iu, train=["CXR1_IM-0001", "CXR4_IM-2050"], val=["CXR2_IM-0652"])
    made = import_from("iu-xray", iu)
    assert {s.id: s.split for s in made.studies} == {
        "CXR1": "train",
        "CXR4": "train",
        "CXR2": "val",
    }
    assert made.dropped["in no split of the source"] == 1
    assert made.notes["lateral views only"].startswith("1 ")


def test_iu_impressions(iu):
    made = import_from("iu-xray", iu, section="impression")
    assert {study.id for study in made.studies} == {"CXR1", "CXR3"}


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda iu: (iu / "indiana_reports.csv").unlink(), "source_missing"),
        (
            lambda iu: (iu / "indiana_projections.csv").write_text("uid,file\n1,x\n"),
            "source_columns",
        ),
        (lambda iu: (iu / "r2gen_annotation.json").write_text("{"), "source_json"),
        (lambda iu: annotate(iu, train=["odd-id"]), "source_record"),
        (lambda iu: [path.unlink() for path in (iu / "images").iterdir()], "no_studies"),
    ],
)
def test_iu_refusals(iu, damage, code):
    damage(iu)
    with pytest.raises(StudyError) as caught:
        import_from("iu-xray", iu)
    assert caught.value.code == code


@pytest.fixture
def r2gen(tmp_path: Path) -> Path:
    folder = tmp_path / "r2gen"

    def record(name: str, report: str, images: int, **more) -> dict:
        paths = [f"{name}/{number}.png" for number in range(images)]
        for number, path in enumerate(paths):
            picture(folder / "images" / path, number)
        return {"id": name, "report": report, "image_path": paths, **more}

    annotation = {
        "train": [record("CXR1_IM-0001", CLEAR, 2), record("CXR2_IM-0652", " ", 2)],
        "val": [record("abc", LARGE, 1, subject_id=17)],
        "test": [record("CXR9_IM-1", CLEAR, 2)],
    }
    (folder / "images" / "CXR9_IM-1" / "0.png").unlink()
    (folder / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
    return folder


def test_r2gen(r2gen):
    made = import_from("r2gen", r2gen)
    studies = {study.id: study for study in made.studies}
    assert {name: study.split for name, study in studies.items()} == {
        "CXR1_IM-0001": "train",
        "abc": "val",
        "CXR9_IM-1": "test",
    }
    assert [image.view for image in studies["CXR1_IM-0001"].images] == ["frontal", "lateral"]
    assert [image.view for image in studies["CXR9_IM-1"].images] == ["lateral"]
    assert [image.view for image in studies["abc"].images] == ["unknown"]
    assert studies["abc"].patient == "17"
    assert studies["CXR1_IM-0001"].patient == "CXR1"
    assert made.dropped == {"no text in the section findings": 1}
    with pytest.raises(StudyError, match="source_section"):
        import_from("r2gen", r2gen, section="impression")


def test_r2gen_refuses_a_broken_record(r2gen):
    (r2gen / "annotation.json").write_text(
        json.dumps({"train": [{"id": "a", "report": "b"}]}), encoding="utf-8"
    )
    with pytest.raises(StudyError, match=r"source_record.*train\[0\].*image_path"):
        import_from("r2gen", r2gen)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"train": 1}, "train is no list"),
        ({"train": [], "val": None}, "val is no list"),
        ({"train": {"id": "a"}}, "train is no list"),
        ({"train": [5]}, r"train\[0\]"),
        ({"train": [{"id": "a", "report": "b", "image_path": [1]}]}, r"train\[0\]: image_path"),
        (
            {"train": [{"id": "a", "report": "b", "image_path": "a/0.png"}]},
            r"train\[0\]: image_path",
        ),
        ({"train": [{"id": "a", "report": 5, "image_path": []}]}, r"train\[0\]: report"),
        ({"train": [{"id": None, "report": "b", "image_path": []}]}, r"train\[0\]: id"),
        (
            {"train": [{"id": "a", "subject_id": [1], "report": "b", "image_path": []}]},
            r"train\[0\]: id or subject_id",
        ),
    ],
)
def test_r2gen_refuses_values_of_another_type(r2gen, annotation, words):
    (r2gen / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
    with pytest.raises(StudyError, match=f"source_record.*{words}"):
        import_from("r2gen", r2gen)


def test_r2gen_takes_a_report_that_is_null_as_one_without_text(r2gen):
    annotation = json.loads((r2gen / "annotation.json").read_text())
    annotation["train"][1]["report"] = None
    (r2gen / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
    assert import_from("r2gen", r2gen).dropped == {"no text in the section findings": 1}


def test_jsonl(manifest):
    made = import_from("jsonl", manifest)
    assert {study.id: study.labels for study in made.studies} == {
        "a": {"Edema": 0},
        "c": {"Cardiomegaly": 1},
    }
    assert made.dropped == {"no image file": 1}
    assert all(study.split for study in made.studies)


def test_jsonl_images_elsewhere(manifest, tmp_path):
    moved = tmp_path / "moved"
    picture(moved / "x" / "b.png")
    picture(moved / "x" / "gone.png")
    made = import_from("jsonl", manifest, images=moved)
    assert [(study.id, study.images[0].path) for study in made.studies] == [
        ("b", moved / "x" / "gone.png")
    ]


def test_jsonl_refuses_a_bad_line(manifest):
    manifest.write_text(manifest.read_text() + '{"id": "z"}\n')
    with pytest.raises(StudyError, match="manifest_line"):
        import_from("jsonl", manifest)


def test_labels_from_a_file(iu, tmp_path):
    rows = {
        "CXR1": {"No Finding": "1.0"},
        "CXR2": {"Cardiomegaly": "-1", "Edema": "0"},
        "CXR6": {},
        "CXR77": {},
    }
    made = import_from("iu-xray", iu, labels=labels_csv(tmp_path / "l.csv", rows))
    assert {study.id: study.labels for study in made.studies} == {
        "CXR1": {"No Finding": 1},
        "CXR2": {"Cardiomegaly": -1, "Edema": 0},
        "CXR6": {},
    }
    assert made.audit()["labels"]["Cardiomegaly"] == {"positive": 0, "negative": 0, "uncertain": 1}  # type: ignore[index]


def test_labels_files_that_are_refused(iu, tmp_path):
    def code_of(path: Path) -> str:
        with pytest.raises(StudyError) as caught:
            import_from("iu-xray", iu, labels=path)
        return caught.value.code

    assert code_of(tmp_path / "none.csv") == "labels_missing_file"
    assert code_of(labels_csv(tmp_path / "a.csv", {"CXR1": {}})) == "labels_missing"
    assert code_of(labels_csv(tmp_path / "b.csv", {"CXR1": {"Edema": "2"}})) == "labels_value"
    assert code_of(labels_csv(tmp_path / "c.csv", {"CXR1": {"Edema": "yes"}})) == "labels_value"
    (tmp_path / "d.csv").write_text("study_id,Edema\nCXR1,1\n")
    assert code_of(tmp_path / "d.csv") == "labels_columns"
    whole = labels_csv(tmp_path / "f.csv", {"CXR1": {}, "CXR2": {}}).read_text().rstrip()
    for cut in (whole[:-1], whole + ",1"):
        (tmp_path / "f.csv").write_text(cut)
        assert code_of(tmp_path / "f.csv") == "source_csv", "a row that does not fit"
    twice = labels_csv(tmp_path / "e.csv", {"CXR1": {}})
    twice.write_text(twice.read_text() + "CXR1" + "," * 14 + "\n")
    assert code_of(twice) == "labels_duplicate"
    assert read_labels(labels_csv(tmp_path / "f.csv", {"s": {"Edema": "1"}})) == {"s": {"Edema": 1}}


def test_split_by_patient_is_stable_and_near_80_10_10():
    splits = [split_of_patient(f"p{n}", 7) for n in range(5000)]
    assert splits == [split_of_patient(f"p{n}", 7) for n in range(5000)]
    shares = [splits.count(name) / 5000 for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)
    assert splits != [split_of_patient(f"p{n}", 8) for n in range(5000)]


def test_real_iu_xray(repo_root):
    made = import_from("iu-xray", real_iu(repo_root))
    audit = made.audit()
    assert audit["splits"] == {"train": 2069, "val": 296}
    assert made.rows == 3261 == len(made.studies) + sum(made.dropped.values())
    assert audit["patients_in_two_splits"] == 0
    assert all(study.images[0].path.is_file() for study in made.studies)
