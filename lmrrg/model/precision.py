"""Compute types: weights, losses and checkpoints are float32; matrix products may be rounded to bfloat16."""

from __future__ import annotations

import torch

from lmrrg.config.base import Precision


def products_in(precision: Precision, device: torch.device) -> torch.autocast:
    """A context for a model's forward whose matrix products run in ``precision`` (torch's autocast).

    DeepSpeed switches off any autocast around a module that it wraps: enter it inside the module's own forward.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
