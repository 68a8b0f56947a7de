"""Reports of many studies into one file: what is written, refused, continued."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmrrg.cli.main import main
from lmrrg.config.data import DataConfig
from lmrrg.errors import CodedError
from lmrrg.imaging.batch import RefusedImage
from lmrrg.manifest import write_studies
from lmrrg.metrics.report_files import read_reports
from lmrrg.studies import Study, StudyImage
from serve_app import batch
from serve_app.batch import FilmStudy, part_path, write_reports
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ModelInfo, ReportResponse
from tests.support.trees import picture

MODEL = ModelInfo(version="sha256:1", architecture="LMRRG", decoder="llama", provenance={})


class FakeReporter:
    """Fake reporter: a report names the views and sizes of its images, and what it was told."""

    def __init__(self, fail_at: int = 10**9) -> None:
        self.batches: list[int] = []
        self._fail_at = fail_at

    def write(self, studies: Sequence[UploadedStudy]) -> list[ReportResponse]:
        if len(self.batches) == self._fail_at:
            raise KeyboardInterrupt
        self.batches.append(len(studies))
        return [self._response(study) for study in studies]

    def close(self) -> None:
        pass

    @staticmethod
    def _response(study: UploadedStudy) -> ReportResponse:
        seen = [f"{image.view} {image.pixels.shape[0]}" for image in study.images]
        return ReportResponse(
            findings=f"{', '.join(seen)}; {study.indication}; {study.prior}.",
            complete=True,
            probabilities={"Edema": 0.5},
            images=[],
            images_not_used=0,
            indication_used=False,
            prior_used=False,
            regions=None,
            model=MODEL,
            generated_at=datetime.now(UTC),
            seconds=0.1,
        )


def films(tmp_path: Path, count: int) -> list[FilmStudy]:
    """Studies of two images, of which the second of the first study is damaged."""
    studies = []
    for number in range(count):
        front = picture(tmp_path / f"{number}f.png", number)
        side = picture(tmp_path / f"{number}l.png", number)
        images = (StudyImage(front), StudyImage(side, "lateral"))
        studies.append(FilmStudy(f"s{number}", images, indication=f"why {number}"))
    (tmp_path / "0l.png").write_bytes(b"damaged")
    return studies


def write(studies: Sequence[FilmStudy], reporter: Any, out: Path) -> list[RefusedImage]:
    settings = DataConfig(decode_workers=0)
    return write_reports(studies, reporter, MODEL.version, settings, 64, out, progress=False)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_study_has_a_record_that_score_reads(tmp_path):
    out = tmp_path / "out" / "reports.jsonl"
    refused = write(films(tmp_path, 3), FakeReporter(), out)
    assert refused == [RefusedImage(tmp_path / "0l.png", "not_an_image")]
    assert [record["report"] for record in records(out)] == [
        "unknown 64; why 0; .",
        "unknown 64, lateral 64; why 1; .",
        "unknown 64, lateral 64; why 2; .",
    ]
    assert all("For research only" in record["notice"] for record in records(out))
    named = records(out)[0]["files_refused"]
    assert named == [{"file": str(tmp_path / "0l.png"), "code": "not_an_image"}]
    assert read_reports(out, "hypotheses").study_ids == ("s0", "s1", "s2")
    assert not part_path(out).exists()


def test_a_study_without_an_image_has_no_record(tmp_path):
    studies = films(tmp_path, 2)
    (tmp_path / "1f.png").unlink()
    (tmp_path / "1l.png").write_bytes(b"damaged")
    refused = write(studies, FakeReporter(), tmp_path / "r.jsonl")
    assert [image.code for image in refused] == ["not_an_image", "file_missing", "not_an_image"]
    assert [record["study_id"] for record in records(tmp_path / "r.jsonl")] == ["s0"]
    with pytest.raises(CodedError, match="no_reports"):
        write(studies[1:], FakeReporter(), tmp_path / "none.jsonl")
    assert not list(tmp_path.glob("none*"))


def test_a_stopped_run_continues_and_gives_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "BATCH", 2)
    studies = films(tmp_path, 7)
    out = tmp_path / "r.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(studies, FakeReporter(fail_at=2), out)
    assert not out.exists()
    with part_path(out).open("a") as part:
        part.write('{"study_id": "s4", "half')
    reporter = FakeReporter()
    refused = write(studies, reporter, out)
    assert reporter.batches == [2, 1]
    assert [record["study_id"] for record in records(out)] == [study.id for study in studies]
    # Known from the part that was written before.
    assert [image.path.name for image in refused] == ["0l.png"]


@pytest.mark.parametrize("changed", ["model", "studies"])
def test_what_another_model_or_other_films_gave_is_not_continued(tmp_path, monkeypatch, changed):
    monkeypatch.setattr(batch, "BATCH", 2)
    studies = films(tmp_path, 4)
    out = tmp_path / "r.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(studies, FakeReporter(fail_at=1), out)
    if changed == "model":
        part_path(out).write_text(part_path(out).read_text().replace("sha256:1", "sha256:0"))
    else:
        studies = studies[1:]
    reporter = FakeReporter()
    write(studies, reporter, out)
    assert sum(reporter.batches) == len(studies)
    assert [record["study_id"] for record in records(out)] == [study.id for study in studies]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Return a function that runs ``lmrrg generate`` with a fake reporter."""
    monkeypatch.setattr("serve_app.reporter.Reporter", lambda *_: FakeReporter())
    monkeypatch.setattr("serve_app.reporter.model_info", lambda _: MODEL)
    inputs = (None, SimpleNamespace(image_size=64))
    monkeypatch.setattr("lmrrg.model.checkpoint.checkpoint_settings", lambda _: inputs)

    def run(*arguments: str) -> int:
        out = ["--out", str(tmp_path / "reports.jsonl"), "--quiet"]
        return main(["generate", "--checkpoint", "model", *out, *arguments])

    return run


