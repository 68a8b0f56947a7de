"""The one door to studies that runs use: what makes a manifest anew, and what keeps it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.imaging.radiograph import ImageError
from lmrrg.manifest import read_studies
from lmrrg.run.record import record_run
from lmrrg.run.studies import import_checked, prepare_studies, studies_of
from lmrrg.studies import StudyError
from tests.support.trees import LARGE, annotate, labels_csv, picture, table


def phantom_config(folder: Path, *overrides: str) -> Config:
    counts = [
        "data.phantom.train=6",
        "data.phantom.val=2",
        "data.phantom.test=3",
        "data.phantom.image_size=64",
    ]
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
    overrides = [
        "data.source=csv",
        f"data.path={path}",
        "data.ids=published",
        f"storage_path={tmp_path}",
        "name=r",
    ]
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
    prepare_studies(
        phantom_config(tmp_path, "data.train_limit=2", "data.cache_dir=/elsewhere"), progress=False
    )
    assert manifest.stat().st_mtime_ns == before


def test_a_failed_import_leaves_no_manifest_that_passes_for_current(tmp_path, iu):
    prepare_studies(phantom_config(tmp_path), progress=False)
    broken = phantom_config(tmp_path, "data.source=iu-xray", f"data.path={tmp_path / 'nowhere'}")
    with pytest.raises(StudyError, match="source_missing"):
        prepare_studies(broken, progress=False)
    fixed = phantom_config(tmp_path, "data.source=iu-xray", f"data.path={iu}")
    assert {study.id for study in read_studies(prepare_studies(fixed, progress=False))} == {
        "CXR1",
        "CXR2",
        "CXR6",
    }


def iu_run(folder: Path, iu: Path, *overrides: str) -> Config:
    return phantom_config(folder, "data.source=iu-xray", f"data.path={iu}", *overrides)


def test_prepare_studies_again_after_a_table_of_the_source_changed(tmp_path, iu, caplog):
    config = iu_run(tmp_path, iu)
    prepare_studies(config, progress=False)
    reports = iu / "indiana_reports.csv"
    reports.write_text(reports.read_text().replace(LARGE, "The heart is normal."))
    texts = {
        study.id: study.findings for study in read_studies(prepare_studies(config, progress=False))
    }
    assert texts["CXR2"] == "The heart is normal."
    assert (
        f"{config.run_dir / 'studies.jsonl'} is made anew: the source's tables changed"
        in caplog.text
    )
    annotate(iu, train=["CXR1_IM-0001"], val=["CXR2_IM-0652"])
    splits = {
        study.id: study.split for study in read_studies(prepare_studies(config, progress=False))
    }
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
    monkeypatch.setattr("lmrrg.run.origin.READERS_VERSION", 1000)
    prepare_studies(iu_run(tmp_path, iu), progress=False)
    assert "how the source is read changed" in caplog.text


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_studies_that_a_run_has_worked_on_stay_when_other_ones_are_asked_for(tmp_path):
    config = phantom_config(tmp_path)
    record_run(config, prepare_studies(config, progress=False))
    before = _contents(config.run_dir)
    for other in ("seed=8", "data.phantom.train=7", "data.section=impression"):
        key = other.split("=")[0]
        with pytest.raises(
            StudyError, match=rf"resume_mismatch: .* on other studies: other values of {key};"
        ):
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
    with pytest.raises(
        StudyError, match=r"resume_mismatch: .* the source, or how it is read, changed"
    ):
        prepare_studies(config, progress=False)
    reports.rename(iu / "away.csv")
    with pytest.raises(StudyError, match="source_missing"):
        prepare_studies(config, progress=False)
    assert _contents(config.run_dir) == before
    reports.write_text(whole + "\n")
    assert (
        prepare_studies(config, progress=False).read_bytes()
        == before[config.run_dir / "studies.jsonl"]
    )


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


@pytest.mark.parametrize(
    "case", ["made before tables were recorded", "images touched", "source gone"]
)
def test_a_manifest_is_kept_where_no_table_is_known_to_have_changed(
    tmp_path, manifest, case, monkeypatch
):
    config = phantom_config(tmp_path, "data.source=jsonl", f"data.path={manifest}")
    made = prepare_studies(config, progress=False)
    monkeypatch.setattr(
        "lmrrg.run.studies.import_studies", lambda *_, **__: pytest.fail("imported again")
    )
    if case == "made before tables were recorded":
        _forget(made.with_suffix(".made_from.json"), "readers", "tables")
    elif case == "images touched":
        os.utime(manifest.parent / "x" / "a.png", ns=(1, 1))
    else:
        manifest.unlink()
    assert prepare_studies(config, progress=False) == made


@pytest.mark.parametrize("record", ["[]", "{}", "1", "{"])
def test_a_damaged_record_is_no_reason_to_keep_a_manifest(tmp_path, record):
    made_from = prepare_studies(phantom_config(tmp_path), progress=False).with_suffix(
        ".made_from.json"
    )
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


def test_a_run_stops_at_refused_images_at_once_or_leaves_them_out(tmp_path, iu):
    for image in list(read_studies(prepare_studies(iu_run(tmp_path, iu), progress=False)))[:1]:
        for film in image.images:
            film.path.write_bytes(b"nothing")
    config = iu_run(tmp_path, iu, "name=checked", "data.check_images=true")
    with pytest.raises(
        ImageError, match=r"refused_images: .*\(not_an_image\).*skip_refused_images"
    ):
        prepare_studies(config, progress=False)
    assert not (config.run_dir / "studies.jsonl").exists()
    config = iu_run(tmp_path, iu, "name=fewer", "data.skip_refused_images=true")
    assert len(read_studies(prepare_studies(config, progress=False))) == 2


@pytest.mark.parametrize("check", [True, False])
def test_views_are_checked_where_the_settings_ask_for_it(tmp_path, iu, monkeypatch, check):
    def checked(studies, *_, **__):
        return studies[:1], {"images": 1, "filled": 1}

    monkeypatch.setattr("lmrrg.vision.view_classifier.checked_views", checked)
    config = iu_run(tmp_path, iu, f"data.check_views={str(check).lower()}")
    imported = import_checked(config.data, tmp_path, 7, progress=False)
    assert len(imported.studies) == (1 if check else 3)
    assert bool(imported.views) == check
    assert len(read_studies(prepare_studies(config, progress=False))) == len(imported.studies)
