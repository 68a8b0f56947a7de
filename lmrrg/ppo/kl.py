"""KL to the frozen SFT model: per-token estimates, and the controllers that move its weight lambda_KL.

Units: ``kl_per_sequence`` is the batch mean of the log-ratio summed over the tokens of a report, in nats.
"""

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
    """Estimate KL(policy || reference) at each token sampled from the policy; [B, T] in nats, 0 in the padding.

    With d = log pi - log pi_ref (Schulman, "Approximating KL divergence"): k1 = d is unbiased; k2 = d^2 / 2 is biased
    in value, low in variance, and its gradient is unbiased; k3 = exp(-d) - 1 + d is unbiased and never negative, while
    its gradient is that of KL(reference || policy).

    Args:
        log_probs: log-probs of the sampled tokens under the policy [B, T].
        reference: the same tokens under the reference [B, T].
        mask: bool [B, T].
        estimator: k1, k2 or k3.
    """
    difference = fill(log_probs - reference, mask)
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    return torch.expm1(-difference) + difference


def kl_per_sequence(log_probs: Tensor, reference: Tensor, mask: Tensor) -> float:
    """Mean over the reports that have a valid token of the log-ratio summed over tokens, nats per report."""
    rows = mask.any(dim=1).sum().clamp(min=1)
    return float(fill(log_probs - reference, mask).sum() / rows)


@dataclass(frozen=True)
class BatchSignal:
    """What a controller sees of one iteration."""

    kl_per_sequence: float
    """Nats per report, batch mean."""
    policy_reward: float
    """Mean reward of the sampled reports."""
    reference_reward: float
    """Mean reward of the SFT model's reports on the same studies."""
    episodes: int
    """Reports in the batch."""


class KLController:
    """lambda_KL and the rule that moves it (method, section 3); bounds of the configuration hold for every rule.

    The bounds matter for ``target`` too (ours): with few horizon episodes its factor 1 + e n / horizon can be
    negative, and a negative lambda would reward leaving the reference.

    Raises:
        PPOError: ``kl_settings`` when a target, horizon or scale is not above 0, or a moving lambda starts at 0.
    """

    def __init__(self, config: KLConfig):
        for name in ("target_per_sequence", "horizon_episodes", "reward_scale"):
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
        """
        numbers = (signal.kl_per_sequence, signal.policy_reward, signal.reference_reward)
        if not all(math.isfinite(number) for number in numbers):
            raise PPOError("kl_not_finite", f"the controller got {signal}")
        if self._config.controller != "fixed":
            moved = self.weight * self._factor(signal)
            self.weight = min(max(moved, self._config.minimum), self._config.maximum)
        return self.weight

    def state_dict(self) -> dict[str, float | str]:
        """All that :meth:`load_state_dict` needs."""
        return {"controller": self._config.controller, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float | str]) -> None:
        """Continue from a saved lambda.

        Raises:
            PPOError: ``kl_state`` when the state is of another controller, incomplete or out of bounds.
        """
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
        config = self._config
        if config.controller == "rllib":
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
        return 1 + min(max(error, -0.2), 0.2) * signal.episodes / config.horizon_episodes
