"""Test the section on the eye: what it says of calibration and of rare classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmrrg.run_report.eye import eye_section
from lmrrg.vision.eye import Eye, save_eye
from lmrrg.vision.eye_validation import validate_eye


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    logits = torch.randn(200, 14) - 1
    targets = torch.bernoulli(logits.sigmoid())
    targets[:, 4] = 0
    targets[:5, 4] = 1
    counted = torch.ones_like(targets, dtype=torch.bool)
    patients = [str(row) for row in range(200)]
    eye = Eye.new("efficientnet_lite0", 32)
    eye.calibration, found = validate_eye(logits, targets, counted, torch.zeros(14), patients)
    target = tmp_path_factory.mktemp("eye") / "best"
    save_eye(eye, target, {"epoch": 3, "validation": found.as_json()})
    return target


def test_it_shows_the_reliability_and_names_rare_classes(folder: Path):
    section = eye_section(folder)
    assert section["studies"] == "200"
    assert section["epoch"] == 3
    assert 0 < float(section["honest_error"].removesuffix(" %")) < 10
    assert "perfectly calibrated" in section["chart"]
    rows = {row["title"]: row for row in section["rows"]}
    assert rows["Edema"]["positives"] == 5
    assert rows["Edema"]["threshold"] == "too few positives"
    assert 0 < float(rows["Cardiomegaly"]["threshold"]) < 1


def test_packaged_weights_have_no_section(tmp_path: Path):
    assert eye_section(tmp_path / "eye") is None


def test_an_eye_that_was_not_validated_has_none(tmp_path: Path):
    save_eye(Eye.new("efficientnet_lite0", 32), tmp_path / "eye", {"stage": "test"})
    assert eye_section(tmp_path / "eye") is None
