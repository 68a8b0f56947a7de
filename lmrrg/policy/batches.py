"""The batches of PPO: sampled reports, what PPO learns from them, and how ranks divide them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmrrg.model.generator import VISUAL_TOKENS
from lmrrg.vision.study_features import StudyFeatures


@dataclass(frozen=True)
class Rollout:
    """B sampled reports of S studies, right-padded to T tokens."""

    features: StudyFeatures
    """Image features of the S studies."""
    prompts: list[list[int]]
    """Token ids of each study's prompt."""
    study: Tensor
    """Index of the study that each report belongs to, long [B]."""
    ids: Tensor
    """Tokens of the reports, with EOS where one was sampled, long [B, T]."""
    mask: Tensor
    """Marks those tokens, bool [B, T]."""

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def lengths(self) -> Tensor:
        """Return the number of tokens of each report, long [B]."""
        return self.mask.sum(dim=1)

    def select(self, rows: Tensor) -> Rollout:
        """Return the reports at ``rows`` (long [b]) and their studies, cut to the longest one."""
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
    """The policy's outputs for a rollout before the update: [B, T], on CPU, 0 in the padding."""

    log_probs: Tensor
    """Of the sampled tokens, nats."""
    values: Tensor
    """Expected return before each token, units of reward."""
    entropy: Tensor
    """Of the distribution that each token was drawn from, nats."""

    @classmethod
    def of_engine(cls, log_probs: Tensor) -> PolicyOutputs:
        """Return the outputs that follow from the engine's log-probs alone.

        The values are 0. The entropy is estimated by -log p of the sampled token, which is
        unbiased at temperature 1.
        """
        return cls(log_probs, torch.zeros_like(log_probs), -log_probs)


@dataclass(frozen=True)
class Experience:
    """A rollout with everything that the update needs; all tensors are [B, T], without gradient."""

    rollout: Rollout
    loss_mask: Tensor
    """Marks the tokens that are learnt from: those of reports that could be scored."""
    log_probs: Tensor
    """Of the policy before the update, by trainer or engine (``ppo.old_log_probs``)."""
    values: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor | None = None
    """Importance weights of the engine-trainer mismatch; None: 1."""
    reference: Tensor | None = None
    """Log-probs under the frozen SFT model, where KL is charged in the loss."""
    kl_weights: Tensor | None = None
    """Weight of each token's KL in the loss, reward per nat; None where ``reference`` is."""

    def select(self, rows: Tensor) -> Experience:
        """Return the reports at ``rows`` (long [b]), cut to the longest of them."""
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
    visual_tokens: int = VISUAL_TOKENS,
) -> list[Tensor]:
    """Cut ``rows`` into microbatches and return those of one rank.

    Reports of one study stay neighbours, so that they can share the computation of the prompt.
    Studies are sorted by length, so that attention, the only part with padding, has little of it.
    Where ``len(rows)`` is a multiple of ``ranks``, every rank gets the same number of microbatches,
    of nearly equal length.

    Args:
        rollout: the reports.
        rows: those to run, long [b].
        size: largest number of reports in a microbatch; unused with ``tokens``.
        rank: of this process.
        ranks: their number.
        tokens: largest number of decoder positions in a microbatch instead. A single report that
            needs more runs alone.
        visual_tokens: of the model, before each prompt.
    """
    study = rollout.study[rows]
    lengths = rollout.lengths[rows]
    # The longest report of each study.
    longest = torch.zeros(int(study.max()) + 1, dtype=lengths.dtype)
    longest = longest.scatter_reduce(0, study, lengths, "amax")

    def longest_study_first(i: int) -> tuple[int, int, int]:
        # The last two keep studies of equal length apart, and the order the same everywhere.
        return int(longest[study[i]]), int(study[i]), i

    order = sorted(range(len(rows)), key=longest_study_first, reverse=True)
    rows = rows[torch.tensor(order)]
    # All ranks cut the same chunks and each takes its part of every one: all have equally many.
    sizes: int | list[int] = size * ranks
    if tokens is not None:
        sizes = _token_sizes(rollout, rows, tokens, ranks, visual_tokens)
    parts = [chunk.tensor_split(ranks)[rank] for chunk in rows.split(sizes)]
    return [part for part in parts if len(part)]


def in_order(rows: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Return results in the order of the rollout, from those of every rank.

    Args:
        rows: of each rank, the reports that it has worked on, long [b].
        parts: of each rank, its results [b, T].

    >>> rows = [torch.tensor([2, 0]), torch.tensor([1])]
    >>> in_order(rows, [torch.tensor([[20], [0]]), torch.tensor([[10]])]).tolist()
    [[0], [10], [20]]
    """
    return torch.cat(list(parts))[torch.argsort(torch.cat(list(rows)))]


def packed_positions(rollout: Rollout, rows: Tensor, visual_tokens: int = VISUAL_TOKENS) -> int:
    """Return the number of decoder positions in one forward over ``rows`` (long [b]).

    Each study's prompt is computed once. The last token of a report is not an input.
    """
    studies = rollout.study[rows].unique().tolist()
    prompts = sum(visual_tokens + len(rollout.prompts[study]) for study in studies)
    return prompts + int((rollout.lengths[rows] - 1).clamp_min(0).sum())


def _token_sizes(
    rollout: Rollout, rows: Tensor, tokens: int, ranks: int, visual_tokens: int
) -> list[int]:
    """Return the size of each chunk of ``rows``, so that no rank's part exceeds ``tokens``."""
    sizes = []
    start = 0
    while start < len(rows):
        size = ranks  # at least one report for each rank, however long it is
        while start + size < len(rows):
            wider = rows[start : start + size + ranks].tensor_split(ranks)
            parts = [part for part in wider if len(part)]
            if max(packed_positions(rollout, part, visual_tokens) for part in parts) > tokens:
                break
            size += ranks
        sizes.append(min(size, len(rows) - start))
        start += size
    return sizes


def shuffled_minibatches(rollout: Rollout, size: int, seed: int) -> list[Tensor]:
    """Return one epoch in minibatches of ``size`` reports, each long [size].

    Studies come in random order, the reports of a study together (ours): a step then compares
    reports of the same images.
    """
    generator = torch.Generator().manual_seed(seed)
    rank_of_study = torch.randperm(len(rollout.features), generator=generator)
    # Stable, so that the reports of a study keep their order.
    return list(torch.argsort(rank_of_study[rollout.study], stable=True).split(size))
