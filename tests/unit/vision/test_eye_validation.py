"""Test the calibration of an eye, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lmrrg.studies import LABELS
from lmrrg.vision import eye_validation
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.eye_validation import (
    ENOUGH_POSITIVES,
    calibration_error,
    reliability_bins,
    validate_eye,
)

CLASSES = len(LABELS)
STUDIES = 3000


def drawn(slope: float, offset: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, targets drawn with calibrated probabilities of them, and the prior."""
    torch.manual_seed(0)
    prior = torch.linspace(0, 1.5, CLASSES)
    clean = torch.randn(STUDIES, CLASSES) * 2 - 2
    targets = torch.bernoulli((slope * clean + offset).sigmoid())
    return clean + prior, targets, prior


def validate(logits: Tensor, targets: Tensor, prior: Tensor, counted: Tensor | None = None):
    used = torch.ones_like(targets, dtype=torch.bool) if counted is None else counted
    patients = [f"p{row // 2}" for row in range(len(logits))]
    return validate_eye(logits, targets, used, prior, patients)


def test_the_slope_and_offset_that_made_the_labels_are_found():
    logits, targets, prior = drawn(0.7, -0.4)
    calibration, found = validate(logits, targets, prior)
    assert calibration.slope == pytest.approx(0.7, abs=0.02)
    assert calibration.offset == pytest.approx(-0.4, abs=0.05)
    assert calibration.prior == pytest.approx(prior.tolist())
    assert found.calibration_error < 0.01
    assert found.cross_validated_error < 0.01
    uncalibrated = calibration_error(logits.sigmoid().numpy().ravel(), targets.numpy().ravel() > 0)
    assert uncalibrated > 0.05
    assert sum(one.count for one in found.bins) == STUDIES * CLASSES


def test_one_patient_makes_no_folds():
    logits, targets, prior = drawn(1.0, 0.0)
    counted = torch.ones_like(targets, dtype=torch.bool)
    found = validate_eye(logits, targets, counted, prior, ["one"] * len(logits))[1]
    assert found.cross_validated_error is None
    assert found.bins == ()


def test_the_folds_keep_patients_together(monkeypatch: pytest.MonkeyPatch):
    logits, targets, prior = drawn(1.0, 0.0)
    fitted: list[np.ndarray] = []
    fit = eye_validation._fitted

    def remember(logits, truth, used, surplus, rows):
        fitted.append(rows)
        return fit(logits, truth, used, surplus, rows)

    monkeypatch.setattr(eye_validation, "_fitted", remember)
    validate(logits, targets, prior)
    folds = fitted[1:]
    assert len(folds) == 5
    for rows in folds:
        assert (rows[::2] == rows[1::2]).all(), "the two studies of a patient are on one side"
    assert sum((~rows).sum() for rows in folds) == STUDIES


def test_labels_that_do_not_count_change_nothing():
    logits, targets, prior = drawn(1.0, 0.0)
    counted = torch.ones_like(targets, dtype=torch.bool)
    counted[:100] = False
    spoilt = targets.clone()
    spoilt[:100] = 1
    first = validate(logits, targets, prior, counted)
    assert validate(logits, spoilt, prior, counted) == first
    assert validate(logits, spoilt, prior) != first


def test_rare_classes_get_no_threshold():
    logits, targets, prior = drawn(1.0, 0.0)
    targets[:, 0] = 0
    targets[: ENOUGH_POSITIVES - 1, 0] = 1
    targets[:, 1] = 0
    found = validate(logits, targets, prior)[1]
    rare, absent, common = (found.classes[LABELS[k]] for k in (0, 1, 2))
    assert (rare.positives, rare.threshold) == (ENOUGH_POSITIVES - 1, None)
    assert rare.auc is not None
    assert (absent.positives, absent.auc, absent.threshold) == (0, None, None)
    assert 0 < common.threshold < 1


def test_the_threshold_is_the_one_of_the_best_f1():
    logits, targets, prior = drawn(2.0, 0.0)
    calibration, found = validate(logits, targets, prior)
    probability = calibration.probabilities(logits)[:, 4].numpy()
    truth = targets[:, 4].numpy() > 0

    def f1(threshold: float) -> float:
        called = probability >= threshold
        return 2 * (called & truth).sum() / (called.sum() + truth.sum())

    best = f1(found.classes[LABELS[4]].threshold)
    assert best == pytest.approx(max(f1(t) for t in probability))


def test_figures_without_labels_are_refused():
    logits, targets, prior = drawn(1.0, 0.0)
    with pytest.raises(FeatureError, match="no_positives"):
        validate(logits, torch.zeros_like(targets), prior)


def test_the_error_is_the_gap_between_probability_and_rate():
    probabilities = np.array([0.05] * 10 + [1.0] * 10)
    truth = np.array([False] * 10 + [True] * 5 + [False] * 5)
    assert calibration_error(probabilities, truth) == pytest.approx((0.05 + 0.5) / 2)
    low, high = reliability_bins(probabilities, truth)
    assert (low.rate, high.rate, high.count) == (0.0, 0.5, 10)


def test_the_figures_are_json():
    logits, targets, prior = drawn(1.0, 0.0)
    values = validate(logits, targets, prior)[1].as_json()
    assert set(values["classes"]) == set(LABELS)
    assert isinstance(values["bins"][0]["rate"], float)
