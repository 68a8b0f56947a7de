"""Classify 14 findings from the visual features, and compute the loss (paper section 3.2).

Tensor dimensions: B studies, R regions (29), D the extractor's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmrrg.config.sft import LabelPolicy
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN, Study

BLANK = -2
"""Target of a class that the report does not mention."""

UNLABELLED = -3
"""Target of every class of a study without labels; never part of a loss."""


class DiseaseClassifier(nn.Module):
    """14 logits from the region features and the global one.

    Every class weighs the R + 1 features by an attention of its own (**ours**: a finding lies in
    one or two regions, so a plain mean would dilute it).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.evidence = nn.Linear(width, len(LABELS))
        self.relevance = nn.Linear(width, len(LABELS))

    def forward(self, regions: Tensor, overall: Tensor) -> Tensor:
        """Compute logits [B, 14] from regions [B, R, D] and the global feature [B, D]."""
        features = torch.cat([regions, overall[:, None]], dim=1)
        return (self.relevance(features).softmax(dim=1) * self.evidence(features)).sum(dim=1)


def label_targets(studies: Sequence[Study]) -> Tensor:
    """Return targets, int64 [B, 14].

    They are 1, 0, -1, :data:`BLANK`, or :data:`UNLABELLED` for studies without labels.
    """
    rows = []
    for study in studies:
        if study.labels is None:
            rows.append([UNLABELLED] * len(LABELS))
        else:
            rows.append([study.labels.get(label, BLANK) for label in LABELS])
    # `reshape` gives an empty batch its second dimension.
    return torch.tensor(rows, dtype=torch.long).reshape(-1, len(LABELS))


def binary_targets(labels: Tensor, policy: LabelPolicy) -> tuple[Tensor, Tensor]:
    """Apply the policies for uncertain and blank labels.

    Returns:
        Targets, float [B, 14] in {0, 1}, and which of them count, bool [B, 14].
    """
    positive = labels == POSITIVE
    counted = positive | (labels == NEGATIVE)
    if policy.uncertain_policy != "ignore":
        counted |= labels == UNCERTAIN
        if policy.uncertain_policy == "positive":
            positive |= labels == UNCERTAIN
    if policy.blank_policy == "negative":
        counted |= labels == BLANK
    return positive.float(), counted


def disease_loss(
    logits: Tensor, labels: Tensor, policy: LabelPolicy, positive_weight: Tensor | None = None
) -> Tensor:
    """Return the binary cross-entropy, summed over the classes that count; 0 when none does.

    It is a sum because the mean is taken over the whole minibatch, of which a rank has a part.

    Args:
        positive_weight: factor [14] on the loss of positives, against imbalance.
    """
    targets, counted = binary_targets(labels, policy)
    each = F.binary_cross_entropy_with_logits(
        logits.float(), targets, reduction="none", pos_weight=positive_weight
    )
    return torch.where(counted, each, 0.0).sum()


def positive_weights(labels: Tensor, policy: LabelPolicy, largest: float = 8.0) -> Tensor:
    """Return negatives per positive in the training labels, [14], between 1 and ``largest``.

    A class without positives gets 1.
    """
    targets, counted = binary_targets(labels, policy)
    positives = torch.where(counted, targets, 0.0).sum(0)
    ratio = (counted.sum(0) - positives) / positives.clamp_min(1)
    return torch.where(positives > 0, ratio.clamp(1.0, largest), torch.ones_like(ratio))
