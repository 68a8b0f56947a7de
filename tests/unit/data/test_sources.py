"""Every source from a small tree in its exact format, the audit, and the one door that runs use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from trees import CLEAR, LARGE, import_from, picture, real_iu, table

from lmrrg.config import Config, load_config
from lmrrg.data.importing import read_labels, split_of_patient
from lmrrg.data.sources import prepare_studies, studies_of
from lmrrg.studies import LABELS, Study, StudyError, StudyImage, read_studies, write_studies
from lmrrg.tracking import record_run


@pytest.fixture
def iu(tmp_path: Path) -> Path:
    """Six reports in the Open-i form; the CSV says .png, the files are .jpg."""
    folder = tmp_path / "iu"
    reports = [
        ["1", "normal", "normal", "Chest", "Cough", "None.", CLEAR, "Normal chest."],
        ["2", "x", "x", "Chest", "", "", LARGE, ""],
        ["3", "x", "x", "Chest", "", "", "", "Only an impression."],
        ["4", "x", "x", "Chest", "", "", "Lateral only, XXXX.", ""],
        ["5", "x", "x", "Chest", "", "", "No image on disk.", ""],
        ["6", "x", "x", "Chest", "", "", '  Two\n lines, "quoted".  ', ""],
    ]
    folder.mkdir()
    columns = ["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"]
    table(folder / "indiana_reports.csv", columns, reports)
    views = [
        ["1", "1_IM-0001-3001.dcm.png", "Lateral"],
        ["1", "1_IM-0001-4001.dcm.png", "Frontal"],
        ["2", "2_IM-0652-1001.dcm.png", "Frontal"],
        ["2", "2_IM-0652-2001.dcm.png", "Lateral"],
        ["3", "3_IM-1384-1001.dcm.png", "Frontal"],
        ["4", "4_IM-2050-1001.dcm.png", "Lateral"],
        ["5", "5_IM-2117-1003002.dcm.png", "Frontal"],
        ["6", "6_IM-2192-1001.dcm.png", "Frontal"],
    ]
    table(folder / "indiana_projections.csv", ["uid", "filename", "projection"], views)
    for number, (uid, name, _) in enumerate(views):
        if uid != "5" and "2001" not in name:
            picture(folder / "images" / name.replace(".png", ".jpg"), number)
    return folder


def annotate(folder: Path, **splits: list[str]) -> None:
    records = {split: [{"id": name} for name in names] for split, names in splits.items()}
    (folder / "r2gen_annotation.json").write_text(json.dumps(records), encoding="utf-8")


def test_iu_with_made_splits(iu):
    made = import_from("iu-xray", iu)
    by_id = {study.id: study for study in made.studies}
    assert set(by_id) == {"CXR1", "CXR2", "CXR6"}
    assert made.dropped == {"no image file": 1, "no frontal image": 1, "no text in the section findings": 1}
    assert [image.view for image in by_id["CXR1"].images] == ["frontal", "lateral"], "frontal first"
    assert by_id["CXR1"].images[0].path.name == "1_IM-0001-4001.dcm.jpg"
    assert [image.view for image in by_id["CXR2"].images] == ["frontal"], "the lateral file is absent"
    assert by_id["CXR6"].findings == 'Two lines, "quoted".'
    assert by_id["CXR1"].indication == "Cough"
    assert by_id["CXR1"].split == split_of_patient("CXR1", 7)
    assert by_id["CXR2"].labels == {"Cardiomegaly": 1}


def test_iu_with_the_published_splits(iu):
    annotate(iu, train=["CXR1_IM-0001", "CXR4_IM-2050"], val=["CXR2_IM-0652"])
    made = import_from("iu-xray", iu)
    assert {s.id: s.split for s in made.studies} == {"CXR1": "train", "CXR4": "train", "CXR2": "val"}
    assert made.dropped["in no split of the source"] == 1
    assert made.notes["lateral views only"].startswith("1 ")


def test_iu_impressions(iu):
    made = import_from("iu-xray", iu, section="impression")
    assert {study.id for study in made.studies} == {"CXR1", "CXR3"}


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda iu: (iu / "indiana_reports.csv").unlink(), "source_missing"),
        (lambda iu: (iu / "indiana_projections.csv").write_text("uid,file\n1,x\n"), "source_columns"),
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
    (r2gen / "annotation.json").write_text(json.dumps({"train": [{"id": "a", "report": "b"}]}), encoding="utf-8")
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
        ({"train": [{"id": "a", "report": "b", "image_path": "a/0.png"}]}, r"train\[0\]: image_path"),
        ({"train": [{"id": "a", "report": 5, "image_path": []}]}, r"train\[0\]: report"),
        ({"train": [{"id": None, "report": "b", "image_path": []}]}, r"train\[0\]: id"),
        ({"train": [{"id": "a", "subject_id": [1], "report": "b", "image_path": []}]}, r"train\[0\]: id or subject_id"),
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


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    studies = [
        Study("a", "p1", (StudyImage(picture(folder / "x" / "a.png"), "PA"),), findings=CLEAR, labels={"Edema": 0}),
        Study("b", "p2", (StudyImage(folder / "x" / "gone.png", "PA"),), findings=CLEAR),
        Study("c", "p3", (StudyImage(picture(folder / "x" / "c.png"), "unknown"),), findings=LARGE),
    ]
    write_studies(folder / "m.jsonl", studies)
    return folder / "m.jsonl"


def test_jsonl(manifest):
    made = import_from("jsonl", manifest)
    assert {study.id: study.labels for study in made.studies} == {"a": {"Edema": 0}, "c": {"Cardiomegaly": 1}}
    assert made.dropped == {"no image file": 1}
    assert all(study.split for study in made.studies)


def test_jsonl_images_elsewhere(manifest, tmp_path):
    moved = tmp_path / "moved"
    picture(moved / "x" / "b.png")
    picture(moved / "x" / "gone.png")
    made = import_from("jsonl", manifest, images=moved)
    assert [(study.id, study.images[0].path) for study in made.studies] == [("b", moved / "x" / "gone.png")]


def test_jsonl_refuses_a_bad_line(manifest):
    manifest.write_text(manifest.read_text() + '{"id": "z"}\n')
    with pytest.raises(StudyError, match="manifest_line"):
        import_from("jsonl", manifest)


def labels_csv(path: Path, rows: dict[str, dict[str, str]]) -> Path:
    lines = [[name, *(row.get(label, "") for label in LABELS)] for name, row in rows.items()]
    table(path, ["study_id", *LABELS], lines)
    return path


def test_labels_from_a_file(iu, tmp_path):
    rows = {"CXR1": {"No Finding": "1.0"}, "CXR2": {"Cardiomegaly": "-1", "Edema": "0"}, "CXR6": {}, "CXR77": {}}
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


def phantom_config(folder: Path, *overrides: str) -> Config:
    counts = ["data.phantom.train=6", "data.phantom.val=2", "data.phantom.test=3", "data.phantom.image_size=64"]
    return load_config(None, [f"storage_path={folder}", "name=run", *counts, *overrides])


def test_prepare_studies_is_made_once(tmp_path):
    config = phantom_config(tmp_path)
    manifest = prepare_studies(config, progress=False)
    assert manifest == config.run_dir / "studies.jsonl"
    before = manifest.stat().st_mtime_ns
    assert prepare_studies(config, progress=False).stat().st_mtime_ns == before
    audit = json.loads((config.run_dir / "studies.audit.json").read_text())
    assert audit["kept"] == 11
    assert audit["splits"] == {"train": 6, "val": 2, "test": 3}


def test_prepare_studies_again_after_other_settings_or_an_edit(tmp_path):
    first = prepare_studies(phantom_config(tmp_path), progress=False).read_text()
    other = prepare_studies(phantom_config(tmp_path, "seed=8"), progress=False)
    assert other.read_text() != first
    again = prepare_studies(phantom_config(tmp_path), progress=False)
    assert again.read_text() == first
    again.write_text(first.replace("Normal", "Edited") + "\n")
    assert prepare_studies(phantom_config(tmp_path), progress=False).read_text() == first


def test_prepare_studies_again_after_the_source_was_corrected(tmp_path):
    picture(tmp_path / "in" / "x.png")
    rows = [[str(i), str(i), "x.png", "Heart is enlarged."] for i in range(40)]
    path = table(tmp_path / "in" / "a.csv", ["study_id", "patient_id", "image", "findings"], rows)
    overrides = ["data.source=csv", f"data.path={path}", "data.ids=published", f"storage_path={tmp_path}", "name=r"]
    config = load_config(None, overrides)
    prepare_studies(config, progress=False)
    rows[0][3] = "Heart is normal now."
    table(path, ["study_id", "patient_id", "image", "findings"], rows)
    assert "normal now" in prepare_studies(config, progress=False).read_text()


def test_prepare_studies_again_when_an_image_is_gone(tmp_path):
    config = phantom_config(tmp_path)
    gone = read_studies(prepare_studies(config, progress=False))[0].images[0].path
    before = gone.read_bytes()
    gone.unlink()
    prepare_studies(config, progress=False)
    assert gone.read_bytes() == before


def test_settings_that_do_not_change_the_studies_keep_them(tmp_path):
    manifest = prepare_studies(phantom_config(tmp_path), progress=False)
    before = manifest.stat().st_mtime_ns
    prepare_studies(phantom_config(tmp_path, "data.train_limit=2", "data.cache_dir=/elsewhere"), progress=False)
    assert manifest.stat().st_mtime_ns == before


def test_a_failed_import_leaves_no_manifest_that_passes_for_current(tmp_path, iu):
    prepare_studies(phantom_config(tmp_path), progress=False)
    broken = phantom_config(tmp_path, "data.source=iu-xray", f"data.path={tmp_path / 'nowhere'}")
    with pytest.raises(StudyError, match="source_missing"):
        prepare_studies(broken, progress=False)
    fixed = phantom_config(tmp_path, "data.source=iu-xray", f"data.path={iu}")
    assert {study.id for study in read_studies(prepare_studies(fixed, progress=False))} == {"CXR1", "CXR2", "CXR6"}


def iu_run(folder: Path, iu: Path, *overrides: str) -> Config:
    return phantom_config(folder, "data.source=iu-xray", f"data.path={iu}", *overrides)


def test_prepare_studies_again_after_a_table_of_the_source_changed(tmp_path, iu, caplog):
    config = iu_run(tmp_path, iu)
    prepare_studies(config, progress=False)
    reports = iu / "indiana_reports.csv"
    reports.write_text(reports.read_text().replace(LARGE, "The heart is normal."))
    texts = {study.id: study.findings for study in read_studies(prepare_studies(config, progress=False))}
    assert texts["CXR2"] == "The heart is normal."
    assert f"{config.run_dir / 'studies.jsonl'} is made anew: the source's tables changed" in caplog.text
    annotate(iu, train=["CXR1_IM-0001"], val=["CXR2_IM-0652"])
    splits = {study.id: study.split for study in read_studies(prepare_studies(config, progress=False))}
    assert splits == {"CXR1": "train", "CXR2": "val"}, "a table that was not there before"


def test_prepare_studies_again_after_the_labels_changed_at_equal_size(tmp_path, iu):
    rows = {name: {"Edema": "0"} for name in ("CXR1", "CXR2", "CXR6")}
    labels = labels_csv(tmp_path / "l.csv", rows)
    config = iu_run(tmp_path, iu, f"data.labels={labels}")
    first = prepare_studies(config, progress=False).read_text()
    before = labels.stat()
    labels_csv(labels, rows | {"CXR2": {"Edema": "1"}})
    os.utime(labels, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert labels.stat().st_size == before.st_size
    assert prepare_studies(config, progress=False).read_text() != first


def test_prepare_studies_again_after_a_revision_of_the_readers(tmp_path, iu, monkeypatch, caplog):
    prepare_studies(iu_run(tmp_path, iu), progress=False)
    monkeypatch.setattr("lmrrg.data.sources.READERS_REVISION", 1000)
    prepare_studies(iu_run(tmp_path, iu), progress=False)
    assert "how the source is read changed" in caplog.text


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_studies_that_a_run_has_worked_on_stay_when_other_ones_are_asked_for(tmp_path):
    config = phantom_config(tmp_path)
    record_run(config, prepare_studies(config, progress=False))
    before = _contents(config.run_dir)
    for other in ("seed=8", "data.phantom.train=7", "data.section=impression"):
        with pytest.raises(StudyError, match=r"resume_mismatch: .*/run has worked on other studies: the settings"):
            prepare_studies(phantom_config(tmp_path, other), progress=False)
        assert _contents(config.run_dir) == before, "the manifest, its record, or a phantom changed"
    prepare_studies(phantom_config(tmp_path, "seed=8"), again=True, progress=False)
    assert _contents(config.run_dir) != before
    prepare_studies(config, progress=False)
    assert _contents(config.run_dir) == before, "there was no way back"


def test_studies_that_a_run_has_worked_on_stay_when_their_source_changes(tmp_path, iu):
    config = iu_run(tmp_path, iu)
    record_run(config, prepare_studies(config, progress=False))
    before = _contents(config.run_dir)
    reports = iu / "indiana_reports.csv"
    whole = reports.read_text()
    reports.write_text(whole.replace(LARGE, "The heart is normal."))
    with pytest.raises(StudyError, match=r"resume_mismatch: .* the source, or how it is read, changed"):
        prepare_studies(config, progress=False)
    reports.rename(iu / "away.csv")
    with pytest.raises(StudyError, match="source_missing"):
        prepare_studies(config, progress=False)
    assert _contents(config.run_dir) == before
    reports.write_text(whole + "\n")
    assert prepare_studies(config, progress=False).read_bytes() == before[config.run_dir / "studies.jsonl"]


def test_a_run_goes_on_when_its_studies_come_back_as_they_were(tmp_path):
    config = phantom_config(tmp_path)
    manifest = prepare_studies(config, progress=False)
    record_run(config, manifest)
    before = _contents(config.run_dir)
    read_studies(manifest)[0].images[0].path.unlink()
    manifest.write_text("edited")
    prepare_studies(config, progress=False)
    assert _contents(config.run_dir) == before


def _forget(made_from: Path, *names: str) -> None:
    known = json.loads(made_from.read_text())
    made_from.write_text(json.dumps({name: known[name] for name in known if name not in names}))


@pytest.mark.parametrize("case", ["made before tables were recorded", "images touched", "source gone"])
def test_a_manifest_is_kept_where_no_table_is_known_to_have_changed(tmp_path, manifest, case, monkeypatch):
    config = phantom_config(tmp_path, "data.source=jsonl", f"data.path={manifest}")
    made = prepare_studies(config, progress=False)
    monkeypatch.setattr("lmrrg.data.sources.import_studies", lambda *_, **__: pytest.fail("imported again"))
    if case == "made before tables were recorded":
        _forget(made.with_suffix(".made_from.json"), "readers", "tables")
    elif case == "images touched":
        os.utime(manifest.parent / "x" / "a.png", ns=(1, 1))
    else:
        manifest.unlink()
    assert prepare_studies(config, progress=False) == made


@pytest.mark.parametrize("record", ["[]", "{}", "1", "{"])
def test_a_damaged_record_is_no_reason_to_keep_a_manifest(tmp_path, record):
    made_from = prepare_studies(phantom_config(tmp_path), progress=False).with_suffix(".made_from.json")
    before = made_from.read_text()
    made_from.write_text(record)
    prepare_studies(phantom_config(tmp_path), progress=False)
    assert made_from.read_text() == before


def test_studies_of_applies_the_limits(tmp_path):
    config = phantom_config(tmp_path, "data.train_limit=4", "data.eval_limit=1")
    with pytest.raises(StudyError, match="manifest_missing"):
        studies_of(config, "train")
    prepare_studies(config, progress=False)
    everything = read_studies(config.run_dir / "studies.jsonl", "train")
    assert studies_of(config, "train") == everything[:4]
    assert len(studies_of(config, "val")) == len(studies_of(config, "test")) == 1


def test_real_iu_xray(repo_root):
    made = import_from("iu-xray", real_iu(repo_root))
    audit = made.audit()
    assert audit["splits"] == {"train": 2069, "val": 296}
    assert made.rows == 3261 == len(made.studies) + sum(made.dropped.values())
    assert audit["patients_in_two_splits"] == 0
    assert all(study.images[0].path.is_file() for study in made.studies)
