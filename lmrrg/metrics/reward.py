"""The reward of PPO: minus RadCliQ-v1, or a weighted sum of it and other parts, minus penalties.

The penalties are against reports that exploit the reward.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.backends import make_backend, pair_scores, score_parts
from lmrrg.metrics.coherence.fault import Fault
from lmrrg.metrics.coherence.find import new_faults, repairs
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.interfaces import Backend, Labels, PairScorer
from lmrrg.metrics.judge.client import Judge
from lmrrg.metrics.parts import Array, is_empty, set_f1
from lmrrg.metrics.radcliq import radcliq_v1
from lmrrg.own_code import load_own
from lmrrg.studies import NEGATIVE

# A report up to twice as long or half as long as the reference is not penalised.
_FREE_LOG_RATIO = math.log(2)


@dataclass(frozen=True)
class RewardScores:
    """Scores of N reports, each an array [N].

    Where ``valid`` is False the report could not be scored: its reward is NaN and the sample must
    be masked (0 would be a good reward).
    """

    reward: Array
    """What PPO maximises, after the clip and the penalties."""
    radcliq_v1: Array
    radgraph: Array
    bertscore: Array
    semb: Array
    label_f1: Array
    """F1 of the classes of report and reference; NaN where it is no part of the reward."""
    judge: Array
    """Score of the judge; NaN where it gave none or is no part of the reward."""
    judge_missing: NDArray[np.bool_]
    """Whether the judge was asked and gave no score."""
    faults: Array
    """Number of faults (:func:`~lmrrg.metrics.coherence.find.new_faults`) of the report."""
    incoherence_penalty: Array
    """Penalties are already weighted, >= 0, and subtracted from the reward."""
    length_penalty: Array
    repetition_penalty: Array
    no_eos_penalty: Array
    valid: NDArray[np.bool_]

    def rows(self, part: slice | NDArray[np.bool_]) -> RewardScores:
        """Return the scores of a part of the reports, given as a slice or by marks [N]."""
        columns = {field.name: getattr(self, field.name)[part] for field in fields(self)}
        return RewardScores(**columns)


class RadCliQReward:
    """Scores sampled reports against their references.

    **Ours**: r = -RadCliQ-v1, because the paper's 1/RadCliQ has a pole at 0, inside the range of
    the score. An empty report gets exactly the worst score, -2.4501 (inside the clip), and no
    penalty on top. ``reward.parts`` may add other scores, each times its weight.
    """

    def __init__(self, reward: RewardConfig, backend: Backend | None = None):
        """Load the backend that ``reward`` names, or use the one given.

        Raises:
            MetricError: see :func:`~lmrrg.metrics.backends.make_backend` and
                :class:`~lmrrg.metrics.judge.client.Judge`.
        """
        self.settings = reward
        self.backend = make_backend(reward) if backend is None else backend
        self._function: PairScorer | None = None
        if reward.function is not None:
            self._function = load_own(reward.function, "reward.function")
        self._judge = Judge(reward.judge) if reward.parts.judge else None

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
        is empty, or that the backend or the judge cannot score, is not valid.

        >>> scorer = RadCliQReward(RewardConfig())
        >>> scores = scorer.score(["Clear lungs.", ""], ["Clear lungs."] * 2, None, [True, True])
        >>> scores.reward.round(4).tolist()
        [1.4407, -2.4501]

        Raises:
            MetricError: ``length_mismatch``.
        """
        self._check_lengths(len(reports), references, finished, token_ids)
        faults = list(map(new_faults, reports, references))
        parts = score_parts(self.backend, reports, references)
        radcliq = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
        label_f1 = self._label_f1(reports, references)
        earned = self._weighted(self._main_score(radcliq, reports, references), label_f1)
        incoherence = self._incoherence_penalty(earned, reports, references, faults)
        earned += self.settings.parts.coherence * np.array([not found for found in faults])
        judged = np.full(len(reports), np.nan)
        if self._judge is not None:
            judged = self._judge.score(reports, references)
            earned += self.settings.parts.judge * judged
        length, repetition, no_eos = self._penalties(reports, references, token_ids, finished)
        # The penalties come after the clip, so that they count for the best reports too; the second
        # bound keeps the reward within the range that the settings promise.
        reward = np.maximum(self._lowest(), earned - incoherence - length - repetition - no_eos)
        return RewardScores(
            reward=reward,
            radcliq_v1=radcliq,
            radgraph=parts.radgraph,
            bertscore=parts.bertscore,
            semb=parts.semb,
            label_f1=label_f1,
            judge=judged,
            judge_missing=self._unjudged(judged, references),
            faults=np.array(list(map(len, faults)), dtype=np.float64),
            incoherence_penalty=incoherence,
            length_penalty=length,
            repetition_penalty=repetition,
            no_eos_penalty=no_eos,
            valid=np.isfinite(reward),
        )

    def _weighted(self, main_score: Array, label_f1: Array) -> Array:
        """Return the weighted sum of the parts that a report earns word by word, [N].

        ``main_score`` is what :meth:`_main_score` returns.
        """
        weights = self.settings.parts
        earned = np.zeros(len(main_score))
        # 0 times NaN is NaN: a score that is no part of the reward must not spoil it.
        if weights.radcliq:
            clipped = np.clip(main_score, self.settings.clip_low, self.settings.clip_high)
            earned += weights.radcliq * clipped
        if weights.label_f1:
            earned += weights.label_f1 * label_f1
        return earned

    def _unjudged(self, judged: Array, references: Sequence[str]) -> NDArray[np.bool_]:
        """Return which reports the judge left without a score, although there was a reference."""
        was_asked = [self._judge is not None and not is_empty(text) for text in references]
        return np.isnan(judged) & np.array(was_asked, dtype=bool)

    def _lowest(self) -> float:
        """Return the lowest reward: what the lowest RadCliQ earns."""
        return self.settings.clip_low * (self.settings.parts.radcliq or 1.0)

    def _label_f1(self, reports: Sequence[str], references: Sequence[str]) -> Array:
        """Return the F1 of the classes of each pair, [N]; NaN where it has no weight."""
        if not self.settings.parts.label_f1:
            return np.full(len(reports), np.nan)
        labeler = self.backend.labeler
        pairs = zip(labeler.label(reports), labeler.label(references), strict=True)
        scores = [set_f1(_named(found), _named(true)) for found, true in pairs]
        unknown = [is_empty(reference) for reference in references]
        return np.where(unknown, np.nan, np.array(scores, dtype=np.float64))

    def _incoherence_penalty(
        self,
        earned: Array,
        reports: Sequence[str],
        references: Sequence[str],
        faults: Sequence[Sequence[Fault]],
    ) -> Array:
        """Return what is taken off reports with faults, [N].

        It is a price for each fault, and what the report earns beyond the worst of its repairs. A
        report that says two things is then worth less than the report that says the wrong one.
        """
        price = self.settings.incoherence_penalty
        penalties = np.zeros(len(reports))
        if not price:
            return penalties
        repaired = [
            (row, text)
            for row, found in enumerate(faults)
            if found
            for text in repairs(reports[row], found)
        ]
        texts = [text for _, text in repaired]
        own_references = [references[row] for row, _ in repaired]
        parts = score_parts(self.backend, texts, own_references)
        radcliq = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
        main_score = self._main_score(radcliq, texts, own_references)
        worths = self._weighted(main_score, self._label_f1(texts, own_references))
        for (row, _), worth in zip(repaired, worths, strict=True):
            penalties[row] = max(penalties[row], earned[row] - worth)
        return penalties + price * np.array(list(map(len, faults)))

    def _main_score(
        self, radcliq: Array, reports: Sequence[str], references: Sequence[str]
    ) -> Array:
        """Return minus RadCliQ-v1, or what the function of the settings gives instead, [N].

        Empty texts never reach the function: an empty report is the worst, an empty reference NaN.
        """
        if self._function is None:
            return -radcliq
        pairs = list(zip(reports, references, strict=True))
        earned = np.array(
            [np.nan if is_empty(pair[1]) else self.settings.clip_low for pair in pairs]
        )
        rows = [row for row, pair in enumerate(pairs) if not any(map(is_empty, pair))]
        if rows:
            earned[rows] = pair_scores(
                self._function,
                str(self.settings.function),
                [reports[row] for row in rows],
                [references[row] for row in rows],
            )
        return earned

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


def _named(labels: Labels) -> set[str]:
    """Return the classes that are present or uncertain."""
    return {label for label, value in labels.items() if value != NEGATIVE}


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
