"""Fixtures of the unit tests: the checkout, and small data sets that several test files read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.manifest import write_studies
from lmrrg.studies import Study, StudyImage
from tests.support.paths import ROOT
from tests.support.trees import CLEAR, LARGE, picture, table


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
    columns = [
        "uid",
        "MeSH",
        "Problems",
        "image",
        "indication",
        "comparison",
        "findings",
        "impression",
    ]
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


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    studies = [
        Study(
            "a",
            "p1",
            (StudyImage(picture(folder / "x" / "a.png"), "PA"),),
            findings=CLEAR,
            labels={"Edema": 0},
        ),
        Study("b", "p2", (StudyImage(folder / "x" / "gone.png", "PA"),), findings=CLEAR),
        Study("c", "p3", (StudyImage(picture(folder / "x" / "c.png"), "unknown"),), findings=LARGE),
    ]
    write_studies(folder / "m.jsonl", studies)
    return folder / "m.jsonl"


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout that is tested."""
    return ROOT
