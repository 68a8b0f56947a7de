"""The multitask objective L = L_LM + lambda_cls L_cls (+ lambda_att L_att), and what validation measures."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from lmrrg.config.sft import SFTConfig
from lmrrg.model.classifier import binary_targets, disease_loss
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.precision import products_in
from sft.batches import Batch


class Objective(nn.Module):
    """The report generator with its losses; sums, so that the means are those of the whole minibatch."""

    positive_weight: Tensor | None

    def __init__(
        self, model: ReportGenerator, config: SFTConfig, positive_weight: Tensor | None
    ) -> None:
        super().__init__()
        self.model, self._config = model, config
        self.register_buffer("positive_weight", positive_weight, persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Summed report NLL in nats, summed disease loss, summed attention loss, disease logits [B, 14].

        With ``precision`` bf16 the matrix products run in bfloat16; weights and losses stay float32, so what is saved
        is what was trained.
        """
        with products_in(self._config.precision, batch.report_ids.device):
            out = self.model.report_logits(
                batch.features, batch.prompts, batch.report_ids, batch.report_mask
            )
        # Only the places that count: the vocabulary is the widest tensor of the step.
        nll = F.cross_entropy(
            out.logits[batch.report_mask].float(),
            batch.report_ids[batch.report_mask],
            reduction="sum",
        )
        disease = disease_loss(out.disease_logits, batch.labels, self._config, self.positive_weight)
        seen = (
            nll.new_zeros(())
            if batch.regions is None
            else attention_loss(out.attention, batch.regions)
        )
        return nll, disease, seen, out.disease_logits.detach()


def attention_loss(attention: Tensor, regions: Tensor) -> Tensor:
    """-log of the attention inside each region, the mean over a study's known regions, summed over studies (**ours**).

    Both [B, 29, V, P]: attention that sums to 1 for each region, and the share of each patch that a region covers.
    A region that covers nothing is not known; a study without a known region adds 0.
    """
    inside = (attention.float() * regions).sum((2, 3))
    known = regions.sum((2, 3)) > 0
    each = torch.where(known, -torch.log(inside + 1e-6), 0.0)
    return (each.sum(1) / known.sum(1).clamp_min(1)).sum()


def macro_auc(logits: Tensor, labels: Tensor, config: SFTConfig) -> float:
    """Mean area under the ROC curve over the classes with both values among ``labels`` [N, 14]; NaN without any."""
    targets, counted = binary_targets(labels, config)
    areas = []
    for scores, truth, used in zip(logits.T, targets.T, counted.T, strict=True):
        if used.any() and truth[used].unique().numel() == 2:
            areas.append(roc_auc_score(truth[used].numpy(), scores[used].float().numpy()))
    return float(np.mean(areas)) if areas else float("nan")


def learning_rate(step: int, steps: int, config: SFTConfig) -> float:
    """Rate of optimizer step ``step`` (from 0) of ``steps``: linear warm-up, then a cosine to a tenth of the peak."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + float(np.cos(np.pi * share))))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters: matrices with weight decay; vectors and embeddings without."""
    plain = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    decay: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (rest if parameter.ndim < 2 or id(parameter) in plain else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
