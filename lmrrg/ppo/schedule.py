"""The learning rate of the policy over the iterations of a run."""

from __future__ import annotations

from lmrrg.config.ppo import PPOConfig


def policy_learning_rate(ppo: PPOConfig, iteration: int) -> float:
    """Return the learning rate of ``iteration`` (0, 1, ...).

    It falls linearly from ``learning_rate`` to ``learning_rate_end`` times that. It is 0 while the
    critic warms up alone; without a critic there is no warm-up.

    >>> ppo = PPOConfig(
    ...     iterations=5, learning_rate=1.0, learning_rate_end=0.5, value_warmup_iterations=1
    ... )
    >>> [policy_learning_rate(ppo, iteration) for iteration in range(5)]
    [0.0, 0.875, 0.75, 0.625, 0.5]
    """
    if ppo.algorithm == "ppo" and iteration < ppo.value_warmup_iterations:
        return 0.0
    progress = iteration / max(ppo.iterations - 1, 1)
    return ppo.learning_rate * (1 + (ppo.learning_rate_end - 1) * progress)
