"""Choose the backend that computes the learned parts of RadCliQ, and score pairs with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.interfaces import Backend, PairScorer
from lmrrg.metrics.parts import Array, Parts, is_empty


def make_backend(reward: RewardConfig) -> Backend:
    """Load the backend that the settings name.

    >>> make_backend(RewardConfig(backend="embedded")).name
    'radcliq-embedded'

    Raises:
        MetricError: ``weights_missing`` where the published backend lacks a file. There is no
            fallback to the rules.
    """
    # Imported only when chosen: the published backend loads torch and transformers.
    if reward.backend == "embedded":
        from lmrrg.metrics.embedded.backend import EmbeddedBackend

        return EmbeddedBackend()
    from lmrrg.metrics.published.backend import PublishedBackend

    return PublishedBackend(reward.published_dir, cache=reward.published_cache)


def check_backend(reward: RewardConfig) -> None:
    """Check that the files of the backend are there, without loading them.

    Raises:
        MetricError: ``weights_missing``, with the command that fetches them.
    """
    if reward.backend == "published":
        from lmrrg.metrics.published.weight_files import find_all

        find_all(reward.published_dir)


def pair_scores(
    scorer: PairScorer, name: str, hypotheses: Sequence[str], references: Sequence[str]
) -> Array:
    """Return what a function of somebody's own gives for N pairs, float64 [N].

    Raises:
        MetricError: ``own_code``, the function ``name`` does not give N numbers.
    """
    try:
        values = np.asarray(scorer(list(hypotheses), list(references)), dtype=np.float64)
    except (TypeError, ValueError) as error:
        # Not the error's text, which may quote a report.
        why = f"{name} does not give numbers: {type(error).__name__}"
        raise MetricError("own_code", why) from error
    if values.shape != (len(hypotheses),):
        why = f"{name} gives values of shape {values.shape} for {len(hypotheses)} reports"
        raise MetricError("own_code", why)
    return values


def score_parts(backend: Backend, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
    """Score N pairs, identical pairs once.

    Pairs with an empty text never reach the backend, because a model's result for an empty text
    means nothing: an empty hypothesis is 0 in every part (RadCliQ-v1 2.4501), an empty reference
    NaN.

    >>> from lmrrg.metrics.embedded.backend import EmbeddedBackend
    >>> score_parts(EmbeddedBackend(), ["", "Clear."], ["Clear.", ""]).bertscore.tolist()
    [0.0, nan]

    Raises:
        MetricError: ``length_mismatch``.
    """
    if len(hypotheses) != len(references):
        raise MetricError(
            "length_mismatch", f"{len(hypotheses)} hypotheses for {len(references)} references"
        )
    pairs = list(zip(hypotheses, references, strict=True))
    # A dictionary keeps the order, so that a backend gets the same batches in every process.
    distinct: dict[tuple[str, str], int] = {}
    for pair in pairs:
        if not is_empty(pair[0]) and not is_empty(pair[1]):
            distinct.setdefault(pair, len(distinct))
    # The row of each pair among the distinct ones; -1: not scored, because a side is empty.
    rows = np.array([distinct.get(pair, -1) for pair in pairs], dtype=np.int64)
    of_empty = np.array([np.nan if is_empty(reference) else 0.0 for _, reference in pairs])
    if not distinct:
        return Parts(**{field.name: of_empty.copy() for field in fields(Parts)})
    scored = backend.score([pair[0] for pair in distinct], [pair[1] for pair in distinct])

    def of_pairs(field: str) -> Array:
        values = np.asarray(getattr(scored, field), dtype=np.float64)
        return np.where(rows >= 0, values[rows], of_empty)

    return Parts(**{field.name: of_pairs(field.name) for field in fields(Parts)})
