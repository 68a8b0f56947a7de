"""Evaluation on validation studies while PPO runs: a metric that is never part of the reward picks the checkpoint."""

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
"""A held-out metric that is lower by less than this is noise (64 studies), not an alarm (ours)."""


@dataclass(frozen=True)
class HeldOut:
    """Greedy reports on validation studies: the metric that decides, and what they earn as reward."""

    metric: float
    reward: float
    radcliq: float
    distinct_ratio: float

    def metrics(self, prefix: str = "heldout") -> dict[str, float]:
        """Named for the log."""
        return {
            prefix: self.metric,
            f"{prefix}_reward": self.reward,
            f"{prefix}_radcliq_v1": self.radcliq,
            f"{prefix}_distinct_ratio": self.distinct_ratio,
        }

    def is_as_varied(self, start: HeldOut, share: float) -> bool:
        """Whether the distinct-report ratio is at least ``share`` of that of the model that PPO started from."""
        return self.distinct_ratio >= share * start.distinct_ratio

    def is_hacked(self, best: HeldOut) -> bool:
        """Reward above that of the best checkpoint while the held-out metric is clearly below it."""
        return self.reward > best.reward and self.metric < best.metric - ALARM_MARGIN


def evaluate_heldout(
    studies: StudyBatch, rollouts: RolloutPool, rewards: RewardPool, metric: str
) -> HeldOut:
    """Write one greedy report for each study and score them with ``label_f1`` or ``rouge_l``."""
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
    measure = (
        label_f1(texts, studies.labels)
        if metric == "label_f1"
        else float(rouge_l(texts, studies.references).mean())
    )
    return HeldOut(
        metric=measure,
        reward=float(np.nanmean(scores.reward)),
        radcliq=float(np.nanmean(scores.radcliq_v1)),
        distinct_ratio=len(set(texts)) / len(texts),
    )


def label_f1(texts: Sequence[str], labels: Sequence[dict[str, int]]) -> float:
    """Micro F1 over the 14 classes, uncertain as positive, between reports and labels of their studies.

    Micro (ours): with few validation studies the mean over classes hangs on classes that occur once or twice.
    """
    predicted = positives([label_report(text) for text in texts], "positive")
    return f1_aggregates(positives(labels, "positive"), predicted)["micro_f1_14"].value
