"""The reward of PPO: minus RadCliQ-v1, with penalties against reports that exploit it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.backends import make_backend, score_parts
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.parts import Array, is_empty
from lmrrg.metrics.radcliq import radcliq_v1

# A report up to twice as long or half as long as the reference is not penalised.
_FREE_LOG_RATIO = math.log(2)


@dataclass(frozen=True)
class RewardScores:
    """Scores of N reports, each an array [N].

    Where ``valid`` is False the report could not be scored: its reward is NaN and the sample must
    be masked (0 would be a good reward).
    """

    reward: Array
    """What PPO maximises, after the clip and the penalties, in [clip_low, clip_high]."""
    radcliq_v1: Array
    radgraph: Array
    bertscore: Array
    semb: Array
    length_penalty: Array
    """Penalties are already weighted, >= 0, and subtracted from the reward."""
    repetition_penalty: Array
    no_eos_penalty: Array
    valid: NDArray[np.bool_]


class RadCliQReward:
    """Scores sampled reports against their references.

    **Ours**: r = -RadCliQ-v1, because the paper's 1/RadCliQ has a pole at 0, inside the range of
    the score. An empty report gets exactly the worst score, -2.4501 (inside the clip), and no
    penalty on top.
    """

    def __init__(self, reward: RewardConfig, backend: Backend | None = None):
        """Load the backend that ``reward`` names, or use the one given."""
        self.settings = reward
        self.backend = make_backend(reward) if backend is None else backend

    def score(
        self,
        reports: Sequence[str],
        references: Sequence[str],
        token_ids: Sequence[Sequence[int]] | None,
        finished: Sequence[bool],
    ) -> RewardScores:
        """Score N reports.

        Repeated 3-grams are counted in ``token_ids`` (None: in the words); ``finished`` is True
        for reports that ended with EOS. Identical pairs are scored once. A report whose reference
        is empty, or that the backend cannot score, is not valid.

        >>> scorer = RadCliQReward(RewardConfig())
        >>> scores = scorer.score(["Clear lungs.", ""], ["Clear lungs."] * 2, None, [True, True])
        >>> scores.reward.round(4).tolist()
        [1.4407, -2.4501]

        Raises:
            MetricError: ``length_mismatch``.
        """
        self._check_lengths(len(reports), references, finished, token_ids)
        parts = score_parts(self.backend, reports, references)
        radcliq = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
        length, repetition, no_eos = self._penalties(reports, references, token_ids, finished)
        low = self.settings.clip_low
        clipped = np.clip(-radcliq, low, self.settings.clip_high)
        # The penalties come after the clip, so that they count for the best reports too; the second
        # bound keeps the reward within the range that the settings promise.
        reward = np.maximum(low, clipped - length - repetition - no_eos)
        return RewardScores(
            reward=reward,
            radcliq_v1=radcliq,
            radgraph=parts.radgraph,
            bertscore=parts.bertscore,
            semb=parts.semb,
            length_penalty=length,
            repetition_penalty=repetition,
            no_eos_penalty=no_eos,
            valid=np.isfinite(reward),
        )

    def _penalties(
        self,
        reports: Sequence[str],
        references: Sequence[str],
        token_ids: Sequence[Sequence[int]] | None,
        finished: Sequence[bool],
    ) -> tuple[Array, Array, Array]:
        """Return the weighted penalties for length, repetition and a missing EOS, each [N]."""
        words = list(map(str.split, reports))
        excess = [
            length_excess(len(own), len(reference.split()))
            for own, reference in zip(words, references, strict=True)
        ]
        repeated = list(map(repeated_trigrams, words if token_ids is None else token_ids))
        # An empty report already gets the worst RadCliQ-v1; the penalties are for written reports.
        written = np.array([not is_empty(report) for report in reports], dtype=bool)
        endless = ~np.asarray(finished, dtype=bool)
        return (
            np.where(written, self.settings.length_penalty * np.array(excess), 0.0),
            np.where(written, self.settings.repetition_penalty * np.array(repeated), 0.0),
            np.where(written & endless, self.settings.no_eos_penalty, 0.0),
        )

    @staticmethod
    def _check_lengths(count: int, *others: Sequence[object] | None) -> None:
        if any(other is not None and len(other) != count for other in others):
            lengths = [len(other) for other in others if other is not None]
            raise MetricError(
                "length_mismatch", f"{count} reports come with lists of {lengths} items"
            )


def length_excess(words: int, reference_words: int) -> float:
    """Return |log(words / reference words)| beyond log 2; 0 where either text has no word.

    >>> length_excess(20, 10)  # twice as long is still free
    0.0
    >>> length_excess(40, 10)  # doubled once more: log 2
    0.6931
    """
    if not words or not reference_words:
        return 0.0
    return max(0.0, abs(math.log(words / reference_words)) - _FREE_LOG_RATIO)


def repeated_trigrams(sequence: Sequence[Hashable]) -> float:
    """Return the fraction of 3-grams that occurred before in the same report, 0..1.

    >>> repeated_trigrams("no acute disease no acute disease".split())
    0.25
    """
    trigrams = list(zip(sequence, sequence[1:], sequence[2:], strict=False))
    return 1.0 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
