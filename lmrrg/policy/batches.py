"""What travels from the rollout to the update: sampled reports, and what PPO learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmrrg.model.generator import VISUAL_TOKENS
from lmrrg.vision.study_features import StudyFeatures


@dataclass(frozen=True)
class Rollout:
    """B sampled reports of S studies, right-padded to T tokens.

    ``study`` long [B] says which study a report belongs to; ``ids`` long [B, T] are its tokens with EOS where one was
    produced; ``mask`` bool [B, T] marks them.
    """

    features: StudyFeatures
    prompts: list[list[int]]
    study: Tensor
    ids: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def lengths(self) -> Tensor:
        """Tokens of each report, long [B]."""
        return self.mask.sum(dim=1)

    def select(self, rows: Tensor) -> Rollout:
        """The reports at ``rows`` (long [b]) with their studies only, cut to the longest of them."""
        studies, study = self.study[rows].unique(return_inverse=True)
        width = max(int(self.lengths[rows].max()), 1)
        return Rollout(
            features=self.features.select(studies),
            prompts=[self.prompts[i] for i in studies.tolist()],
            study=study,
            ids=self.ids[rows, :width],
            mask=self.mask[rows, :width],
        )

    def to(self, device: torch.device | str) -> Rollout:
        """A copy on ``device``."""
        return Rollout(
            self.features.to(device),
            self.prompts,
            self.study.to(device),
            self.ids.to(device),
            self.mask.to(device),
        )


@dataclass(frozen=True)
class PolicyOutputs:
    """The policy's view of a rollout before the update: [B, T] each, on CPU, 0 in the padding."""

    log_probs: Tensor
    values: Tensor
    entropy: Tensor

    @classmethod
    def of_engine(cls, log_probs: Tensor) -> PolicyOutputs:
        """From the engine's log-probs alone: no values, and -log p of the sampled token in the place of the entropy,
        of which it is an unbiased estimate at temperature 1."""
        return cls(log_probs, torch.zeros_like(log_probs), -log_probs)


@dataclass(frozen=True)
class Experience:
    """A rollout with all that the update needs; every tensor is [B, T] and has no gradient.

    ``loss_mask`` marks the tokens that are learnt from: those of reports that could be scored.
    """

    rollout: Rollout
    loss_mask: Tensor
    log_probs: Tensor
    """Of the policy before the update, from the trainer, or from the engine (``ppo.old_log_probs``)."""
    values: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor | None = None
    """Importance weights of the engine-trainer mismatch; None: 1."""
    reference: Tensor | None = None
    """Log-probs under the frozen SFT model, where KL is charged in the loss."""
    kl_weights: Tensor | None = None
    """What the loss charges for each token's KL, reward per nat; there where ``reference`` is."""

    def select(self, rows: Tensor) -> Experience:
        """The reports at ``rows`` (long [b]), cut to the longest of them."""
        rollout = self.rollout.select(rows)
        width = rollout.ids.shape[1]

        def cut(values: Tensor) -> Tensor:
            return values[rows, :width]

        return Experience(
            rollout=rollout,
            loss_mask=cut(self.loss_mask),
            log_probs=cut(self.log_probs),
            values=cut(self.values),
            advantages=cut(self.advantages),
            returns=cut(self.returns),
            weights=None if self.weights is None else cut(self.weights),
            reference=None if self.reference is None else cut(self.reference),
            kl_weights=None if self.kl_weights is None else cut(self.kl_weights),
        )

    def to(self, device: torch.device | str) -> Experience:
        """A copy on ``device``."""
        return Experience(
            rollout=self.rollout.to(device),
            loss_mask=self.loss_mask.to(device),
            log_probs=self.log_probs.to(device),
            values=self.values.to(device),
            advantages=self.advantages.to(device),
            returns=self.returns.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            reference=None if self.reference is None else self.reference.to(device),
            kl_weights=None if self.kl_weights is None else self.kl_weights.to(device),
        )


def rank_microbatches(
    rollout: Rollout,
    rows: Tensor,
    size: int,
    rank: int = 0,
    ranks: int = 1,
    *,
    tokens: int | None = None,
) -> list[Tensor]:
    """Cut ``rows`` into microbatches and return those of one rank: of at most ``size`` reports, or, where ``tokens`` is
    given, of as many as that many positions of the decoder hold (a single report that needs more runs alone).

    Reports of one study stay neighbours, so that they can share the prompt's computation; studies are sorted by length,
    so that attention, the only part with padding, has little. Every rank gets the same number of microbatches, of near
    equal length, where ``len(rows)`` is a multiple of ``ranks``.
    """
    study, lengths = rollout.study[rows], rollout.lengths[rows]
    longest = torch.zeros(int(study.max()) + 1, dtype=lengths.dtype).scatter_reduce(
        0, study, lengths, "amax"
    )
    order = sorted(
        range(len(rows)), key=lambda i: (int(longest[study[i]]), int(study[i]), i), reverse=True
    )
    rows = rows[torch.tensor(order)]
    chunks = rows.split(
        size * ranks if tokens is None else _token_sizes(rollout, rows, tokens, ranks)
    )
    shares = (chunk.tensor_split(ranks)[rank] for chunk in chunks)
    return [share for share in shares if len(share)]


def in_order(rows: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Results [B, T] in the order of the rollout, from those of every rank: ``parts[r]`` are of the reports
    ``rows[r]``."""
    return torch.cat(list(parts))[torch.argsort(torch.cat(list(rows)))]


def packed_positions(rollout: Rollout, rows: Tensor) -> int:
    """Positions of the decoder in one forward over ``rows``: each study's prompt once, and all reports but their last
    token."""
    prompts = sum(
        VISUAL_TOKENS + len(rollout.prompts[study])
        for study in rollout.study[rows].unique().tolist()
    )
    return prompts + int((rollout.lengths[rows] - 1).clamp_min(0).sum())


def _token_sizes(rollout: Rollout, rows: Tensor, tokens: int, ranks: int) -> list[int]:
    """Reports of each chunk, so that no rank's share of it has more than ``tokens`` positions."""
    sizes, start = [], 0
    while start < len(rows):
        size = ranks
        while start + size < len(rows):
            wider = rows[start : start + size + ranks].tensor_split(ranks)
            if max(packed_positions(rollout, share) for share in wider if len(share)) > tokens:
                break
            size += ranks
        sizes.append(min(size, len(rows) - start))
        start += size
    return sizes


def shuffled_minibatches(rollout: Rollout, size: int, seed: int) -> list[Tensor]:
    """One epoch in minibatches of ``size`` reports: studies in random order, the reports of a study together.

    Keeping the samples of a study in one minibatch (ours) compares reports of the same images within one step.
    """
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(len(rollout.features), generator=generator)
    return list(torch.argsort(place[rollout.study], stable=True).split(size))
