"""Per-token rewards, advantages with a critic (GAE, Schulman et al. 2016) or without (RLOO, GRPO), and whitening."""

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
        running = torch.where(
            mask[:, t], deltas[:, t] + gamma * lam * running, torch.zeros_like(running)
        )
        advantages[:, t] = running
    return advantages, fill(advantages + values, mask)


def sibling_advantages(returns: Tensor, study: Tensor, valid: Tensor, *, scaled: bool) -> Tensor:
    """Advantages [B] of reports over the other reports of the same study, without a critic.

    RLOO (Ahmadian et al. 2024): the return minus the mean of the siblings' returns. GRPO (Shao et al. 2024,
    ``scaled``): the return minus the mean of the study, divided by the study's standard deviation. A report without a
    valid sibling has nothing to be compared with: 0.

    Args:
        returns: whole return of each report [B]; whatever stands in invalid rows has no influence.
        study: long [B], the study that each report belongs to, 0 ... S-1.
        valid: bool [B], the reports that could be scored.
        scaled: GRPO instead of RLOO.
    """
    returns = torch.where(valid, returns, torch.zeros_like(returns)).double()

    def of_study(values: Tensor) -> Tensor:
        return torch.zeros(int(study.max()) + 1, dtype=torch.float64).index_add(0, study, values)[
            study
        ]

    count = of_study(valid.double())
    deviation = returns - of_study(returns) / count.clamp(min=1)
    if scaled:
        square = torch.where(valid, deviation.square(), torch.zeros_like(deviation))
        advantages = deviation / ((of_study(square) / count.clamp(min=1)).sqrt() + 1e-6)
    else:
        advantages = (
            deviation * count / (count - 1).clamp(min=1)
        )  # leaving itself out of the mean only stretches it
    return torch.where(valid & (count > 1), advantages, torch.zeros_like(advantages)).float()


def whiten(
    values: Tensor, mask: Tensor, moments: Moments | None = None, epsilon: float = 1e-8
) -> Tensor:
    """Shift and scale the valid entries of ``values`` [B, T] to mean 0, variance 1; the padding becomes 0.

    Pass the summed ``moments`` of all ranks to whiten over all of them; by default those of this batch are used.
    """
    moments = Moments.of(values, mask) if moments is None else moments
    scale = (moments.variance + epsilon) ** -0.5
    return fill((values - moments.mean) * scale, mask)


def emphasise(advantages: Tensor, findings: Tensor, mask: Tensor, weight: float) -> Tensor:
    """``advantages`` [B, T] times ``weight`` at the tokens that carry findings, and scaled so that the factors of all
    valid tokens have mean 1 (ours): the step stays as large, its direction is more about findings than about wording.

    Args:
        findings: bool [B, T].
        mask: bool [B, T].
        weight: above 0; 1 changes nothing.
    """
    factors = torch.where(
        findings, torch.full_like(advantages, weight), torch.ones_like(advantages)
    )
    mean = fill(factors, mask).sum() / mask.sum().clamp(min=1)
    return fill(advantages * factors, mask) / mean


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """``1 - Var(returns - values) / Var(returns)`` over valid tokens; 1 is a perfect critic, 0 a constant one.

    Without variance in the returns nothing is to be explained: 0.
    """
    spread = Moments.of(returns, mask).variance
    return 1.0 - Moments.of(returns - values, mask).variance / spread if spread > 0 else 0.0
