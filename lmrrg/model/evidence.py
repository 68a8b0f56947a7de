"""Tell the decoder what the image encoder's class head sees: the evidence in the prompt (ours).

The evidence of a study is how probable each of the 14 classes is, calibrated. An *operating point*
(:class:`~lmrrg.config.model.EvidenceConfig`) sets what is too improbable to 0; what is left reaches
the decoder as words (:func:`~lmrrg.model.prompts.prompt_ids`) or as tokens
(:meth:`~lmrrg.model.generator.ReportGenerator.visual`). "No Finding" is never told: it is what the
absence of all others says.

Tensor dimensions: N studies, K = 14 classes of :data:`~lmrrg.studies.LABELS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from lmrrg.config.model import EvidenceConfig, ModelConfig
from lmrrg.errors import CodedError
from lmrrg.metrics.clinical import positives
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, Section, Study
from lmrrg.vision.encoder import encoder_info
from lmrrg.vision.files import FeatureFiles
from lmrrg.vision.study_features import StudyFeatures

_NO_FINDING = LABELS.index("No Finding")

# It is the last class, so what comes before it is a slice.
FINDINGS = LABELS[:_NO_FINDING]
"""The 13 classes that the decoder may be told, in the order of :data:`~lmrrg.studies.LABELS`."""

PRECISIONS = 19
"""Precisions for which thresholds are kept: 0.05, 0.10, … 0.95."""

TABLE = "evidence_thresholds"
"""Name of the table of thresholds among the weights of a model."""

FEWEST_POSITIVES = 10
"""Validation studies that a class needs for thresholds of its own; others share one (ours)."""

NEVER = 2.0
"""A threshold that no probability reaches; finite, because PPO averages the weights of models."""

_NO_CLASS_HEAD = (
    "model.evidence_words and model.evidence_tokens need an image encoder with a class head, and "
    "that of model.image_encoder has none: train the eye first (docs/model.md), or turn both off"
)

_CHUNK = 64
"""Studies whose patches are in memory while their evidence is read."""


class EvidenceError(CodedError):
    """Evidence that the settings ask for is not there; ``code`` is stable."""


def names_of(evidence: Tensor) -> list[str]:
    """Return the findings that the evidence [14] of a study names: those above 0.

    >>> names_of(torch.tensor([0.0, 0.4] + [0.0] * 11 + [0.9]))
    ['cardiomegaly']
    """
    named = zip(FINDINGS, evidence[:_NO_FINDING].tolist(), strict=True)
    return [finding.lower() for finding, value in named if value > 0]


def at_thresholds(features: StudyFeatures, model: ModelConfig, thresholds: Tensor) -> StudyFeatures:
    """Return features whose evidence is 0 where it is below the thresholds.

    A model that reads no evidence gets its features back.

    Args:
        features: of N studies, with the encoder's probabilities.
        model: what the decoder is told.
        thresholds: smallest probability that counts, [14], or [N, 14] for one operating point per
            study.

    Raises:
        EvidenceError: ``no_evidence``, the image encoder has no class head.
    """
    if not model.uses_evidence:
        return features
    require_evidence(features)
    evidence = features.evidence
    counts = evidence >= thresholds.to(evidence.device)
    counts[:, _NO_FINDING] = False
    return replace(features, evidence=torch.where(counts, evidence, 0.0))


def check_class_head(model: ModelConfig, image_size: int) -> None:
    """Refuse settings that ask for evidence of an image encoder without a class head.

    Nothing is encoded for it.

    Raises:
        EvidenceError: ``no_evidence``.
        FeatureError: as :func:`~lmrrg.vision.encoder.encoder_info`.
    """
    if model.uses_evidence and encoder_info(image_size, model.image_encoder).calibration is None:
        raise EvidenceError("no_evidence", _NO_CLASS_HEAD)


def require_evidence(features: StudyFeatures) -> None:
    """Refuse features of an image encoder without a class head.

    Raises:
        EvidenceError: ``no_evidence``.
    """
    if features.evidence.isnan().any():
        raise EvidenceError("no_evidence", _NO_CLASS_HEAD)


def thresholds_of(settings: EvidenceConfig, table: Tensor | None) -> Tensor:
    """Return the threshold of each class [14] at an operating point.

    Args:
        settings: the operating point.
        table: result of :func:`precision_table`; only a target precision needs it.

    Raises:
        EvidenceError: ``no_thresholds``, a target precision without a table.
    """
    if settings.precision is None:
        return torch.full((len(LABELS),), settings.threshold)
    if table is None:
        raise EvidenceError(
            "no_thresholds",
            "evidence.precision needs the thresholds that a model with evidence keeps, and this "
            "one has none: set evidence.threshold",
        )
    return table[round(settings.precision * (PRECISIONS + 1)) - 1]


def checkpoint_thresholds(checkpoint: Path, settings: EvidenceConfig) -> Tensor:
    """Return the threshold of each class [14] for the model in a checkpoint directory.

    Raises:
        EvidenceError: ``no_thresholds``, as :func:`thresholds_of`.
    """
    with safe_open(str(checkpoint / "model.safetensors"), framework="pt") as weights:
        # Only the names are read here, not the weights.
        has_table = TABLE in weights.keys()  # noqa: SIM118
        return thresholds_of(settings, weights.get_tensor(TABLE) if has_table else None)


def precision_table(evidence: Tensor, targets: Tensor) -> Tensor:
    """Return the lowest threshold that reaches each precision on validation studies [19, 14].

    A class with fewer than :data:`FEWEST_POSITIVES` positives gets the threshold that reaches the
    precision over all findings together: a few studies say little of one class. Where no threshold
    reaches the precision it is :data:`NEVER`.

    Args:
        evidence: probabilities of the validation studies [N, 14].
        targets: what their reports say, bool [N, 14].
    """
    wanted = torch.arange(1, PRECISIONS + 1) / (PRECISIONS + 1)
    findings = slice(0, _NO_FINDING)
    pooled = _lowest_thresholds(
        evidence[:, findings].flatten(), targets[:, findings].flatten(), wanted
    )
    columns = []
    for values, truth in zip(evidence.T, targets.T, strict=True):
        own = int(truth.sum()) >= FEWEST_POSITIVES
        columns.append(_lowest_thresholds(values, truth, wanted) if own else pooled)
    return torch.stack(columns, dim=1)


def _lowest_thresholds(evidence: Tensor, truth: Tensor, wanted: Tensor) -> Tensor:
    """Return the lowest threshold whose precision is as wanted, for each wanted precision."""
    values, order = evidence.sort(descending=True, stable=True)
    precision = truth[order].float().cumsum(0) / torch.arange(1, len(values) + 1)
    # A threshold names all studies of the same probability, so only the last of them counts.
    is_last = torch.ones(len(values), dtype=torch.bool)
    is_last[:-1] = values[:-1] != values[1:]
    reached = (precision >= wanted[:, None] - 1e-6) & is_last
    lowest = torch.where(reached, values, NEVER).amin(dim=1)
    return lowest.float()


def evidence_of(files: FeatureFiles) -> Tensor:
    """Return the encoder's probabilities for N studies [N, 14].

    Raises:
        EvidenceError: ``no_evidence``, the image encoder has no class head.
    """
    rows = []
    for start in range(0, len(files), _CHUNK):
        features = files.select(range(start, min(start + _CHUNK, len(files))))
        require_evidence(features)
        rows.append(features.evidence)
    return torch.cat(rows)


def stated_findings(studies: Sequence[Study], section: Section) -> Tensor:
    """Return which classes the studies' labels name, bool [N, 14]; an uncertain one counts.

    A study without labels has those that the rule-based labeler reads in its report.
    """
    labels: list[Mapping[str, int]] = []
    for study in studies:
        # Empty labels are labels too: a study that was labelled without any finding.
        read = label_report(study.report(section)) if study.labels is None else study.labels
        labels.append(read)
    return torch.from_numpy(positives(labels, "positive"))


def noisy_evidence(
    targets: Tensor, dropped: float, invented: float, seed: int, epoch: int
) -> Tensor:
    """Return evidence for training from what the reports say, [N, 14].

    Some findings are left out and some are made up, anew in every epoch, so that the decoder learns
    to trust the evidence and to doubt it. A named finding gets any probability: what is told at
    inference is above the operating point, wherever that is.

    Args:
        targets: bool [N, 14], from :func:`stated_findings`.
        dropped: fraction of the findings that are left out.
        invented: fraction of the studies that get a finding which their report lacks, chosen by how
            frequent the findings are.
        seed: of the run.
        epoch: from 0.
    """
    # The 2 separates this stream from the others of an epoch.
    rng = np.random.default_rng([seed, epoch, 2])
    stated = targets.numpy().copy()
    stated[:, _NO_FINDING] = False
    named = stated & (rng.random(stated.shape) >= dropped)
    frequency = stated.sum(axis=0)
    if frequency.any():
        extra = rng.choice(len(frequency), size=len(named), p=frequency / frequency.sum())
        rows = np.flatnonzero(rng.random(len(named)) < invented)
        named[rows, extra[rows]] = True
    probability = rng.uniform(0.05, 1.0, named.shape)
    return torch.from_numpy(np.where(named, probability, 0.0)).float()


def imitated_evidence(targets: Tensor, evidence: Tensor, evidence_of: Tensor, seed: int) -> Tensor:
    """Return evidence as the image encoder would give it for new films, [N, 14].

    The encoder was trained on the training films and sees them more sharply than any other. So
    each class of a training study gets the probability of a random validation study that agrees
    with it about the class. What this leaves out: which classes are mistaken for each other.

    Args:
        targets: what the training reports say, bool [N, 14].
        evidence: probabilities of M validation studies [M, 14].
        evidence_of: what the validation reports say, bool [M, 14].
        seed: of the draw.
    """
    rng = np.random.default_rng([seed, 3])
    drawn = torch.empty(targets.shape)
    for column in range(targets.shape[1]):
        values = evidence[:, column]
        for state in (True, False):
            rows = (targets[:, column] == state).nonzero().flatten()
            alike = values[evidence_of[:, column] == state]
            # Without any such study the encoder's answer is unknown: any of its answers may come.
            pool = alike if len(alike) else values
            drawn[rows, column] = pool[torch.from_numpy(rng.integers(len(pool), size=len(rows)))]
    return drawn
