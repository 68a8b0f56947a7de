"""Rewards and advantages of tokens, with a critic (GAE) or without one (RLOO, GRPO); whitening.

Sources: GAE is Schulman et al. 2016, RLOO Ahmadian et al. 2024, GRPO Shao et al. 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmrrg.ppo.masks import Moments, fill, require_right_padded


def token_rewards(sequence_rewards: Tensor, kl: Tensor, mask: Tensor, kl_weight: float) -> Tensor:
    """Return the rewards [B, T] of tokens: ``-kl_weight * kl``, and the report's reward at its end.

    A report's reward stands on its last valid token: EOS, or the last token of a truncated report
    (method, section 3). Rows without a valid token stay all zero, so the reward of a masked report
    may be NaN.

    Args:
        sequence_rewards: reward of each report [B].
        kl: per-token KL estimates [B, T], nats.
        mask: bool [B, T], right-padded.
        kl_weight: lambda_KL, reward per nat.

    Raises:
        PPOError: the mask is not right-padded.

    Two reports, of three tokens and of one, which earn 1 and -1:

    >>> mask = torch.tensor([[True, True, True], [True, False, False]])
    >>> kl = torch.tensor([[0.5, 0.0, 0.5], [1.0, 9.0, 9.0]])
    >>> token_rewards(torch.tensor([1.0, -1.0]), kl, mask, kl_weight=0.5).tolist()
    [[-0.25, -0.0, 0.75], [-1.5, -0.0, -0.0]]
    """
    require_right_padded(mask)
    # A token is the last one where it is valid and its right neighbour is not.
    last = mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1), value=False)
    rewards = -kl_weight * fill(kl, mask)
    return torch.where(last, rewards + sequence_rewards[:, None].to(kl.dtype), rewards)


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return advantages and value targets of every token, both [B, T] and 0 in the padding.

    ``A_t = sum_k (gamma lam)^k delta_{t+k}`` with ``delta_t = r_t + gamma V_{t+1} - V_t``. The
    value after the last valid token is 0: a report ends there, by EOS or by the limit of its length
    (ours: no bootstrap at truncation, since the reward has scored the truncated text).

    Args:
        rewards: per-token rewards [B, T].
        values: value estimates before each token [B, T].
        mask: bool [B, T], right-padded.
        gamma: discount.
        lam: lambda of GAE.

    Raises:
        PPOError: the mask is not right-padded.

    A reward of 1 at the end. With ``lam`` 1 every token is compared with the whole return, with
    ``lam`` 0 only with the value that follows it:

    >>> rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25, 0.5]])
    >>> mask = torch.tensor([[True, True]])
    >>> generalised_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    (tensor([[0.7500, 0.5000]]), tensor([[1., 1.]]))
    >>> generalised_advantages(rewards, values, mask, gamma=1.0, lam=0.0)
    (tensor([[0.2500, 0.5000]]), tensor([[0.5000, 1.0000]]))
    """
    require_right_padded(mask)
    rewards = fill(rewards, mask)
    values = fill(values, mask)
    next_values = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * next_values - values
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    # From the last token to the first: A_t = delta_t + gamma lam A_{t+1}.
    for t in range(deltas.shape[1] - 1, -1, -1):
        running = torch.where(
            mask[:, t], deltas[:, t] + gamma * lam * running, torch.zeros_like(running)
        )
        advantages[:, t] = running
    return advantages, fill(advantages + values, mask)


def sibling_advantages(returns: Tensor, study: Tensor, valid: Tensor, *, scaled: bool) -> Tensor:
    """Return advantages [B] of reports over the other reports of the same study, without a critic.

    RLOO: the return minus the mean of the siblings' returns. GRPO (``scaled``): the return minus
    the mean of the study, divided by the study's standard deviation. A report without a valid
    sibling has nothing to be compared with: 0.

    Args:
        returns: whole return of each report [B]; whatever stands in invalid rows has no influence.
        study: long [B], the study that each report belongs to, 0 ... S-1.
        valid: bool [B], the reports that could be scored.
        scaled: GRPO instead of RLOO.

    Three reports of study 0 and one of study 1, which has no sibling:

    >>> returns, study = torch.tensor([1.0, 2.0, 6.0, 5.0]), torch.tensor([0, 0, 0, 1])
    >>> sibling_advantages(returns, study, torch.ones(4).bool(), scaled=False).tolist()
    [-3.0, -1.5, 4.5, 0.0]
    """
    count, deviation = _deviations(returns, study, valid)
    if scaled:
        advantages = deviation / study_deviation(returns, study, valid)
    else:
        # Leaving the report itself out of the mean only stretches the deviation by n / (n - 1).
        advantages = deviation * count / (count - 1).clamp(min=1)
    return torch.where(valid & (count > 1), advantages, torch.zeros_like(advantages)).float()


