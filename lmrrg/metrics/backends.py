"""Who computes the learned parts of RadCliQ, and the one way in which everything asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.parts import Parts, is_empty


def make_backend(reward: RewardConfig) -> Backend:
    """The backend that the settings name, loaded and ready.

    Raises:
        MetricError: ``weights_missing`` where the published backend lacks a file. There is no fallback.
    """
    if reward.backend == "embedded":
        from lmrrg.metrics.embedded.backend import EmbeddedBackend

        return EmbeddedBackend()
    from lmrrg.metrics.published.backend import PublishedBackend

    return PublishedBackend(reward.published_dir, cache=reward.published_cache)


def score_parts(backend: Backend, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
    """Score N pairs, identical pairs once.

    An empty hypothesis is 0 in every part (RadCliQ-v1 2.4501) and an empty reference NaN, whatever the backend
    thinks of them: no model has an opinion on an empty text.

    Raises:
        MetricError: ``length_mismatch``.
    """
    if len(hypotheses) != len(references):
        raise MetricError(
            "length_mismatch", f"{len(hypotheses)} hypotheses for {len(references)} references"
        )
    pairs = list(zip(hypotheses, references, strict=True))
    asked = list(
        dict.fromkeys(pair for pair in pairs if not is_empty(pair[0]) and not is_empty(pair[1]))
    )
    place = {pair: row for row, pair in enumerate(asked)}
    rows = np.array([place.get(pair, -1) for pair in pairs], dtype=np.int64)
    unasked = np.array([np.nan if is_empty(reference) else 0.0 for _, reference in pairs])
    scored = backend.score([h for h, _ in asked], [r for _, r in asked]) if asked else None

    def spread(field: str) -> np.ndarray:
        if scored is None:
            return unasked.copy()
        return np.where(
            rows >= 0, np.asarray(getattr(scored, field), dtype=np.float64)[rows], unasked
        )

    return Parts(**{field.name: spread(field.name) for field in fields(Parts)})
