"""The learning rate of the policy over the iterations of a run."""

from __future__ import annotations

from lmrrg.config.ppo import PPOConfig


def policy_learning_rate(ppo: PPOConfig, iteration: int) -> float:
    """Of ``iteration`` (0, 1, ...): linear from ``learning_rate`` to ``learning_rate_end`` times that.

    0 while the critic warms up alone; without a critic nothing warms up.
    """
    if ppo.algorithm == "ppo" and iteration < ppo.value_warmup_iterations:
        return 0.0
    progress = iteration / max(ppo.iterations - 1, 1)
    return ppo.learning_rate * (1 + (ppo.learning_rate_end - 1) * progress)
