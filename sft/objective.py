"""The multitask objective L = L_LM + lambda_cls L_cls, and what validation measures."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from lmrrg.config import SFTConfig
from lmrrg.model.classifier import binary_targets, disease_loss
from lmrrg.model.generator import ReportGenerator
from sft.batches import Batch


class Objective(nn.Module):
    """The report generator with both losses; sums, so that the means are those of the whole minibatch."""

    positive_weight: Tensor | None

    def __init__(self, model: ReportGenerator, config: SFTConfig, positive_weight: Tensor | None) -> None:
        super().__init__()
        self.model, self._config = model, config
        self.register_buffer("positive_weight", positive_weight, persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Summed report NLL in nats, summed disease loss, disease logits [B, 14].

        With ``precision`` bf16 the matrix products run in bfloat16; weights and losses stay float32, so what is saved
        is what was trained.
        """
        with torch.autocast(batch.report_ids.device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
            out = self.model.report_logits(batch.features, batch.prompts, batch.report_ids, batch.report_mask)
        # Only the places that count: the vocabulary is the widest tensor of the step.
        nll = F.cross_entropy(
            out.logits[batch.report_mask].float(), batch.report_ids[batch.report_mask], reduction="sum"
        )
        disease = disease_loss(out.disease_logits, batch.labels, self._config, self.positive_weight)
        return nll, disease, out.disease_logits.detach()


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
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
