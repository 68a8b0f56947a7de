"""Models between the SFT model and the policy, by averaging their weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def mix(
    start: Mapping[str, Tensor], policy: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """``(1 - share) * start + share * policy``, tensor by tensor.

    What PPO learns slowly and steadily survives the mean, much of what it drifted into does not: at the same reward a
    mixture is closer to the SFT model than an earlier checkpoint is (WiSE-FT, Wortsman et al. 2022; the last step of
    WARP, Rame et al. 2024).

    Args:
        start: weights of the SFT model (:func:`lmrrg.model.checkpoint.full_state`).
        policy: weights of the policy, with the same names and shapes.
        share: of the policy, 0 to 1.

    Raises:
        KeyError: the policy lacks a weight.
    """
    return {name: torch.lerp(tensor, policy[name], share) for name, tensor in start.items()}
