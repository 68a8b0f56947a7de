"""Mismatch between the engine that samples and the trainer that learns.

Both hold the same weights but compute in different ways, so their log-probs differ a little.
:func:`parity` measures by how much, :func:`importance_weights` corrects for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.masks import fill, masked_mean

Correction = Literal["none", "token", "sequence"]


def importance_weights(
    trainer: Tensor, engine: Tensor, mask: Tensor, correction: Correction, cap: float
) -> Tensor | None:
    """Return the truncated importance weights ``min(pi_trainer / pi_engine, cap)`` of tokens.

    ``token`` weighs each token by its own ratio; ``sequence`` weighs all tokens of a report by the
    product of its ratios. The result is [B, T], 0 in the padding, without gradient; None with
    ``none``.

    Args:
        trainer: log-probs from the trainer's forward with the weights that sampled [B, T].
        engine: log-probs from the engine [B, T].
        mask: bool [B, T].
        correction: level of the weights.
        cap: largest weight.

    The trainer finds the first token half as probable as the engine did, the second one four times:

    >>> trainer, engine = torch.tensor([[0.25, 0.8]]).log(), torch.tensor([[0.5, 0.2]]).log()
    >>> mask = torch.tensor([[True, True]])
    >>> importance_weights(trainer, engine, mask, "token", cap=2.0)
    tensor([[0.5000, 2.0000]])
    >>> importance_weights(trainer, engine, mask, "sequence", cap=3.0)
    tensor([[2., 2.]])
    """
    if correction == "none":
        return None
    # Without gradient: the weights correct the estimate, they are not to be optimised themselves.
    difference = fill((trainer - engine).detach(), mask)
    if correction == "sequence":
        difference = difference.sum(dim=1, keepdim=True).expand_as(difference)
    return fill(difference.exp().clamp(max=cap), mask)


@dataclass(frozen=True)
class Parity:
    """Absolute difference of log-probs, nats: the mean and the largest over valid tokens."""

    mean_abs: float
    max_abs: float

    def require(self, tolerance: float) -> None:
        """Raise an error where the mean difference is above ``tolerance`` (nats), or is NaN.

        Raises:
            PPOError: ``parity_broken``.
        """
        # Written with "not", so that NaN is refused too.
        if not self.mean_abs <= tolerance:
            raise PPOError(
                "parity_broken",
                f"engine and trainer log-probs differ by {self.mean_abs:.3g} nats on average "
                f"(max {self.max_abs:.3g}, ppo.parity_tolerance {tolerance:g}): the engine holds "
                "other weights than the trainer, or computes in another precision",
            )


def parity(trainer: Tensor, engine: Tensor, mask: Tensor) -> Parity:
    """Return the mean and largest absolute difference of log-probs [B, T] over valid tokens.

    Raises:
        PPOError: ``no_valid_token``.

    >>> mask = torch.tensor([[True, True, False]])
    >>> parity(torch.tensor([[-1.0, -2.0, 9.0]]), torch.tensor([[-1.5, -2.0, 0.0]]), mask)
    Parity(mean_abs=0.25, max_abs=0.5)
    """
    difference = fill((trainer - engine).abs().double(), mask)
    return Parity(float(masked_mean(difference, mask)), float(torch.max(difference)))
