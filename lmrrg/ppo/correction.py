"""Mismatch between the engine that samples and the trainer that learns: its size, and weights that correct for it."""

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
    """Truncated importance weights ``min(pi_trainer / pi_engine, cap)`` of tokens that the engine sampled.

    ``token`` weighs each token by its own ratio; ``sequence`` weighs all tokens of a report by the product of its
    ratios. Returns [B, T], 0 in the padding, without gradient; None with ``none``.

    Args:
        trainer: log-probs from the trainer's forward with the weights that sampled [B, T].
        engine: log-probs from the engine [B, T].
        mask: bool [B, T].
        correction: level of the weights.
        cap: largest weight.
    """
    if correction == "none":
        return None
    difference = fill((trainer - engine).detach(), mask)
    if correction == "sequence":
        difference = difference.sum(dim=1, keepdim=True).expand_as(difference)
    return fill(difference.exp().clamp(max=cap), mask)


@dataclass(frozen=True)
class Parity:
    """How far the engine's log-probs are from the trainer's, nats."""

    mean_abs: float
    max_abs: float

    def require(self, tolerance: float) -> None:
        """Stop when the mean difference is above ``tolerance`` (nats), or is NaN.

        Raises:
            PPOError: ``parity_broken``.
        """
        if not self.mean_abs <= tolerance:
            raise PPOError(
                "parity_broken",
                f"engine and trainer log-probs differ by {self.mean_abs:.3g} nats on average (max {self.max_abs:.3g}, "
                f"ppo.parity_tolerance {tolerance:g}): the engine holds other weights than the trainer, or computes in "
                "another precision",
            )


def parity(trainer: Tensor, engine: Tensor, mask: Tensor) -> Parity:
    """Mean and largest absolute difference of log-probs [B, T] over valid tokens.

    Raises:
        PPOError: ``no_valid_token``.
    """
    difference = fill((trainer - engine).abs().double(), mask)
    return Parity(float(masked_mean(difference, mask)), float(torch.max(difference)))
