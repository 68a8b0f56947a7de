"""Per-token rewards, generalised advantage estimation (Schulman et al. 2016) and whitening."""

from __future__ import annotations

import torch
from torch import Tensor

from lmrrg.ppo.masks import Moments, fill, require_right_padded


def token_rewards(sequence_rewards: Tensor, kl: Tensor, mask: Tensor, kl_weight: float) -> Tensor:
    """Rewards [B, T] of the tokens: ``-kl_weight * kl``, plus the report's reward on its last valid token.

    The last valid token is EOS, or the last token of a truncated report (method, section 3). Rows without a valid token
    stay all zero, so the reward of a masked report may be NaN.

    Args:
        sequence_rewards: reward of each report [B].
        kl: per-token KL estimates [B, T], nats.
        mask: bool [B, T], right-padded.
        kl_weight: lambda_KL, reward per nat.

    Raises:
        PPOError: the mask is not right-padded.
    """
    require_right_padded(mask)
    last = mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1), value=False)
    rewards = -kl_weight * fill(kl, mask)
    return torch.where(last, rewards + sequence_rewards[:, None].to(kl.dtype), rewards)


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and value targets of every token, both [B, T] and zero in the padding.

    ``A_t = sum_k (gamma lam)^k delta_{t+k}`` with ``delta_t = r_t + gamma V_{t+1} - V_t``; the value after the last
    valid token is 0: a report ends there, by EOS or by the limit of its length (ours: no bootstrap at truncation, the
    reward already scored the truncated text).

    Args:
        rewards: per-token rewards [B, T].
        values: value estimates before each token [B, T].
        mask: bool [B, T], right-padded.
        gamma: discount.
        lam: lambda of GAE.

    Raises:
        PPOError: the mask is not right-padded.
    """
    require_right_padded(mask)
    rewards, values = fill(rewards, mask), fill(values, mask)
    next_values = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * next_values - values
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for t in range(deltas.shape[1] - 1, -1, -1):
        running = torch.where(mask[:, t], deltas[:, t] + gamma * lam * running, torch.zeros_like(running))
        advantages[:, t] = running
    return advantages, fill(advantages + values, mask)


def whiten(values: Tensor, mask: Tensor, moments: Moments | None = None, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale the valid entries of ``values`` [B, T] to mean 0, variance 1; the padding becomes 0.

    Pass the summed ``moments`` of all ranks to whiten over all of them; by default those of this batch are used.
    """
    moments = Moments.of(values, mask) if moments is None else moments
    scale = (moments.variance + epsilon) ** -0.5
    return fill((values - moments.mean) * scale, mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """``1 - Var(returns - values) / Var(returns)`` over valid tokens; 1 is a perfect critic, 0 a constant one.

    Without variance in the returns nothing is to be explained: 0.
    """
    spread = Moments.of(returns, mask).variance
    return 1.0 - Moments.of(returns - values, mask).variance / spread if spread > 0 else 0.0
