"""The PPO losses, as sums over valid tokens divided by a count that the caller gives.

Dividing by the number of valid tokens of the whole minibatch, over all microbatches and ranks, makes loss and gradient
independent of how the minibatch is split. Statistics are sums for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmrrg.ppo.masks import fill


@dataclass(frozen=True)
class PolicyLoss:
    """Loss of the policy and what is reported of it; all scalars, summed over valid tokens."""

    loss: Tensor
    """Differentiable, already divided by the minibatch's count."""
    clipped: Tensor
    """Tokens where clipping decided."""
    approx_kl: Tensor
    """Sum of the k3 estimate of KL(old || new), nats."""
    ratio_error: Tensor
    """Largest |ratio - 1|; a maximum, not a sum."""


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    tokens: float,
    clip: float,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """Clipped surrogate ``-min(rho A, clip(rho, 1 - clip, 1 + clip) A)`` (Schulman et al. 2017), mean over tokens.

    Args:
        log_probs: under the policy that is trained [B, T], differentiable.
        old_log_probs: the same tokens under the policy that sampled, from the trainer's forward [B, T].
        advantages: [B, T].
        mask: bool [B, T]; whatever stands in the padding has no influence.
        tokens: valid tokens of the whole minibatch over all ranks.
        clip: clip range of the ratio.
        dual_clip: c > 1 bounds the loss of tokens with negative advantage by c |A| (Ye et al. 2020); None: off.
        weights: detached importance weights [B, T]; None: 1.
    """
    difference = fill(log_probs - old_log_probs, mask)
    # An overflowing ratio would meet the clip's zero gradient as 0 * Inf; e^20 is far outside any clip range.
    ratio = difference.clamp(-20, 20).exp()
    advantages = fill(advantages, mask)
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    surrogate = torch.minimum(plain, bounded)
    decided = bounded < plain
    if dual_clip is not None:
        floor = dual_clip * advantages
        below = (advantages < 0) & (surrogate < floor)
        surrogate = torch.where(below, floor, surrogate)
        decided = decided | below
    if weights is not None:
        surrogate = surrogate * fill(weights, mask)
    with torch.no_grad():
        approx_kl = (torch.expm1(difference) - difference).sum()
        ratio_error = (ratio - 1).abs().max()
    return PolicyLoss(-fill(surrogate, mask).sum() / tokens, decided.sum(), approx_kl, ratio_error)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, tokens: float, clip: float
) -> Tensor:
    """``max((V - R)^2, (V_clipped - R)^2) / 2``, mean over tokens; V_clipped stays within ``clip`` of the old value.

    Args:
        values: differentiable [B, T].
        old_values: before the update [B, T].
        returns: value targets [B, T].
        mask: bool [B, T].
        tokens: valid tokens of the whole minibatch over all ranks.
        clip: clip range, in units of reward.
    """
    values, old_values, returns = (fill(x, mask) for x in (values, old_values, returns))
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    errors = torch.maximum((values - returns).square(), (clipped - returns).square())
    return errors.sum() / 2 / tokens


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probs [B, T] of ``ids`` [B, T] under ``logits`` [B, T, V], in float32."""
    flat = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none")
    return -flat.view(ids.shape)


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy [B, T] of the next-token distribution ``logits`` [B, T, V], nats."""
    log_probs = logits.float().log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)
