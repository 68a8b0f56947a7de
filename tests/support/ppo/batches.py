"""Random right-padded batches for the tests of this folder."""

from __future__ import annotations

import torch
from torch import Tensor

from lmrrg.policy.batches import Rollout
from lmrrg.vision.study_features import StudyFeatures


def mask_of(lengths: list[int], width: int | None = None) -> Tensor:
    """Right-padded mask, bool [B, T]."""
    return torch.arange(width or max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def random_batch(seed: int, lengths: list[int], width: int | None = None) -> dict[str, Tensor]:
    """Log-probs, values and advantages [B, T] with a mask of ``lengths``."""
    generator = torch.Generator().manual_seed(seed)
    mask = mask_of(lengths, width)
    noise = {
        name: torch.randn(mask.shape, generator=generator)
        for name in ("a", "b", "c", "d", "e", "f")
    }
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


def random_rollout(studies: int, samples: int, seed: int = 0, width: int = 12) -> Rollout:
    """Reports of random tokens and lengths; the patches of study i are all i, its prompt is [i]."""
    generator = torch.Generator().manual_seed(seed)
    rows = studies * samples
    lengths = torch.randint(1, width + 1, (rows,), generator=generator).tolist()
    return Rollout(
        features=StudyFeatures(
            torch.arange(studies).float()[:, None, None, None].expand(-1, 1, 2, 3).clone(),
            torch.zeros(studies, 1, dtype=torch.long),
            torch.ones(studies, 1, dtype=torch.bool),
        ),
        prompts=[[i] for i in range(studies)],
        study=torch.arange(studies).repeat_interleave(samples),
        ids=torch.randint(100, (rows, width), generator=generator),
        mask=mask_of(lengths, width),
    )
