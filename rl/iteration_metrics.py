"""What is watched in every iteration: reward and its parts, KL, collapse, reward hacking.

Means over rewards leave out reports that could not be scored; ``invalid_ratio`` says how many those are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.reward import RewardScores, repeated_trigrams
from lmrrg.policy.batches import Experience, PolicyOutputs
from lmrrg.ppo.advantages import explained_variance
from lmrrg.ppo.kl import kl_estimate, kl_per_sequence
from lmrrg.ppo.masks import fill, masked_mean
from lmrrg.studies import is_abnormal
from rl.experience import Sample

_PARTS = (
    "radcliq_v1",
    "radgraph",
    "bertscore",
    "semb",
    "length_penalty",
    "repetition_penalty",
    "no_eos_penalty",
)


def reward_metrics(
    scores: RewardScores, abnormal: Sequence[bool], reference_rewards: np.ndarray
) -> dict[str, float]:
    """Rewards of B reports, their parts, and the SFT model's reward on the same studies.

    Args:
        scores: arrays [B].
        abnormal: whether a report's study is abnormal [B].
        reference_rewards: reward of the SFT model's report for each study of the batch [S]; NaN is left out.
    """
    valid = scores.valid
    rewards = scores.reward[valid]
    sick = scores.reward[valid & np.asarray(abnormal)]
    metrics = {name: float(getattr(scores, name)[valid].mean()) for name in _PARTS}
    return metrics | {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "reward_abnormal": float(sick.mean()) if len(sick) else float("nan"),
        "reward_reference": float(np.nanmean(reference_rewards)),
        "invalid_ratio": float(1 - valid.mean()),
    }


def text_metrics(sample: Sample) -> dict[str, float]:
    """Lengths in tokens, and signs of collapse, as shares of the rollout."""
    texts, lengths = sample.texts, sample.rollout.lengths.double()
    repeated = [repeated_trigrams(report.token_ids) for report in sample.reports]
    return {
        "length": float(lengths.mean()),
        "length_max": float(lengths.max()),
        "reference_length": float(np.mean(sample.studies.reference_tokens)),
        "distinct_ratio": len(set(texts)) / len(texts),
        "all_normal_ratio": float(np.mean([is_all_normal(text) for text in texts])),
        "no_eos_ratio": float(np.mean([not report.finished for report in sample.reports])),
        "repetition": float(np.mean(repeated)),
    }


def is_all_normal(text: str) -> bool:
    """Whether a report names no abnormality, neither as present nor as possible."""
    return not is_abnormal(label_report(text), count_uncertain=True)


def experience_metrics(experience: Experience, policy: PolicyOutputs) -> dict[str, float]:
    """The critic's quality before the update, the policy's entropy, and the importance weights."""
    mask = experience.loss_mask
    metrics = {
        "explained_variance": explained_variance(experience.values, experience.returns, mask),
        "entropy": float(masked_mean(policy.entropy, mask)),
        "value_mean": float(masked_mean(experience.values, mask)),
        "return_mean": float(masked_mean(experience.returns, mask)),
    }
    if experience.weights is not None:
        metrics["importance_weight"] = float(masked_mean(experience.weights, mask))
    return metrics


def kl_metrics(log_probs: Tensor, reference: Tensor, mask: Tensor) -> dict[str, float]:
    """KL to the SFT model by the log-ratio (k1) and by k3, nats per report and per token."""
    difference = fill(log_probs - reference, mask)
    return {
        "kl_per_sequence": kl_per_sequence(log_probs, reference, mask),
        "kl_per_token": float(masked_mean(difference, mask)),
        "kl_k3_per_token": float(masked_mean(kl_estimate(log_probs, reference, mask, "k3"), mask)),
        "log_ratio_max": float(difference.abs().max()),
    }
