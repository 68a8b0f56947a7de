"""Sums over the valid tokens of right-padded batches.

Every selection is a ``torch.where``: a product with the mask would turn an Inf in the padding into
NaN, in the value and in the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmrrg.ppo.errors import PPOError


def fill(values: Tensor, mask: Tensor, value: float = 0.0) -> Tensor:
    """Return ``values`` [B, T] where ``mask`` (bool [B, T]) is True, ``value`` elsewhere.

    No gradient reaches the padding.

    >>> fill(torch.tensor([[1.0, float("nan")]]), torch.tensor([[True, False]])).tolist()
    [[1.0, 0.0]]
    """
    return torch.where(mask, values, torch.full_like(values, value))


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of the valid entries, a scalar."""
    return fill(values, mask).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the valid entries, a scalar.

    Raises:
        PPOError: ``no_valid_token``.

    >>> mask = torch.tensor([[True, True, False]])
    >>> masked_mean(torch.tensor([[1.0, 3.0, float("inf")]]), mask)
    tensor(2.)
    """
    count = mask.sum()
    if not count:  # 0 / 0 would be a NaN that only shows up much later
        raise PPOError("no_valid_token", "the mask selects nothing")
    return masked_sum(values, mask) / count


def require_right_padded(mask: Tensor) -> None:
    """Check that each row of ``mask`` (bool [B, T]) is a run of valid tokens followed by padding.

    Raises:
        PPOError: ``mask_shape`` or ``mask_not_right_padded``.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise PPOError(
            "mask_shape", f"expected a bool mask [B, T], got {mask.dtype} {tuple(mask.shape)}"
        )
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise PPOError("mask_not_right_padded", "a valid token follows padding")


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of valid entries; ranks add theirs up to whiten together."""

    count: float
    total: float
    squares: float

    @classmethod
    def of(cls, values: Tensor, mask: Tensor) -> Moments:
        """Return the moments of the valid entries of ``values`` [B, T], in float64."""
        # The variance is a difference of large sums, which float32 would round to noise.
        valid = fill(values, mask).double()
        return cls(float(mask.sum()), float(valid.sum()), float(valid.square().sum()))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> float:
        """Return the mean of the entries; 0 of none."""
        return self.total / max(self.count, 1.0)

    @property
    def variance(self) -> float:
        """Return the population variance of the entries."""
        # Rounding can leave a difference just below 0.
        return max(self.squares / max(self.count, 1.0) - self.mean**2, 0.0)
