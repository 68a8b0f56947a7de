"""Turn the class logits of an image encoder into probabilities that can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmrrg.studies import LABELS

_NO_PRIOR = (0.0,) * len(LABELS)


@dataclass(frozen=True)
class Calibration:
    """One slope and one offset for all classes (Platt scaling), after a correction per class.

    A class that was weighted by w in training has logits that are log w too high; ``prior`` [14] is
    that surplus. The defaults take the logits as they are.

    >>> Calibration(slope=2.0).probabilities(torch.zeros(1, 14))[0, 0].item()
    0.5
    """

    slope: float = 1.0
    offset: float = 0.0
    prior: tuple[float, ...] = _NO_PRIOR

    def __post_init__(self) -> None:
        if len(self.prior) != len(LABELS):
            raise ValueError(f"prior has {len(self.prior)} numbers, not one for each class")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities [B, 14] of logits [B, 14]; NaN stays NaN."""
        corrected = logits - torch.tensor(self.prior, dtype=logits.dtype, device=logits.device)
        return (self.slope * corrected + self.offset).sigmoid()

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Calibration:
        """Read what ``dataclasses.asdict`` made, and JSON kept.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        prior = tuple(float(value) for value in stored["prior"])
        return cls(float(stored["slope"]), float(stored["offset"]), prior)
