"""The systems without a language model, which every comparison shows beside the trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmrrg.config.data import DataConfig
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.evaluation.baselines import (
    BaselineError,
    best_constant_report,
    closest_labels,
    medoid_report,
    nearest_rows,
    pooled_image_features,
    random_rows,
)
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.study_set import EvaluationSet
from lmrrg.evaluation.systems import SystemReports, batches
from lmrrg.evaluation.template import Template, learn_template
from lmrrg.metrics.clinical import UncertainPolicy, positives
from lmrrg.metrics.interfaces import Backend
from lmrrg.studies import LABELS, Study
from lmrrg.vision.files import FeatureFiles

TITLES = {
    "constant": "Constant report (training medoid)",
    "best_constant": "Best constant report (by the metric)",
    "nearest": "Nearest training image",
    "random": "Random training report",
    "template": "Template from the image encoder's labels",
    "label_matched": "Training report with the image encoder's labels",
    "oracle_template": "Template from the true labels (bound)",
}
"""Title of each baseline by its name, in the order of the tables."""

NO_EVIDENCE = (
    "the image encoder has no class head of its own, and the classifiers of the trained systems "
    "are no substitute: they differ between systems and are not calibrated"
)
"""Why the baselines that write from the image encoder's labels are missing."""

_CHUNK = 128  # studies whose patches are in memory at once; all of a training set would not fit


class Baselines(NamedTuple):
    """The systems, and the reason for each that could not be made, by its title."""

    systems: list[SystemReports]
    left_out: dict[str, str]


def baseline_systems(
    evaluated: EvaluationSet,
    training: Sequence[Study],
    settings: DataConfig,
    policy: UncertainPolicy,
    thresholds: float | NDArray[np.float64],
    backend: Backend,
    seed: int,
) -> Baselines:
    """Return what each of :data:`TITLES` writes for the evaluated studies.

    Args:
        evaluated: the N studies.
        training: the studies whose reports the baselines copy and learn from.
        settings: section and feature cache.
        policy: how uncertain labels count.
        thresholds: the probability from which a finding of the image encoder is stated; one for
            all classes, or [14].
        backend: the metric and labeler that choose sentences and reports.
        seed: decides the random reports.

    Raises:
        EvaluationError: ``no_training``, there is no training report to copy.
        BaselineError: the training reports have no words, or the metric scores none of them.
    """
    if not training:
        raise EvaluationError("no_training", "the baselines need training studies with reports")
    reports = [study.report(settings.section) for study in training]
    # By the features of the image encoder, which are the same for every trained system.
    queries = pooled_image_features(evaluated.features)
    gallery = _pooled_training_features(training, settings, evaluated.encoder)
    count = len(evaluated.studies)
    written = {
        "constant": [medoid_report(reports)] * count,
        "best_constant": [best_constant_report(reports, backend)] * count,
        "nearest": [reports[row] for row in nearest_rows(queries, gallery)],
        "random": [reports[row] for row in random_rows(count, len(reports), seed)],
    }
    left_out: dict[str, str] = {}
    evidence = evaluated.features.evidence.double().numpy()
    present = {"oracle_template": positives(evaluated.labels, policy)}
    if np.isfinite(evidence).all():
        present["template"] = evidence >= thresholds
        known = positives(backend.labeler.label(reports), policy)
        rows = closest_labels(evidence, thresholds, known, (queries @ gallery.T).numpy())
        written["label_matched"] = [reports[row] for row in rows]
    else:
        left_out |= dict.fromkeys(["template", "label_matched"], NO_EVIDENCE)
    try:
        template = learn_template(reports, backend)
        written |= {name: write_all(template, classes) for name, classes in present.items()}
    except BaselineError as error:
        # Reports of the trained systems took hours; they are compared with what there is.
        left_out |= dict.fromkeys(present, error.args[1])
    return Baselines(
        [_system(name, written[name]) for name in TITLES if name in written],
        {title: left_out[name] for name, title in TITLES.items() if name in left_out},
    )


def _system(name: str, reports: list[str]) -> SystemReports:
    return SystemReports(
        name,
        TITLES[name],
        reports,
        finished=[True] * len(reports),
        is_oracle=name == "oracle_template",
    )


def write_all(template: Template, present: NDArray[np.bool_]) -> list[str]:
    """Return the template's report for each row of present classes [N, 14]."""
    written = []
    for row in present:
        findings = {label for label, is_present in zip(LABELS, row, strict=True) if is_present}
        written.append(template.write(findings))
    return written


def _pooled_training_features(
    studies: Sequence[Study], settings: DataConfig, encoder: ImageEncoderConfig
) -> Tensor:
    """Return the pooled image features of many studies [N, C]."""
    files = FeatureFiles(studies, settings, encoder=encoder)
    chunks = batches(len(studies), _CHUNK)
    return torch.cat([pooled_image_features(files.select(rows)) for rows in chunks])
