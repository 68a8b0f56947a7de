"""KL to the frozen SFT model: per-token estimates, and the controllers of its weight lambda_KL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lmrrg.config.ppo import KLConfig
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.masks import fill

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(log_probs: Tensor, reference: Tensor, mask: Tensor, estimator: Estimator) -> Tensor:
    """Estimate KL(policy || reference) at each sampled token; [B, T] in nats, 0 in the padding.

    With d = log pi - log pi_ref (Schulman, "Approximating KL divergence"): k1 = d is unbiased;
    k2 = d^2 / 2 is biased in value, low in variance, and its gradient is unbiased;
    k3 = exp(-d) - 1 + d is unbiased and never negative, while its gradient is that of
    KL(reference || policy).

    Args:
        log_probs: log-probs under the policy of tokens that it sampled [B, T].
        reference: the same tokens under the reference [B, T].
        mask: bool [B, T].
        estimator: k1, k2 or k3.

    One token became twice as probable as in the reference, another one half as probable:

    >>> policy, reference = torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[0.25, 0.4]]).log()
    >>> mask = torch.tensor([[True, True]])
    >>> kl_estimate(policy, reference, mask, "k1")
    tensor([[ 0.6931, -0.6931]])
    >>> kl_estimate(policy, reference, mask, "k2")
    tensor([[0.2402, 0.2402]])
    >>> kl_estimate(policy, reference, mask, "k3")
    tensor([[0.1931, 0.3069]])
    """
    difference = fill(log_probs - reference, mask)
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    # expm1 keeps the digits that exp(-d) - 1 would lose near d = 0.
    return torch.expm1(-difference) + difference


def kl_per_sequence(log_probs: Tensor, reference: Tensor, mask: Tensor) -> float:
    """Return the KL to the reference in nats per report.

    It is the log-ratio summed over the tokens of a report, averaged over the reports that have a
    valid token.

    >>> mask = torch.tensor([[True, True], [True, False], [False, False]])
    >>> kl_per_sequence(torch.full((3, 2), -1.0), torch.full((3, 2), -3.0), mask)
    3.0
    """
    rows = mask.any(dim=1).sum().clamp(min=1)
    return float(fill(log_probs - reference, mask).sum() / rows)


@dataclass(frozen=True)
class BatchSignal:
    """What one iteration tells a controller."""

    kl_per_sequence: float
    """Nats per report, batch mean."""
    policy_reward: float
    """Mean reward of the sampled reports."""
    reference_reward: float
    """Mean reward of the SFT model's reports on the same studies."""
    episodes: int
    """Reports in the batch."""


class KLController:
    """lambda_KL and the rule that moves it (method, section 3), within the bounds of the settings.

    The bounds matter for ``target`` too (ours): with few horizon episodes its factor
    1 + e n / horizon can be negative, and a negative lambda would reward leaving the reference.

    Raises:
        PPOError: ``kl_settings`` when a target, horizon or scale is not above 0, or a moving lambda
            starts at 0.
    """

    def __init__(self, config: KLConfig):
        for name in ("target_per_sequence", "horizon_episodes", "reward_scale"):  # the divisors
            if not getattr(config, name) > 0:
                raise PPOError(
                    "kl_settings", f"{name} must be above 0, got {getattr(config, name)}"
                )
        if config.controller != "fixed" and config.initial <= 0:
            raise PPOError(
                "kl_settings",
                f"initial 0 never moves with controller {config.controller}; use fixed",
            )
        self._config = config
        self.weight = config.initial
        """lambda_KL, reward per nat."""

    def update(self, signal: BatchSignal) -> float:
        """Move lambda by one batch and return it.

        Raises:
            PPOError: ``kl_not_finite`` when the signal holds NaN or Inf.

        The KL is a tenth above its target, and half of the horizon's episodes have passed:

        >>> controller = KLController(
        ...     KLConfig(
        ...         controller="target", initial=0.1, target_per_sequence=10, horizon_episodes=200
        ...     )
        ... )
        >>> signal = BatchSignal(11.0, policy_reward=0.0, reference_reward=0.0, episodes=100)
        >>> round(controller.update(signal), 6)
        0.105
        """
        numbers = (signal.kl_per_sequence, signal.policy_reward, signal.reference_reward)
        # One NaN would stay in lambda for the rest of the run.
        if not all(math.isfinite(number) for number in numbers):
            raise PPOError("kl_not_finite", f"the controller got {signal}")
        if self._config.controller != "fixed":
            moved = self.weight * self._factor(signal)
            self.weight = min(max(moved, self._config.minimum), self._config.maximum)
        return self.weight

    def state_dict(self) -> dict[str, float | str]:
        """Return what :meth:`load_state_dict` needs."""
        return {"controller": self._config.controller, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float | str]) -> None:
        """Continue from a saved lambda.

        Raises:
            PPOError: ``kl_state`` when the state is of another controller, incomplete, or out of
                bounds.
        """
        # Controllers move lambda by different signals: one's value means nothing to another.
        if set(state) != {"controller", "weight"} or state["controller"] != self._config.controller:
            raise PPOError(
                "kl_state", f"state {state} does not belong to controller {self._config.controller}"
            )
        weight = float(state["weight"])
        if not self._config.minimum <= weight <= self._config.maximum:
            raise PPOError(
                "kl_state",
                f"lambda {weight} outside [{self._config.minimum}, {self._config.maximum}]",
            )
        self.weight = weight

    def _factor(self, signal: BatchSignal) -> float:
        """Return the factor by which this batch moves lambda."""
        config = self._config
        if config.controller == "rllib":
            # Thresholds and factors are those of RLlib's own PPO.
            if signal.kl_per_sequence > 2 * config.target_per_sequence:
                return 1.5
            return 0.5 if signal.kl_per_sequence < 0.5 * config.target_per_sequence else 1.0
        if config.controller == "target":
            error = signal.kl_per_sequence / config.target_per_sequence - 1
        elif config.controller == "reward":
            error = (signal.reference_reward - signal.policy_reward) / config.reward_scale
        else:
            raise PPOError(
                "kl_settings", f"no rule moves lambda for controller {config.controller}"
            )
        # Errors beyond 20 % move lambda no further, so that one odd batch cannot change it much.
        return 1 + min(max(error, -0.2), 0.2) * signal.episodes / config.horizon_episodes
