"""Gradients on their way through DeepSpeed: their size, and how they are reduced."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def gradient_norm(module: nn.Module) -> float:
    """L2 norm over the gradients of all parameters that have one, before any clipping (torch).

    For DeepSpeed without ZeRO in float32, which clips but keeps no norm.
    """
    return float(
        torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
    )


def zero_settings(stage: int) -> dict[str, Any]:
    """DeepSpeed's settings of ZeRO.

    Its own buckets, 5e8 elements, are 2 GB of every GPU, whatever the size of the model.
    """
    return {"stage": stage, "reduce_bucket_size": 50_000_000}
