"""Calibrate an eye on validation studies, and measure how far its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.model_selection import GroupKFold
from torch import Tensor

from lmrrg.studies import LABELS
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.calibration import Calibration

ENOUGH_POSITIVES = 10
"""Positives below which a class gets no threshold of its own, and its figures say little."""
BINS = 10
"""Bins of equal width in the reliability plot and the calibration error."""
_FOLDS = 5
# scikit-learn's C, the inverse strength of the penalty on the slope: weak enough to change nothing
# but the case of labels that a threshold separates, whose likelihood has no maximum.
_WEAK_PENALTY = 1e3
_NO_FINDING = LABELS.index("No Finding")


@dataclass(frozen=True)
class ClassValidation:
    """One class on the validation studies.

    ``auc`` is None where all studies have the class, or none has it. ``threshold`` is the
    probability from which on calling it present gives the best F1 on these same studies; None with
    fewer than :data:`ENOUGH_POSITIVES`.
    """

    positives: int
    auc: float | None
    threshold: float | None


@dataclass(frozen=True)
class Bin:
    """Labels whose probability fell into one bin: their number, mean probability, and rate."""

    count: int
    probability: float
    rate: float


@dataclass(frozen=True)
class EyeValidation:
    """An eye on the validation studies.

    ``average_precision`` is over the 13 findings (without "No Finding") of all studies together.
    ``calibration_error`` is of the calibration that is kept, on the studies that it was fitted on;
    ``cross_validated_error`` and ``bins`` come from five folds of patients, each calibrated on the
    other four: None and empty where there are too few patients or labels for that.
    """

    studies: int
    average_precision: float
    macro_auc: float
    calibration_error: float
    cross_validated_error: float | None
    bins: tuple[Bin, ...]
    classes: Mapping[str, ClassValidation]

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def validate_eye(
    logits: Tensor,
    targets: Tensor,
    counted: Tensor,
    prior: Tensor,
    patients: Sequence[str],
) -> tuple[Calibration, EyeValidation]:
    """Fit the calibration on studies, and measure the eye on them.

    Args:
        logits: of the class head, [N, 14], not calibrated.
        targets: 1 where a study has the class, [N, 14].
        counted: which targets count, bool [N, 14].
        prior: log of the weight of each class's positives in training, [14].
        patients: of the N studies; a fold holds all studies of a patient.

    Raises:
        FeatureError: ``no_positives``, all labels of the studies are alike.
    """
    truth = targets.numpy().astype(bool)
    used = counted.numpy()
    surplus = tuple(prior.tolist())
    everything = np.ones(len(truth), bool)
    calibration = _fitted(logits, truth, used, surplus, everything)
    if calibration is None:
        raise FeatureError(
            "no_positives",
            "the labels of the validation studies are all alike, so the eye cannot be calibrated",
        )
    probabilities = calibration.probabilities(logits).numpy()
    honest = _cross_validated(logits, truth, used, surplus, patients)
    error: float | None = None
    bins: tuple[Bin, ...] = ()
    if honest is not None:
        error = calibration_error(honest[used], truth[used])
        bins = reliability_bins(honest[used], truth[used])
    findings = [column for column in range(len(LABELS)) if column != _NO_FINDING]
    seen = used[:, findings]
    classes = {
        label: _class_validation(truth[used[:, k], k], probabilities[used[:, k], k])
        for k, label in enumerate(LABELS)
    }
    areas = [found.auc for found in classes.values() if found.auc is not None]
    return calibration, EyeValidation(
        studies=len(truth),
        average_precision=float(
            average_precision_score(truth[:, findings][seen], probabilities[:, findings][seen])
        ),
        macro_auc=float(np.mean(areas)) if areas else float("nan"),
        calibration_error=calibration_error(probabilities[used], truth[used]),
        cross_validated_error=error,
        bins=bins,
        classes=classes,
    )


def reliability_bins(probabilities: np.ndarray, truth: np.ndarray) -> tuple[Bin, ...]:
    """Return the bins that hold any label, from the lowest probability to the highest.

    >>> bins = reliability_bins(np.array([0.1, 0.12, 0.95]), np.array([False, True, True]))
    >>> [(one.count, round(one.probability, 2), one.rate) for one in bins]
    [(2, 0.11, 0.5), (1, 0.95, 1.0)]
    """
    number = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    bins = []
    for n in range(BINS):
        inside = number == n
        if inside.any():
            mean = float(probabilities[inside].mean())
            bins.append(Bin(int(inside.sum()), mean, float(truth[inside].mean())))
    return tuple(bins)


def calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the expected calibration error (Naeini et al., 2015).

    It is the mean distance between probability and rate in a bin, weighted by its labels.

    >>> calibration_error(np.array([0.25, 0.25, 0.25, 0.25]), np.array([True, False, False, False]))
    0.0
    """
    bins = reliability_bins(probabilities, truth)
    gaps = [one.count * abs(one.probability - one.rate) for one in bins]
    return sum(gaps) / len(probabilities)


def _fitted(
    logits: Tensor,
    truth: np.ndarray,
    used: np.ndarray,
    prior: tuple[float, ...],
    rows: np.ndarray,
) -> Calibration | None:
    """Return slope and offset of most likelihood on ``rows``; None where all labels are alike."""
    mask = used & rows[:, None]
    if len(np.unique(truth[mask])) < 2:
        return None
    corrected = (logits - torch.tensor(prior)).numpy()
    fit = LogisticRegression(C=_WEAK_PENALTY).fit(corrected[mask][:, None], truth[mask])
    return Calibration(float(fit.coef_[0, 0]), float(fit.intercept_[0]), prior)


def _cross_validated(
    logits: Tensor,
    truth: np.ndarray,
    used: np.ndarray,
    prior: tuple[float, ...],
    patients: Sequence[str],
) -> np.ndarray | None:
    """Return probabilities [N, 14], each fold's by the calibration of the other folds."""
    folds = min(_FOLDS, len(set(patients)))
    if folds < 2:
        return None
    probabilities = np.zeros(truth.shape)
    for others, fold in GroupKFold(folds).split(truth, groups=list(patients)):
        rows = np.zeros(len(truth), bool)
        rows[others] = True
        calibration = _fitted(logits, truth, used, prior, rows)
        if calibration is None:
            return None
        probabilities[fold] = calibration.probabilities(logits[fold]).numpy()
    return probabilities


def _class_validation(truth: np.ndarray, probabilities: np.ndarray) -> ClassValidation:
    positives = int(truth.sum())
    both = 0 < positives < len(truth)
    return ClassValidation(
        positives=positives,
        auc=float(roc_auc_score(truth, probabilities)) if both else None,
        threshold=_best_threshold(truth, probabilities) if positives >= ENOUGH_POSITIVES else None,
    )


def _best_threshold(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the probability from which on the class is called present for the best F1."""
    precision, recall, thresholds = precision_recall_curve(truth, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    # The last point of the curve belongs to no threshold.
    return float(thresholds[np.argmax(f1[:-1])])
