"""The size of a gradient."""

from __future__ import annotations

import torch
from torch import nn


def gradient_norm(module: nn.Module) -> float:
    """L2 norm over the gradients of all parameters that have one, before any clipping (torch).

    For DeepSpeed without ZeRO in float32, which clips but keeps no norm.
    """
    return float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))
