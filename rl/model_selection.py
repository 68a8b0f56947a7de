"""Choose the model that a PPO run delivers, by validation on studies that PPO never learns from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from lmrrg.config.ppo import PPOConfig
from rl.validation import HeldOut

logger = logging.getLogger(__name__)


@dataclass
class ModelSelection:
    """The best model so far, and the rules by which another one replaces it.

    Candidates are the SFT model, the policy at every validation, and, after the last iteration,
    mixtures of both. The held-out metric decides. A model whose reports have collapsed to a few
    texts, or contradict and repeat themselves more often, is never chosen.
    """

    ppo: PPOConfig
    validate: Callable[[], HeldOut]
    """Evaluates the weights that the engines hold."""
    save_best: Callable[[HeldOut, float], None]
    """Stores a candidate; the number is the policy's fraction in it, 1 unless it is a mixture."""
    start: HeldOut | None = None
    """Validation of the SFT model."""
    best: HeldOut | None = None
    """Validation of the best model so far."""

    def evaluate_policy(self, iteration: int) -> dict[str, float]:
        """Validate the policy, keep it where it is the best so far, and return the metrics."""
        started = time.perf_counter()
        found = self.validate()
        # Compared with the best model of before: the candidate itself may replace it below.
        is_hacked = self.best is not None and found.is_hacked(self.best)
        if is_hacked:
            logger.warning(
                "iteration %d: the reward rises while the held-out metric falls", iteration
            )
        best = self._keep_if_best(found, 1.0)
        return found.metrics() | {
            "heldout_best": best.metric,
            "heldout_alarm": float(is_hacked),
            "evaluate_s": time.perf_counter() - started,
        }

    def evaluate_mixtures(self, load: Callable[[float], None]) -> dict[str, dict[str, float]]:
        """Validate every mixture of ``ppo.mixtures``, and keep the best one where it wins.

        Args:
            load: gives the engines the mixture with this fraction of the policy; 1 is the policy.

        Returns:
            The metrics of each mixture, by the policy's fraction in percent.
        """
        measured = {}
        for fraction in self.ppo.mixtures:
            load(fraction)
            found = self.validate()
            self._keep_if_best(found, fraction)
            measured[f"{100 * fraction:g}"] = found.metrics()
        if measured:
            load(1.0)  # whoever samples next expects the policy
        return measured

    def _keep_if_best(self, found: HeldOut, fraction: float) -> HeldOut:
        """Store a candidate that is the best so far; return the best one."""
        self.start = self.start or found
        is_varied = found.is_as_varied(self.start, self.ppo.best_distinct_ratio)
        is_sound = found.is_as_coherent(self.start, self.ppo.best_incoherent_margin)
        # At an equal metric the later candidate wins: it has learnt longer at no loss.
        is_better = self.best is None or found.metric >= self.best.metric
        if is_better and is_varied and is_sound:
            self.best = found
            self.save_best(found, fraction)
        assert self.best is not None  # the first candidate is as varied and coherent as itself
        return self.best