def study_deviation(returns: Tensor, study: Tensor, valid: Tensor) -> Tensor:
    """Return the standard deviation of the returns of each report's study, float64 [B], above 0.

    Args:
        returns: whole return of each report [B]; whatever stands in invalid rows has no influence.
        study: long [B], the study that each report belongs to.
        valid: bool [B], the reports that could be scored.
    """
    count, deviation = _deviations(returns, study, valid)
    square = torch.where(valid, deviation.square(), torch.zeros_like(deviation))
    variance = _sums_over_study(square, study) / count.clamp(min=1)
    # 1e-6: a study whose reports all earn the same has no deviation either.
    return variance.sqrt() + 1e-6


def _deviations(returns: Tensor, study: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return each study's valid reports and each return's distance from their mean, both [B]."""
    # In float64: the deviations of a study are small beside its returns.
    returns = torch.where(valid, returns, torch.zeros_like(returns)).double()
    count = _sums_over_study(valid.double(), study)
    return count, returns - _sums_over_study(returns, study) / count.clamp(min=1)


def _sums_over_study(values: Tensor, study: Tensor) -> Tensor:
    """Return for each report the sum over its study [B]."""
    sums = torch.zeros(int(study.max()) + 1, dtype=torch.float64)
    return sums.index_add(0, study, values)[study]


def whiten(
    values: Tensor, mask: Tensor, moments: Moments | None = None, epsilon: float = 1e-8
) -> Tensor:
    """Shift and scale the valid entries of ``values`` to mean 0 and variance 1; the padding is 0.

    Args:
        values: [B, T].
        mask: bool [B, T].
        moments: the summed moments of all ranks, to whiten over all of them; None: of this batch.
        epsilon: added to the variance, so that constant values become 0.

    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> whiten(torch.tensor([[1.0, 3.0], [2.0, 99.0]]), mask)
    tensor([[-1.2247,  1.2247],
            [ 0.0000,  0.0000]])
    """
    moments = Moments.of(values, mask) if moments is None else moments
    scale = (moments.variance + epsilon) ** -0.5
    return fill((values - moments.mean) * scale, mask)


def emphasise(advantages: Tensor, findings: Tensor, mask: Tensor, weight: float) -> Tensor:
    """Return the advantages [B, T] with those of tokens that carry findings weighted more.

    The factors, ``weight`` at findings and 1 elsewhere, are scaled to mean 1 over the valid tokens
    (ours): the step stays as large, but its direction depends more on findings than on wording.

    Args:
        advantages: [B, T].
        findings: bool [B, T].
        mask: bool [B, T].
        weight: above 0; 1 changes nothing.

    >>> findings = torch.tensor([[True, False, False, False]])
    >>> emphasise(torch.ones(1, 4), findings, torch.ones(1, 4).bool(), weight=5.0).tolist()
    [[2.5, 0.5, 0.5, 0.5]]
    """
    factors = torch.where(
        findings, torch.full_like(advantages, weight), torch.ones_like(advantages)
    )
    mean = fill(factors, mask).sum() / mask.sum().clamp(min=1)
    return fill(advantages * factors, mask) / mean


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return ``1 - Var(returns - values) / Var(returns)`` over valid tokens.

    1 is a perfect critic, 0 one that is no better than a constant. It is 0 too where the returns
    have no variance.

    >>> returns, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3).bool()
    >>> explained_variance(returns - 5, returns, mask)  # an offset is no variance
    1.0
    """
    variance = Moments.of(returns, mask).variance
    if variance <= 0:
        return 0.0
    return 1.0 - Moments.of(returns - values, mask).variance / variance
