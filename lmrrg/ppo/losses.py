"""The PPO losses, as sums over valid tokens, each with its share in the loss of the minibatch.

The shares of a minibatch add up to 1 over all microbatches and ranks, so loss and gradient do not
depend on how the minibatch is split. Statistics are sums for the same reason.
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
    """Return the share of each token in the loss of a minibatch, [B, T], 0 in the padding.

    ``token``: 1 / tokens, so long reports weigh more. ``sequence``: 1 / (reports x tokens of the
    report), so the tokens of long reports weigh less. ``constant``: 1 / (reports x ``longest``), so
    a token weighs the same whatever the lengths of the others (Liu et al. 2025); only there the
    shares add up to less than 1.

    Args:
        mask: bool [B, T], of the whole minibatch.
        aggregation: token, sequence or constant.
        longest: largest number of tokens that a report can have.

    A report of three tokens and one of a single token:

    >>> mask = torch.tensor([[True, True, True], [True, False, False]])
    >>> loss_shares(mask, "token", longest=5).tolist()
    [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]
    >>> loss_shares(mask, "sequence", longest=5)
    tensor([[0.1667, 0.1667, 0.1667],
            [0.5000, 0.0000, 0.0000]])
    >>> loss_shares(mask, "constant", longest=5)
    tensor([[0.1000, 0.1000, 0.1000],
            [0.1000, 0.0000, 0.0000]])
    """
    tokens = mask.sum(dim=1, keepdim=True).clamp(min=1)
    reports = mask.any(dim=1).sum().clamp(min=1)
    if aggregation == "token":
        share = mask.sum().clamp(min=1).reciprocal().expand_as(tokens)
    elif aggregation == "sequence":
        share = (reports * tokens).reciprocal()
    else:
        share = (reports * longest).reciprocal().expand_as(tokens)
    return fill(share.float().expand(mask.shape), mask)


@dataclass(frozen=True)
class PolicyLoss:
    """Loss of the policy and its statistics: scalars, summed over valid tokens."""

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
    """Return the clipped surrogate loss of PPO (Schulman et al. 2017), weighted by shares.

    It is ``-min(rho A, clip(rho, 1 - clip, 1 + clip) A)`` with the probability ratio rho.

    Args:
        log_probs: under the policy that is trained [B, T], differentiable.
        old_log_probs: the same tokens under the policy that sampled, from the trainer's forward
            [B, T].
        advantages: [B, T].
        mask: bool [B, T]; whatever stands in the padding has no influence.
        shares: of the tokens in the loss [B, T] (:func:`loss_shares`), or one for all.
        clip: clip range of the ratio.
        dual_clip: c > 1 bounds the loss of tokens with negative advantage by c |A| (Ye et al.
            2020); None: off.
        weights: detached importance weights [B, T]; None: 1.

    Both tokens became twice as probable. What exceeds a ratio of 1.2 earns the good token nothing
    more, while the bad token pays for all of it:

    >>> new, old = torch.tensor([[0.4, 0.4]]).log(), torch.tensor([[0.2, 0.2]]).log()
    >>> advantages, mask = torch.tensor([[1.0, -1.0]]), torch.tensor([[True, True]])
    >>> result = policy_loss(new, old, advantages, mask, shares=1.0, clip=0.2)
    >>> round(result.loss.item(), 4), result.clipped.item()
    (0.8, 1)
    """
    difference = fill(log_probs - old_log_probs, mask)
    # An overflowing ratio would meet the clip's zero gradient as 0 * Inf; e^20 is far outside any
    # clip range.
    ratio = difference.clamp(-20, 20).exp()
    advantages = fill(advantages, mask)
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    surrogate = torch.minimum(plain, bounded)
    is_clipped = bounded < plain
    if dual_clip is not None:
        floor = dual_clip * advantages
        below = (advantages < 0) & (surrogate < floor)
        surrogate = torch.where(below, floor, surrogate)
        is_clipped = is_clipped | below
    if weights is not None:
        surrogate = surrogate * fill(weights, mask)
    with torch.no_grad():  # for the log only
        approx_kl = (torch.expm1(difference) - difference).sum()
        distance = (ratio - 1).abs()
    return PolicyLoss(
        loss=-(fill(surrogate, mask) * shares).sum(),
        clipped=is_clipped.sum(),
        approx_kl=approx_kl,
        ratio_error=distance.max(),
        ratio_distance=distance.sum(),
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
    """Return the clipped squared error of the critic, weighted by shares.

    It is ``max((V - R)^2, (V_clipped - R)^2) / 2``, where V_clipped is within ``clip`` of the old
    value.

    Args:
        values: differentiable [B, T].
        old_values: before the update [B, T].
        returns: value targets [B, T].
        mask: bool [B, T].
        shares: of the tokens in the loss [B, T], or one for all.
        clip: clip range, in units of reward.

    The value moved from 0 to 1, which is what it should be. As only 0.2 of the way counts, the
    error is that of 0.2:

    >>> new, old, returns = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])
    >>> loss = value_loss(new, old, returns, torch.tensor([[True]]), shares=1.0, clip=0.2)
    >>> round(loss.item(), 4)
    0.32
    """
    values = fill(values, mask)
    old_values = fill(old_values, mask)
    returns = fill(returns, mask)
    # The larger error decides: beyond the clip, moving on towards the target has no gradient.
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
    """Return KL(policy || reference) as a loss, weighted by ``shares``: a differentiable scalar.

    On samples of the policy itself, k2 has the gradient of this KL. k3 has that of the reversed
    one, KL(reference || policy), and pulls harder where the policy has left tokens that are
    probable in the reference. k1 has no gradient on average.
    """
    return (kl_estimate(log_probs, reference, mask, estimator) * shares).sum()


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probs [B, T] of ``ids`` [B, T] under ``logits`` [B, T, V], in float32."""
    # In float32: rounding in bfloat16 would be as large as the differences that matter here.
    flat = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids.flatten(), reduction="none"
    )
    return -flat.view(ids.shape)


def token_entropy(logits: Tensor) -> Tensor:
    """Return the entropy [B, T] of the next-token distribution ``logits`` [B, T, V], nats.

    >>> token_entropy(torch.zeros(1, 1, 4))  # log 4: four tokens, equally probable
    tensor([[1.3863]])
    """
    log_probs = logits.float().log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)
