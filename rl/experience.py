"""From sampled reports to what PPO learns from: padded tensors, rewards, advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lmrrg.config.ppo import KLConfig, PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.policy.batches import Experience, PolicyOutputs, Rollout
from lmrrg.ppo.advantages import (
    emphasise,
    generalised_advantages,
    sibling_advantages,
    token_rewards,
    whiten,
)
from lmrrg.ppo.correction import importance_weights
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.kl import kl_estimate
from lmrrg.ppo.masks import fill
from rl.study_pool import StudyBatch


@dataclass(frozen=True)
class Sample:
    """B = S x n sampled reports of S studies, study by study: as text, and as padded tensors."""

    visits: list[int]
    """Places of the studies in the training split [S]."""
    studies: StudyBatch
    reports: list[GeneratedReport]
    rollout: Rollout
    engine_log_probs: Tensor
    """[B, T], nats, 0 in the padding."""
    version: int
    """Of the weights that wrote the reports."""

    @property
    def texts(self) -> list[str]:
        """The reports' texts."""
        return [report.text for report in self.reports]

    @property
    def references(self) -> list[str]:
        """The reference of each report."""
        return [self.studies.references[i] for i in self.rollout.study.tolist()]


def make_sample(
    visits: list[int],
    studies: StudyBatch,
    reports: Sequence[Sequence[GeneratedReport]],
    version: int,
) -> Sample:
    """Pad the reports that weights ``version`` wrote for each study.

    Raises:
        PPOError: ``empty_sample`` (a report without any token, which no engine can produce).
    """
    flat = [report for of_study in reports for report in of_study]
    if any(not report.token_ids for report in flat):
        raise PPOError("empty_sample", "the engine returned a report without tokens")
    study = torch.tensor([i for i, of_study in enumerate(reports) for _ in of_study])
    ids = pad_sequence([torch.tensor(report.token_ids) for report in flat], batch_first=True)
    log_probs = pad_sequence([torch.tensor(report.logprobs) for report in flat], batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([[len(report.token_ids)] for report in flat])
    rollout = Rollout(studies.features, studies.prompts, study, ids, mask)
    return Sample(visits, studies, flat, rollout, log_probs, version)


def shuffled_rewards(rewards: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Rewards [S x samples] given to other studies, none keeps its own: the negative control, which teaches nothing."""
    by_study = rewards.reshape(-1, samples)
    order = np.random.default_rng(seed).permutation(len(by_study))
    moved = np.empty_like(by_study)
    moved[order] = by_study[np.roll(order, 1)]
    return moved.reshape(-1)


def make_experience(
    sample: Sample,
    rewards: np.ndarray,
    policy: PolicyOutputs,
    reference: Tensor,
    kl_weight: float,
    ppo: PPOConfig,
    findings: Tensor | None = None,
) -> Experience:
    """Rewards, advantages and importance weights of every token.

    Args:
        sample: the reports.
        rewards: what is learnt from [B]; NaN for a report that could not be scored, which is masked.
        policy: the trainer's scores [B, T] under the weights that sampled.
        reference: log-probs under the frozen SFT model [B, T].
        kl_weight: lambda_KL, reward per nat.
        ppo: algorithm, gamma, lambda, KL estimator and placement, correction.
        findings: bool [B, T], tokens that carry findings; needed where ``ppo.tells_findings``.
    """
    scored = torch.from_numpy(np.isfinite(rewards))
    mask = sample.rollout.mask & scored[:, None]
    kl = kl_estimate(policy.log_probs, reference, mask, ppo.kl.estimator)
    in_loss = ppo.kl.placement == "loss"
    charged = loss_kl_weights(mask, kl_weight, ppo.kl, findings)
    earned = torch.from_numpy(rewards).float()
    if ppo.algorithm == "ppo" and ppo.sibling_baseline:
        earned = sibling_advantages(earned, sample.rollout.study, scored, scaled=False)
    per_token = token_rewards(earned, kl, mask, 0.0 if in_loss else kl_weight)
    if ppo.algorithm == "ppo":
        advantages, returns = generalised_advantages(
            per_token, policy.values, mask, ppo.gamma, ppo.gae_lambda
        )
    else:
        scaled = ppo.algorithm == "grpo"
        compared = sibling_advantages(
            per_token.sum(dim=1), sample.rollout.study, scored, scaled=scaled
        )
        advantages = fill(compared[:, None].expand(mask.shape), mask)
        returns = fill(policy.values, mask)  # there is no critic to train
    if ppo.algorithm != "grpo":
        advantages = whiten(advantages, mask)
    if findings is not None and ppo.finding_weight != 1:
        advantages = emphasise(advantages, findings, mask, ppo.finding_weight)
    return Experience(
        rollout=sample.rollout,
        loss_mask=mask,
        log_probs=policy.log_probs,
        values=policy.values,
        advantages=advantages,
        returns=returns,
        weights=importance_weights(
            policy.log_probs, sample.engine_log_probs, mask, ppo.correction, ppo.correction_cap
        ),
        reference=None if charged is None else reference,
        kl_weights=charged,
    )


def loss_kl_weights(
    mask: Tensor, kl_weight: float, kl: KLConfig, findings: Tensor | None
) -> Tensor | None:
    """What the loss charges for the KL of each token [B, T], reward per nat; None where it charges nothing.

    ``wording_weight`` (ours) ties the tokens that carry no finding to the SFT model. Phrasings that mean the same are
    near ties there, so the reward can settle on one of them for every study at next to no KL of the whole report.
    """
    weights = fill(torch.full(mask.shape, kl_weight if kl.placement == "loss" else 0.0), mask)
    if findings is not None:
        weights = weights + kl.wording_weight * (mask & ~findings)
    return weights if weights.any() else None
