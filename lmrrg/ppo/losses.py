"""The PPO losses, as sums over valid tokens, each with its share in the loss of the minibatch.

Shares that add up to 1 over the whole minibatch, over all microbatches and ranks, make loss and gradient independent of
how the minibatch is split. Statistics are sums for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lmrrg.ppo.kl import Estimator, kl_estimate
from lmrrg.ppo.masks import fill

Aggregation = Literal["token", "sequence", "constant"]


def loss_shares(mask: Tensor, aggregation: Aggregation, longest: int) -> Tensor:
    """Share of each token [B, T] in the loss of the minibatch ``mask`` (bool [B, T]); 0 in the padding.

    ``token``: 1 / tokens, so long reports weigh more. ``sequence``: 1 / (reports x tokens of the report), so the tokens
    of long reports weigh less. ``constant``: 1 / (reports x ``longest``), so a token weighs the same whatever the
    lengths of the others (Liu et al. 2025); only there the shares add up to less than 1.
    """
    tokens, reports = mask.sum(dim=1, keepdim=True).clamp(min=1), mask.any(dim=1).sum().clamp(min=1)
    if aggregation == "token":
        share = mask.sum().clamp(min=1).reciprocal().expand_as(tokens)
    elif aggregation == "sequence":
        share = (reports * tokens).reciprocal()
    else:
        share = (reports * longest).reciprocal().expand_as(tokens)
    return fill(share.float().expand(mask.shape), mask)


@dataclass(frozen=True)
class PolicyLoss:
    """Loss of the policy, and what is reported of it: scalars, summed over valid tokens."""

    loss: Tensor
    """Differentiable."""
    clipped: Tensor
    """Tokens where clipping decided."""
    approx_kl: Tensor
    """Sum of the k3 estimate of KL(old || new), nats."""
    ratio_error: Tensor
    """Largest |ratio - 1|; a maximum, not a sum."""
    ratio_distance: Tensor
    """Sum of |ratio - 1|."""


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    shares: Tensor | float,
    clip: float,
    dual_clip: float | None = None,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """Clipped surrogate ``-min(rho A, clip(rho, 1 - clip, 1 + clip) A)`` (Schulman et al. 2017), weighted by shares.

    Args:
        log_probs: under the policy that is trained [B, T], differentiable.
        old_log_probs: the same tokens under the policy that sampled, from the trainer's forward [B, T].
        advantages: [B, T].
        mask: bool [B, T]; whatever stands in the padding has no influence.
        shares: of the tokens in the loss [B, T] (:func:`loss_shares`), or one for all.
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
        away = (ratio - 1).abs()
    return PolicyLoss(
        -(fill(surrogate, mask) * shares).sum(), decided.sum(), approx_kl, away.max(), away.sum()
    )


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    shares: Tensor | float,
    clip: float,
) -> Tensor:
    """``max((V - R)^2, (V_clipped - R)^2) / 2``, weighted by shares; V_clipped is within ``clip`` of the old value.

    Args:
        values: differentiable [B, T].
        old_values: before the update [B, T].
        returns: value targets [B, T].
        mask: bool [B, T].
        shares: of the tokens in the loss [B, T], or one for all.
        clip: clip range, in units of reward.
    """
    values, old_values, returns = (fill(x, mask) for x in (values, old_values, returns))
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    errors = torch.maximum((values - returns).square(), (clipped - returns).square())
    return (errors * shares).sum() / 2


def kl_loss(
    log_probs: Tensor,
    reference: Tensor,
    mask: Tensor,
    *,
    shares: Tensor | float,
    estimator: Estimator,
) -> Tensor:
    """KL(policy || reference) as a loss, weighted by ``shares``: a scalar, differentiable.

    On samples of the policy itself k2 has the gradient of this KL; k3 has that of the reversed one, KL(reference ||
    policy), and pulls harder where the policy has left tokens that the reference likes; k1 has none on average.
    """
    return (kl_estimate(log_probs, reference, mask, estimator) * shares).sum()


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probs [B, T] of ``ids`` [B, T] under ``logits`` [B, T, V], in float32."""
    flat = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids.flatten(), reduction="none"
    )
    return -flat.view(ids.shape)


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy [B, T] of the next-token distribution ``logits`` [B, T, V], nats."""
    log_probs = logits.float().log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)