def test_the_command_writes_reports_for_a_folder_and_lists_refusals(command, tmp_path, capsys):
    films(tmp_path / "films", 2)
    assert command("--images", str(tmp_path / "films"), "--study-per", "file") == 0
    shown = capsys.readouterr()
    assert "3 of 4 studies have a report" in shown.out
    assert "0l.png (not_an_image)" in shown.err
    assert [record["study_id"] for record in records(tmp_path / "reports.jsonl")] == [
        "0f.png",
        "1f.png",
        "1l.png",
    ]
    with (tmp_path / "reports.refused.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert listed == [{"file": str(tmp_path / "films" / "0l.png"), "code": "not_an_image"}]


def test_the_command_reads_indication_and_prior_of_a_manifest(command, tmp_path):
    image = (StudyImage(picture(tmp_path / "a.png"), "PA"),)
    studies = [
        Study("s1", "p", image, findings="Old.", split="test"),
        Study("s2", "p", image, indication="Cough", split="test", prior="s1"),
    ]
    write_studies(tmp_path / "studies.jsonl", studies)
    assert command("--studies", str(tmp_path / "studies.jsonl"), "--split", "test") == 0
    reports = [record["report"] for record in records(tmp_path / "reports.jsonl")]
    assert reports == ["PA 64; ; .", "PA 64; Cough; Old.."]


def test_the_command_refuses_bad_arguments_in_one_sentence(command, tmp_path, capsys):
    assert command("--images", str(tmp_path / "absent")) == 2
    assert capsys.readouterr().err.startswith("lmrrg generate: source_missing")
    manifest = tmp_path / "studies.jsonl"
    image = (StudyImage(picture(tmp_path / "a.png")),)
    write_studies(manifest, [Study("s1", "p", image, split="train")])
    assert command("--studies", str(manifest), "--split", "test") == 2
    assert "no_studies" in capsys.readouterr().err
    assert main(["generate", "--checkpoint", "m", "--images", "d", "--out", "r.json"]) == 2
    assert "must end in .jsonl" in capsys.readouterr().err
