"""Random right-padded batches for the tests of this folder."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_of(lengths: list[int], width: int | None = None) -> Tensor:
    """Right-padded mask, bool [B, T]."""
    return torch.arange(width or max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def random_batch(seed: int, lengths: list[int], width: int | None = None) -> dict[str, Tensor]:
    """Log-probs, values and advantages [B, T] with a mask of ``lengths``."""
    generator = torch.Generator().manual_seed(seed)
    mask = mask_of(lengths, width)
    noise = {name: torch.randn(mask.shape, generator=generator) for name in ("a", "b", "c", "d", "e", "f")}
    return {
        "mask": mask,
        "log_probs": -1 + 0.3 * noise["a"],
        "old_log_probs": -1 + 0.3 * noise["b"],
        "advantages": noise["c"],
        "values": noise["d"],
        "old_values": noise["e"],
        "returns": noise["f"],
    }


def poisoned(values: Tensor, mask: Tensor, poison: float) -> Tensor:
    """``values`` with ``poison`` (NaN, Inf) in the padding."""
    return torch.where(mask, values, torch.full_like(values, poison))
