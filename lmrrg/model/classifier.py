"""The 14-class disease head on the visual features, and its loss (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmrrg.config.sft import SFTConfig
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN, Study

BLANK = -2
"""Target of a class that the report does not mention."""

UNLABELLED = -3
"""Target of every class of a study that nobody labelled; never part of a loss."""


class DiseaseClassifier(nn.Module):
    """14 logits from the 29 region features and the global one.

    Every class weighs the 30 features by an attention of its own and reads its evidence from them (**ours**: a finding
    sits in one or two regions, so a plain mean would dilute it).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.evidence = nn.Linear(width, len(LABELS))
        self.relevance = nn.Linear(width, len(LABELS))

    def forward(self, regions: Tensor, overall: Tensor) -> Tensor:
        """Regions [B, 29, D] and global feature [B, D] -> logits [B, 14]."""
        features = torch.cat([regions, overall[:, None]], dim=1)
        return (self.relevance(features).softmax(dim=1) * self.evidence(features)).sum(dim=1)


def label_targets(studies: Sequence[Study]) -> Tensor:
    """Int64 [B, 14] of 1, 0, -1, :data:`BLANK`, or :data:`UNLABELLED` for studies without labels."""
    rows = [
        [UNLABELLED] * len(LABELS)
        if study.labels is None
        else [study.labels.get(label, BLANK) for label in LABELS]
        for study in studies
    ]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, len(LABELS))


def binary_targets(labels: Tensor, config: SFTConfig) -> tuple[Tensor, Tensor]:
    """Targets float [B, 14] in {0, 1} and which of them count, bool [B, 14], after the uncertain and blank policies."""
    positive = labels == POSITIVE
    counted = positive | (labels == NEGATIVE)
    if config.uncertain_policy != "ignore":
        counted |= labels == UNCERTAIN
        if config.uncertain_policy == "positive":
            positive |= labels == UNCERTAIN
    if config.blank_policy == "negative":
        counted |= labels == BLANK
    return positive.float(), counted


def disease_loss(
    logits: Tensor, labels: Tensor, config: SFTConfig, positive_weight: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy summed over the classes that count (see :func:`binary_targets`); 0 when none does.

    ``positive_weight`` [14] multiplies the loss of positives, against imbalance. A sum, because the mean belongs to
    the whole minibatch, of which a rank sees a part.
    """
    targets, counted = binary_targets(labels, config)
    each = F.binary_cross_entropy_with_logits(
        logits.float(), targets, reduction="none", pos_weight=positive_weight
    )
    return torch.where(counted, each, 0.0).sum()


def positive_weights(labels: Tensor, config: SFTConfig, largest: float = 8.0) -> Tensor:
    """Negatives per positive in the training labels, [14], between 1 and ``largest``; 1 for a class never positive."""
    targets, counted = binary_targets(labels, config)
    positives = torch.where(counted, targets, 0.0).sum(0)
    ratio = (counted.sum(0) - positives) / positives.clamp_min(1)
    return torch.where(positives > 0, ratio.clamp(1.0, largest), torch.ones_like(ratio))
