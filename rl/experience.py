"""Turn sampled reports into what PPO learns from: padded tensors, rewards, advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lmrrg.config.ppo import KLConfig, PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.reward import RewardScores
from lmrrg.policy.batches import Experience, PolicyOutputs, Rollout
from lmrrg.ppo.advantages import (
    emphasise,
    generalised_advantages,
    sibling_advantages,
    study_deviation,
    token_rewards,
    whiten,
)
from lmrrg.ppo.correction import Parity, importance_weights
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.kl import kl_estimate
from lmrrg.ppo.masks import fill
from rl.credit.reference_sentences import EditedReport
from rl.credit.sentences import SentenceRewards
from rl.study_pool import StudyBatch

_LEAST_DEVIATION = 0.1
"""Deviation of rewards within studies below which GRPO scales credit no further, reward."""


@dataclass(frozen=True)
class Sample:
    """B = S x n sampled reports of S studies, study by study: as text, and as padded tensors."""

    visits: list[int]
    """Indices of the studies in the training split [S]."""
    studies: StudyBatch
    reports: list[GeneratedReport]
    rollout: Rollout
    engine_log_probs: Tensor
    """Of what wrote the reports, which for an edited one is not the engine alone: [B, T], nats, 0
    in the padding."""
    version: int
    """Version of the weights that wrote the reports."""

    @property
    def texts(self) -> list[str]:
        """Return the text of each report."""
        return [report.text for report in self.reports]

    @property
    def edited(self) -> Tensor:
        """Mark the reports with a sentence of their reference, bool [B]."""
        return torch.tensor([isinstance(report, EditedReport) for report in self.reports])

    def own(self) -> Sample:
        """Return the reports that the policy wrote by itself; every study has some."""
        if not self.edited.any():
            return self
        rows = torch.nonzero(~self.edited)[:, 0]
        rollout = self.rollout.select(rows)
        return replace(
            self,
            reports=[self.reports[row] for row in rows.tolist()],
            rollout=rollout,
            engine_log_probs=self.engine_log_probs[rows, : rollout.ids.shape[1]],
        )

    @property
    def references(self) -> list[str]:
        """Return the reference report of each report."""
        return [self.studies.references[i] for i in self.rollout.study.tolist()]

    @property
    def abnormal(self) -> list[bool]:
        """Return for each report whether its study is abnormal."""
        return [self.studies.abnormal[i] for i in self.rollout.study.tolist()]


@dataclass(frozen=True)
class ScoredBatch:
    """A sample with its rewards and log-probs: all that is known before anything is learnt."""

    sample: Sample
    rewards: RewardScores
    reference_rewards: np.ndarray
    """Reward of the SFT model's report for each study [S]; NaN where it could not be scored."""
    policy: PolicyOutputs
    reference: Tensor
    """Log-probs [B, T] under the frozen SFT model."""
    version: int
    """Version of the trainer's weights."""
    probed_parity: Parity | None = None
    """See :class:`rl.sampling.SampledBatch`."""
    sentences: list[SentenceRewards] = field(default_factory=list)
    """Of each report, for ``ppo.credits_sentences``; otherwise there are none."""


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
    flat: list[GeneratedReport] = []
    study: list[int] = []
    for index, of_study in enumerate(reports):
        flat += of_study
        study += [index] * len(of_study)
    lengths = torch.tensor([len(report.token_ids) for report in flat])
    if not lengths.all():
        raise PPOError("empty_sample", "the engine returned a report without tokens")
    ids = pad_sequence([torch.tensor(report.token_ids) for report in flat], batch_first=True)
    log_probs = pad_sequence([torch.tensor(report.logprobs) for report in flat], batch_first=True)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    rollout = Rollout(studies.features, studies.prompts, torch.tensor(study), ids, mask)
    return Sample(visits, studies, flat, rollout, log_probs, version)


