"""Metrics of one iteration: reward and its parts, KL, signs of collapse and of reward hacking.

Means over rewards leave out reports that could not be scored; ``invalid_ratio`` counts those.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.reward import RewardScores, repeated_trigrams
from lmrrg.policy.batches import Experience, PolicyOutputs
from lmrrg.policy.update_report import UpdateReport
from lmrrg.ppo.advantages import explained_variance
from lmrrg.ppo.correction import Parity
from lmrrg.ppo.kl import kl_estimate, kl_per_sequence
from lmrrg.ppo.masks import fill, masked_mean
from lmrrg.studies import is_abnormal
from rl.credit.sentences import SentenceRewards
from rl.experience import Sample, ScoredBatch

logger = logging.getLogger(__name__)

_PARTS = (
    "radcliq_v1",
    "radgraph",
    "bertscore",
    "semb",
    "incoherence_penalty",
    "length_penalty",
    "repetition_penalty",
    "no_eos_penalty",
)

_OPTIONAL_PARTS = ("label_f1", "judge")
"""Scores that a report has where they are part of the reward."""


def iteration_metrics(
    batch: ScoredBatch, engine_parity: Parity, experience: Experience, update: UpdateReport
) -> dict[str, float]:
    """Return what the phases of an iteration give rise to, named as in docs/metrics_rl.md."""
    sample = batch.sample
    # What the policy wrote by itself: an edited report would count as its own merit.
    own = sample.own()
    is_own = ~sample.edited
    return (
        reward_metrics(batch.rewards.rows(is_own.numpy()), own.abnormal, batch.reference_rewards)
        | credit_metrics(batch.sentences)
        | edit_metrics(batch, experience)
        | kl_metrics(batch.policy.log_probs, batch.reference, sample.rollout.mask & is_own[:, None])
        | text_metrics(own)
        | experience_metrics(experience, batch.policy, is_own)
        | update.metrics
        | {
            "weights_version": batch.version,
            "rollout_lag": batch.version - sample.version,
            "parity": engine_parity.mean_abs,
            "parity_max": engine_parity.max_abs,
            "first_ratio_error": update.first_ratio_error,
        }
    )


def reward_metrics(
    scores: RewardScores, abnormal: Sequence[bool], reference_rewards: np.ndarray
) -> dict[str, float]:
    """Return the rewards of B reports, their parts, and the SFT model's reward on the same studies.

    Args:
        scores: arrays [B].
        abnormal: whether a report's study is abnormal [B].
        reference_rewards: reward of the SFT model's report for each study of the batch [S]; NaN is
            left out.
    """
    valid = scores.valid
    rewards = scores.reward[valid]
    of_abnormal = scores.reward[valid & np.asarray(abnormal)]
    metrics = {name: float(getattr(scores, name)[valid].mean()) for name in _PARTS}
    for name in _OPTIONAL_PARTS:
        values = getattr(scores, name)[valid]
        if np.isfinite(values).any():
            metrics[name] = float(values.mean())
    return metrics | {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        # A batch may hold no abnormal study; the mean of nothing would warn.
        "reward_abnormal": float(of_abnormal.mean()) if len(of_abnormal) else float("nan"),
        # A report of the SFT model that could not be scored tells nothing about its study.
        "reward_reference": float(np.nanmean(reference_rewards)),
        "invalid_ratio": float(1 - valid.mean()),
        "judge_missing_ratio": float(scores.judge_missing.mean()),
        "incoherent_ratio": float((scores.faults > 0).mean()),
    }


def credit_metrics(sentences: Sequence[SentenceRewards]) -> dict[str, float]:
    """Return how many partial reports were scored for the credit of sentences, and how many not.

    Args:
        sentences: of each report; none where no sentence is credited.
    """
    if not sentences:
        return {}
    every = np.concatenate([one.partial for one in sentences])
    missing = np.mean(~np.isfinite(every)) if len(every) else 0.0
    return {
        "credited_sentences": len(every) / len(sentences),
        "credit_invalid_ratio": float(missing),
    }


def edit_metrics(batch: ScoredBatch, experience: Experience) -> dict[str, float]:
    """Return how many studies got a sentence of their reference, and what these reports earn.

    There are no such metrics where no report was edited, or none of these could be scored.
    """
    edited = batch.sample.edited
    if not edited.any():
        return {}
    metrics = {"edited_ratio": float(edited.sum()) / len(batch.sample.visits)}
    mask = experience.loss_mask & edited[:, None]
    if experience.weights is not None and mask.any():
        scores = batch.rewards.rows(edited.numpy())
        metrics["edited_reward"] = float(scores.reward[scores.valid].mean())
        metrics["edited_weight"] = float(masked_mean(experience.weights, mask))
    return metrics


def text_metrics(sample: Sample) -> dict[str, float]:
    """Return lengths in tokens, and signs of collapse as fractions of the reports."""
    texts = sample.texts
    lengths = sample.rollout.lengths.double()
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


def warn_of_collapse(texts: Sequence[str], iteration: int) -> None:
    """Log a warning where all reports of an iteration are empty, or all are the same.

    The advantages of equal rewards are 0: such a policy learns nothing any more.
    """
    if len(texts) < 2 or len({text.strip() for text in texts}) > 1:
        return
    logger.warning(
        "iteration %d: all %d sampled reports are %s; the policy has collapsed: start again with a "
        "lower ppo.learning_rate or a higher ppo.kl.initial (docs/your_first_run.md)",
        iteration,
        len(texts),
        "the same" if texts[0].strip() else "empty",
    )


def is_all_normal(text: str) -> bool:
    """Return whether a report names no abnormality, neither as present nor as possible.

    It is stricter than the absence of a positive label: a policy that hedges about everything has
    not collapsed to the normal report.
    """
    return not is_abnormal(label_report(text), count_uncertain=True)


def experience_metrics(
    experience: Experience, policy: PolicyOutputs, is_own: Tensor
) -> dict[str, float]:
    """Return the critic's quality before the update, the entropy, and the importance weights.

    Over the reports that ``is_own`` (bool [B]) marks: those that the policy wrote by itself.
    """
    mask = experience.loss_mask & is_own[:, None]
    metrics = {
        "explained_variance": explained_variance(experience.values, experience.returns, mask),
        "entropy": float(masked_mean(policy.entropy, mask)),
        "value_mean": float(masked_mean(experience.values, mask)),
        "return_mean": float(masked_mean(experience.returns, mask)),
    }
    if experience.weights is not None:  # None: no correction, so there is nothing to watch
        metrics["importance_weight"] = float(masked_mean(experience.weights, mask))
    return metrics


def kl_metrics(log_probs: Tensor, reference: Tensor, mask: Tensor) -> dict[str, float]:
    """Return the KL to the SFT model by the estimators k1 and k3, nats per report and per token."""
    difference = fill(log_probs - reference, mask)
    return {
        "kl_per_sequence": kl_per_sequence(log_probs, reference, mask),
        "kl_per_token": float(masked_mean(difference, mask)),
        "kl_k3_per_token": float(masked_mean(kl_estimate(log_probs, reference, mask, "k3"), mask)),
        "log_ratio_max": float(difference.abs().max()),
    }
