"""Hold the patch features of a batch of studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lmrrg.studies import LABELS


@dataclass
class StudyFeatures:
    """Patch features of B studies with up to V views of P patches and C channels.

    ``patches`` float16 or float32 [B, V, P, C]; ``views`` int64 [B, V], index into
    :data:`~lmrrg.views.VIEWS`; ``view_mask`` bool [B, V], False where a study has no such view (the
    values there have no meaning and no influence). ``evidence`` float32 [B, 14] is how probable
    each finding is according to the image encoder's own class head, calibrated; NaN, which is what
    ``None`` becomes, where the encoder has no such head.
    """

    patches: Tensor
    views: Tensor
    view_mask: Tensor
    evidence: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.evidence is None:
            self.evidence = torch.full(
                (self.patches.shape[0], len(LABELS)), torch.nan, device=self.patches.device
            )

    def __len__(self) -> int:
        return self.patches.shape[0]

    def select(self, index: Sequence[int] | Tensor) -> StudyFeatures:
        """Return the studies at ``index``, which may repeat."""
        at = torch.as_tensor(index, dtype=torch.long)
        return StudyFeatures(*(getattr(self, f.name)[at] for f in fields(self)))

    def to(self, device: torch.device | str) -> StudyFeatures:
        """Return a copy on ``device``."""
        return StudyFeatures(*(getattr(self, f.name).to(device) for f in fields(self)))
