"""What an update did: sums of every rank's microbatches, and the metrics that they add up to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lmrrg.ppo.losses import PolicyLoss


@dataclass
class UpdateTotals:
    """Statistics of one update, summed over one rank's tokens; ranks add up."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Over tokens."""
    losses: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Over optimizer steps."""
    tokens: float = 0.0
    """Tokens of all ranks, over all steps."""
    grad_norms: list[float] = field(default_factory=list)
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
    """What one update did, over all ranks."""

    metrics: dict[str, float]
    """Losses per optimizer step, means over tokens, and the mean and largest gradient norm before clipping."""
    first_ratio_error: float
    """Largest |ratio - 1| of a token before the first optimizer step: 0 up to rounding."""
    first_ratio_mean: float
    """Mean of it over the same tokens."""

    @classmethod
    def of(cls, ranks: Sequence[UpdateTotals]) -> UpdateReport:
        """Add up the ranks."""
        lead = ranks[0]
        names = sorted({name for rank in ranks for name in rank.sums})
        means = {
            name: sum(rank.sums[name] for rank in ranks) / max(lead.tokens, 1.0) for name in names
        }
        norms = lead.grad_norms or [0.0]
        means |= {
            name: sum(rank.losses[name] for rank in ranks) / len(norms)
            for name in sorted(lead.losses)
        }
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
