"""Choose the compute type: float32, with matrix products in bfloat16 if the settings ask for it."""

from __future__ import annotations

import torch

from lmrrg.config.base import Precision


def products_in(precision: Precision, device: torch.device) -> torch.autocast:
    """Return torch's autocast for a forward pass whose matrix products run in ``precision``.

    Weights, losses and checkpoints stay float32. DeepSpeed switches off any autocast around a
    module that it wraps, so enter this one inside the module's own forward.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
