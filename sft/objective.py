"""Compute the SFT objective L = L_LM + lambda_cls L_cls (+ lambda_att L_att) and its measures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from lmrrg.config.sft import EyeConfig, LabelPolicy, SFTConfig
from lmrrg.model.classifier import binary_targets, disease_loss
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.precision import products_in
from sft.batches import Batch


class Objective(nn.Module):
    """The report generator with its losses, as sums over a batch.

    The caller divides them by the counts of the whole minibatch: a mean of microbatches' means
    would weight tokens by how the minibatch was divided.
    """

    positive_weight: Tensor | None

    def __init__(
        self, model: ReportGenerator, config: SFTConfig, positive_weight: Tensor | None
    ) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self.register_buffer("positive_weight", positive_weight, persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the summed losses of a batch and its disease logits.

        With ``precision`` bf16 the matrix products run in bfloat16. Weights and losses stay
        float32, so what is saved is what was trained.

        Returns:
            Report NLL in nats, weighted by ``batch.weights``; disease loss; attention loss (all
            sums); disease logits [B, 14].
        """
        with products_in(self._config.precision, batch.report_ids.device):
            out = self.model.report_logits(
                batch.features, batch.prompts, batch.report_ids, batch.report_mask
            )
        # Without the padding: logits are as wide as the vocabulary, the largest tensor here.
        each = F.cross_entropy(
            out.logits[batch.report_mask].float(),
            batch.report_ids[batch.report_mask],
            reduction="none",
        )
        nll = (each * batch.weights[batch.report_mask]).sum()
        disease = disease_loss(out.disease_logits, batch.labels, self._config, self.positive_weight)
        attention = nll.new_zeros(())
        if batch.regions is not None:
            attention = attention_loss(out.attention, batch.regions)
        return nll, disease, attention, out.disease_logits.detach()


def attention_loss(attention: Tensor, regions: Tensor) -> Tensor:
    """Return -log of the attention inside the regions, summed over studies (**ours**).

    A study counts with the mean over its known regions; a region that covers nothing is unknown,
    and a study without a known region adds 0.

    Args:
        attention: [B, 29, V, P], sums to 1 for each region.
        regions: [B, 29, V, P], the fraction of each patch that a region covers.
    """
    inside = (attention.float() * regions).sum((2, 3))
    known = regions.sum((2, 3)) > 0
    # The offset bounds the loss of a region that gets no attention at all (14 nats).
    each = torch.where(known, -torch.log(inside + 1e-6), 0.0)
    return (each.sum(1) / known.sum(1).clamp_min(1)).sum()


def macro_auc(logits: Tensor, labels: Tensor, config: LabelPolicy) -> float:
    """Return the mean area under the ROC curve over the disease classes.

    A class counts where ``labels`` [N, 14] hold both values; NaN when none does.
    """
    targets, counted = binary_targets(labels, config)
    areas = []
    for scores, truth, used in zip(logits.T, targets.T, counted.T, strict=True):
        if used.any() and truth[used].unique().numel() == 2:
            areas.append(roc_auc_score(truth[used].numpy(), scores[used].float().numpy()))
    return float(np.mean(areas)) if areas else float("nan")


def learning_rate(step: int, steps: int, config: SFTConfig | EyeConfig) -> float:
    """Return the learning rate of optimizer step ``step`` (from 0) of ``steps``.

    It rises linearly in the warm-up, then follows a cosine down to a tenth of the peak.
    """
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + float(np.cos(np.pi * progress))))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters: matrices decay; vectors and embeddings do not."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    decay: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (rest if parameter.ndim < 2 or id(parameter) in embeddings else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