def shuffled_rewards(rewards: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Return rewards [S x samples] that belong to other studies: the negative control of learning.

    No study keeps its own rewards, so nothing about the images can be learnt from them.
    """
    by_study = rewards.reshape(-1, samples)
    order = np.random.default_rng(seed).permutation(len(by_study))
    moved = np.empty_like(by_study)
    # One cycle through all studies. A plain permutation would leave some studies in their place.
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
    credit: Tensor | None = None,
) -> Experience:
    """Compute rewards, advantages and importance weights of every token.

    Args:
        sample: the reports.
        rewards: what is learnt from [B]; NaN for reports that could not be scored: they are masked.
        policy: log-probs, values and entropy [B, T] under the weights that the update starts from.
        reference: log-probs under the frozen SFT model [B, T].
        kl_weight: lambda_KL, reward per nat.
        ppo: algorithm, gamma, lambda, KL estimator and placement, correction.
        findings: bool [B, T], tokens that carry findings; for ``ppo.needs_finding_tokens``.
        credit: centred credit of each token's sentence [B, T], reward; for
            ``ppo.credits_sentences``.
    """
    is_scored = torch.from_numpy(np.isfinite(rewards))
    mask = sample.rollout.mask & is_scored[:, None]
    kl_weights = loss_kl_weights(mask, kl_weight, ppo.kl, findings)
    advantages, returns = _advantages(
        sample.rollout.study,
        torch.from_numpy(rewards).float(),
        kl_estimate(policy.log_probs, reference, mask, ppo.kl.estimator),
        policy.values,
        mask,
        # Charged in the reward or in the loss, never in both.
        0.0 if ppo.kl.placement == "loss" else kl_weight,
        ppo,
        None if credit is None else ppo.credit_weight * credit,
    )
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
        reference=None if kl_weights is None else reference,
        kl_weights=kl_weights,
    )


def loss_kl_weights(
    mask: Tensor, kl_weight: float, kl: KLConfig, findings: Tensor | None
) -> Tensor | None:
    """Return the weight of each token's KL in the loss [B, T], reward per nat; None: all are 0.

    ``wording_weight`` (ours) ties the tokens that carry no finding to the SFT model. Phrasings that
    mean the same are near ties there, so the reward can settle on one of them for every study at
    next to no KL of the whole report.
    """
    everywhere = kl_weight if kl.placement == "loss" else 0.0
    weights = fill(torch.full(mask.shape, everywhere), mask)
    if findings is not None:
        weights = weights + kl.wording_weight * (mask & ~findings)
    return weights if weights.any() else None


def _advantages(
    study: Tensor,
    rewards: Tensor,
    kl: Tensor,
    values: Tensor,
    mask: Tensor,
    kl_weight: float,
    ppo: PPOConfig,
    credit: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return advantages and returns, both [B, T], by the algorithm of ``ppo``.

    ``credit`` [B, T] is added to the advantages. The critic does not learn it: it is centred, so
    that it adds nothing to the expected return.
    """
    is_scored = mask.any(dim=1)
    if ppo.algorithm == "ppo":
        if ppo.sibling_baseline:
            rewards = sibling_advantages(rewards, study, is_scored, scaled=False)
        per_token = token_rewards(rewards, kl, mask, kl_weight)
        advantages, returns = generalised_advantages(
            per_token, values, mask, ppo.gamma, ppo.gae_lambda
        )
        return whiten(_with_credit(advantages, credit, mask), mask), returns
    # Without a critic the whole report is one action: the KL is part of the return it is judged by.
    per_report = token_rewards(rewards, kl, mask, kl_weight).sum(dim=1)
    if ppo.algorithm == "grpo":
        compared = sibling_advantages(per_report, study, is_scored, scaled=True)
        if credit is not None:
            # By one number for all: a study whose reports earn the same has a deviation near 0.
            deviations = study_deviation(per_report, study, is_scored)[is_scored]
            credit = credit / max(float(deviations.mean()), _LEAST_DEVIATION)
        # Whitening would undo the scaling study by study.
        advantages = _with_credit(compared[:, None].expand(mask.shape), credit, mask)
    else:
        compared = sibling_advantages(per_report, study, is_scored, scaled=False)
        advantages = _with_credit(compared[:, None].expand(mask.shape), credit, mask)
        advantages = whiten(advantages, mask)
    return advantages, fill(values, mask)  # the values, so that no critic is trained


def _with_credit(advantages: Tensor, credit: Tensor | None, mask: Tensor) -> Tensor:
    return fill(advantages if credit is None else advantages + credit, mask)
