"""Statistics of an update: sums over each rank's microbatches, and the metrics made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lmrrg.ppo.losses import PolicyLoss


@dataclass
class UpdateTotals:
    """Sums of one rank over one update; those of all ranks can be added up."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Sums over this rank's tokens."""
    losses: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Sums over optimizer steps."""
    tokens: float = 0.0
    """Tokens of all ranks, over all steps."""
    grad_norms: list[float] = field(default_factory=list)
    """Gradient norm of each optimizer step, before clipping."""
    first_ratio_error: float = 0.0
    """Largest |ratio - 1| of a token before the first optimizer step."""
    first_ratio_distance: float = 0.0
    """Sum of it over the same tokens of this rank."""
    first_tokens: float = 0.0
    """Tokens of all ranks before the first optimizer step."""

    def add(self, actor: PolicyLoss, critic: Tensor) -> None:
        """Add one microbatch."""
        self.losses["policy_loss"] += actor.loss.item()
        self.losses["value_loss"] += critic.item()
        self.sums["clip_fraction"] += actor.clipped.item()
        self.sums["update_kl_per_token"] += actor.approx_kl.item()
        # Before the first step the ratio must be 1; afterwards it may be anything.
        if not self.grad_norms:
            self.first_ratio_error = max(self.first_ratio_error, actor.ratio_error.item())
            self.first_ratio_distance += actor.ratio_distance.item()

    def step(self, tokens: float, grad_norm: float) -> None:
        """Note one optimizer step."""
        self.first_tokens = self.first_tokens or tokens
        self.tokens += tokens
        self.grad_norms.append(grad_norm)


@dataclass(frozen=True)
class UpdateReport:
    """Metrics of one update, over all ranks."""

    metrics: dict[str, float]
    """Losses per optimizer step, means over tokens, mean and largest gradient norm."""
    first_ratio_error: float
    """Largest |ratio - 1| of a token before the first optimizer step: 0 up to rounding."""
    first_ratio_mean: float
    """Mean of it over the same tokens."""

    @classmethod
    def of(cls, ranks: Sequence[UpdateTotals]) -> UpdateReport:
        """Add up the totals of all ranks."""
        # Tokens, steps and gradient norms are those of all ranks already, so one rank gives them.
        lead = ranks[0]
        norms = lead.grad_norms or [0.0]  # no step where no report could be scored
        means: dict[str, float] = {}
        for name in sorted(set().union(*(rank.sums for rank in ranks))):
            means[name] = sum(rank.sums[name] for rank in ranks) / max(lead.tokens, 1.0)
        for name in sorted(lead.losses):
            means[name] = sum(rank.losses[name] for rank in ranks) / len(norms)
        return cls(
            metrics={
                **means,
                "grad_norm": sum(norms) / len(norms),
                "grad_norm_max": max(norms),
                "steps": len(norms),
            },
            first_ratio_error=max(rank.first_ratio_error for rank in ranks),
            first_ratio_mean=sum(rank.first_ratio_distance for rank in ranks)
            / max(lead.first_tokens, 1.0),
        )
