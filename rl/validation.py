"""Validation while PPO runs, by a metric that is never part of the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.reward import RewardPool
from actors.rollout import RolloutPool
from lmrrg.metrics.clinical import f1_aggregates, positives
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.text.rouge import rouge_l
from rl.study_pool import StudyBatch

ALARM_MARGIN = 0.02
"""Differences of the held-out metric below this are noise with 64 studies, no alarm (ours)."""


@dataclass(frozen=True)
class HeldOut:
    """Result of one validation: metrics of greedy reports on the validation studies."""

    metric: float
    """``ppo.heldout_metric``, which decides which model is the best."""
    reward: float
    radcliq: float
    """RadCliQ-v1, lower is better."""
    distinct_ratio: float
    """Number of different reports divided by the number of reports."""
    incoherent_ratio: float
    """Fraction of the reports that contradict or repeat themselves."""

    def metrics(self, prefix: str = "heldout") -> dict[str, float]:
        """Return the metrics under their names in the log."""
        return {
            prefix: self.metric,
            f"{prefix}_reward": self.reward,
            f"{prefix}_radcliq_v1": self.radcliq,
            f"{prefix}_distinct_ratio": self.distinct_ratio,
            f"{prefix}_incoherent_ratio": self.incoherent_ratio,
        }

    def is_as_varied(self, start: HeldOut, fraction: float) -> bool:
        """Return whether the distinct ratio is at least ``fraction`` of that of ``start``.

        ``start`` is the model that PPO started from.
        """
        return self.distinct_ratio >= fraction * start.distinct_ratio

    def is_as_coherent(self, start: HeldOut, margin: float) -> bool:
        """Return whether at most ``margin`` more of the reports are incoherent than of ``start``.

        ``start`` is the model that PPO started from.
        """
        return self.incoherent_ratio <= start.incoherent_ratio + margin

    def is_hacked(self, best: HeldOut) -> bool:
        """Return whether the reward is above that of ``best`` but the metric is clearly below it.

        That is the sign of reward hacking: the policy exploits the reward instead of improving.
        """
        return self.reward > best.reward and self.metric < best.metric - ALARM_MARGIN


def evaluate_heldout(
    studies: StudyBatch, rollouts: RolloutPool, rewards: RewardPool, metric: str
) -> HeldOut:
    """Write one greedy report for each study and score them.

    Args:
        studies: the validation studies.
        rollouts: the engines, with the weights to evaluate.
        rewards: the scorers.
        metric: ``label_f1`` or ``rouge_l``.
    """
    # At temperature 0 the seed has no influence, but the engines want one.
    sampled = rollouts.generate(
        studies.features, studies.prompts, samples=1, temperature=0.0, seed=0
    )
    reports = [of_study[0] for of_study in sampled]
    texts = [report.text for report in reports]
    scores = rewards.score(
        texts,
        studies.references,
        [report.token_ids for report in reports],
        [report.finished for report in reports],
    )
    if metric == "label_f1":
        heldout = label_f1(texts, studies.labels)
    else:
        heldout = float(rouge_l(texts, studies.references).mean())
    return HeldOut(
        metric=heldout,
        # Reports that could not be scored are NaN; they must not decide about the model.
        reward=float(np.nanmean(scores.reward)),
        radcliq=float(np.nanmean(scores.radcliq_v1)),
        distinct_ratio=len(set(texts)) / len(texts),
        incoherent_ratio=float((scores.faults > 0).mean()),
    )


def label_f1(texts: Sequence[str], labels: Sequence[dict[str, int]]) -> float:
    """Return the micro F1 over the 14 classes, uncertain as positive, of reports and true labels.

    Micro (ours): with few validation studies the mean over classes would depend on classes that
    occur once or twice.
    """
    predicted = positives([label_report(text) for text in texts], "positive")
    return f1_aggregates(positives(labels, "positive"), predicted)["micro_f1_14"].value
