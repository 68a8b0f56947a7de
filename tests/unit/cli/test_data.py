"""``lmrrg data`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from lmrrg.cli.main import main
from lmrrg.config.data import DataSource
from lmrrg.manifest import read_studies
from tests.support.trees import LARGE, picture, table


def test_phantom_then_jsonl(tmp_path, capsys):
    out = tmp_path / "made" / "studies.jsonl"
    assert (
        main(
            [
                "data",
                "phantom",
                "--out",
                str(out),
                "--count",
                "5,2,3",
                "--size",
                "64",
                "--seed",
                "5",
            ]
        )
        == 0
    )
    shown = capsys.readouterr()
    assert "10 rows read, 10 studies kept" in shown.out
    assert "Pleural Effusion" in shown.out
    assert "10/10" in shown.err, "a progress bar"
    assert len(read_studies(out, "test")) == 3
    assert json.loads(out.with_suffix(".audit.json").read_text())["kept"] == 10

    copy = tmp_path / "copy.jsonl"
    arguments = ["--out", str(copy), "--section", "impression", "--quiet"]
    assert main(["data", "jsonl", "--source", str(out), *arguments]) == 0
    assert [s.id for s in read_studies(copy)] == [s.id for s in read_studies(out)]
    assert [s.images[0].path.resolve() for s in read_studies(copy)] == [
        s.images[0].path.resolve() for s in read_studies(out)
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["iu-xray", "--out", "x.jsonl"], "--source is required"),
        (["r2gen", "--source", "nowhere", "--out", "x.jsonl"], "source_missing"),
        (["jsonl", "--source", "nowhere.jsonl", "--out", "x.jsonl"], "manifest_missing"),
        (["csv", "--source", "x.v1", "--out", "x.v1"], "must end in .jsonl"),
        (["jsonl", "--source", "there.jsonl", "--out", "there.jsonl"], "bad_output"),
        (
            ["csv", "--source", "a.csv", "--labels", "there.jsonl", "--out", "there.jsonl"],
            "bad_output",
        ),
        (["csv", "--source", "a.csv", "--out", "folder.jsonl"], "bad_output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").write_text("precious")
    (tmp_path / "folder.jsonl").mkdir()
    assert main(["data", *arguments]) == 2
    shown = capsys.readouterr().err.strip()
    assert said in shown
    assert len(shown.splitlines()) == 1
    assert not (tmp_path / "x.jsonl").exists()
    assert (tmp_path / "there.jsonl").read_text() == "precious"


def test_help_names_every_source(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name in get_args(DataSource):
        assert f"\n  {name} " in shown, "a line that says what --source names"
    for word in (
        "audit.json",
        "--labels",
        "--section",
        "--count",
        "--hash-images",
        "LMRRG_ID_SALT",
    ):
        assert word in shown
    assert max(len(line) for line in shown.splitlines()) <= 120


@pytest.fixture
def damaged(tmp_path) -> Path:
    """Return the table of three studies, of which the second has no image that can be read."""
    for number in range(3):
        picture(tmp_path / f"{number}.png", seed=number)
    (tmp_path / "1.png").write_bytes(b"nothing")
    rows = [[f"s{number}", f"p{number}", f"{number}.png", LARGE] for number in range(3)]
    columns = ["study_id", "patient_id", "image", "findings"]
    return table(tmp_path / "films.csv", columns, rows)


def test_refused_images_are_listed_at_the_import(tmp_path, damaged, capsys):
    out = tmp_path / "studies.jsonl"
    listed = tmp_path / "studies.refused.csv"
    arguments = ["data", "csv", "--source", str(damaged), "--out", str(out), "--quiet"]
    assert main([*arguments, "--ids", "published", "--check-images"]) == 0
    shown = capsys.readouterr().out
    assert "images read: 3; refused: not_an_image 1; flagged: not_a_chest_film 2" in shown
    assert f"refused: {tmp_path / '1.png'} (not_an_image)" in shown
    assert "--skip-refused-images leaves them out" in shown
    assert listed.read_text() == f"image,code\n{tmp_path / '1.png'},not_an_image\n"
    assert len(read_studies(out)) == 3

    assert main([*arguments, "--ids", "published", "--skip-refused-images"]) == 0
    assert "no image that can be read" in capsys.readouterr().out
    assert sorted(study.id for study in read_studies(out)) == ["s0", "s2"]
    check = json.loads(out.with_suffix(".audit.json").read_text())["image_check"]
    assert check == {
        "images": 3,
        "refused": {"not_an_image": 1},
        "flagged": {"not_a_chest_film": 2},
        "left_out": 1,
    }

    assert main([*arguments, "--ids", "published"]) == 0
    assert not listed.exists(), "the list belongs to another manifest"
    assert json.loads(out.with_suffix(".audit.json").read_text())["image_check"] is None


def test_copies_are_looked_for_when_asked(tmp_path, capsys):
    out = tmp_path / "studies.jsonl"
    assert (
        main(
            [
                "data",
                "phantom",
                "--out",
                str(out),
                "--count",
                "2,1,1",
                "--size",
                "64",
                "--hash-images",
            ]
        )
        == 0
    )
    assert "0 copies among 4 images" in capsys.readouterr().out
    assert (
        json.loads(out.with_suffix(".audit.json").read_text())["image_duplicates"]["distinct"] == 4
    )
