"""Models between the SFT model and the policy, by averaging their weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def mix(
    start: Mapping[str, Tensor], policy: Mapping[str, Tensor], fraction: float
) -> dict[str, Tensor]:
    """Return ``(1 - fraction) * start + fraction * policy``, tensor by tensor.

    What PPO learns slowly and steadily survives the averaging, much of its random drift does not.
    At the same reward a mixture is closer to the SFT model than an earlier checkpoint (WiSE-FT,
    Wortsman et al. 2022; the last step of WARP, Rame et al. 2024).

    Args:
        start: weights of the SFT model (:func:`lmrrg.model.checkpoint.full_state`).
        policy: weights of the policy, with the same names and shapes.
        fraction: of the policy, 0 to 1.

    Raises:
        KeyError: the policy lacks a weight.

    >>> mix({"bias": torch.tensor([0.0, 8.0])}, {"bias": torch.tensor([4.0, 8.0])}, 0.25)
    {'bias': tensor([1., 8.])}
    """
    # lerp gives both models to the bit at the fractions 0 and 1.
    return {name: torch.lerp(tensor, policy[name], fraction) for name, tensor in start.items()}
