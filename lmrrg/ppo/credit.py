"""Credit of sentences: how much each sentence of a report adds to its reward (ours).

A report's reward comes once, for the whole text. What the sentences of a report earn apart tells
the policy which of them to write again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Credits = NDArray[np.float64]
"""Credit of each sentence of a report and, last, of its end [n + 1]; NaN: not known."""
CreditForm = Literal["prefix", "leave_one_out"]


def leave_one_out_credits(reward: float, without: Sequence[float]) -> Credits:
    """Return for each sentence what the report loses without it; the end of the report has 0.

    The credit of an only sentence is not known: nothing is left without it.

    Args:
        reward: of the whole report.
        without: reward of the report without each of its n sentences [n]; NaN: not scored.

    >>> leave_one_out_credits(1.0, [0.25, 1.5]).tolist()
    [0.75, -0.5, 0.0]
    """
    credits = reward - np.asarray(without, dtype=float)
    if len(credits) == 1:
        credits[0] = np.nan
    return np.append(credits, 0.0)


def prefix_credits(reward: float, before: Sequence[float]) -> Credits:
    """Return for each sentence, and the end, minus the reward of the report up to there.

    Added to the report's reward that is the reward still to come: what the text before has earned
    is taken off (potential-based shaping, Ng et al. 1999, with the reward so far as potential).

    Args:
        reward: of the whole report.
        before: reward of the text before each of its n sentences [n], the first of an empty report;
            NaN: not scored.

    >>> prefix_credits(1.0, [-2.5, 0.25]).tolist()
    [2.5, -0.25, -1.0]
    """
    return -np.append(np.asarray(before, dtype=float), reward)


def centred_credits(
    credits: Sequence[Credits], study: Sequence[int], form: CreditForm
) -> list[Credits]:
    """Subtract from each report's credits the mean over the other reports of its study.

    ``leave_one_out``: the mean over all sentences of the others; it is subtracted from the end of
    the report too. Were it not, a sentence of average credit would earn nothing while the end of
    the report earns nothing either, whatever good the sentence does: reports would shrink.
    ``prefix``: the mean over what the others had earned before the sentence of the same number.

    What is not known, or has nothing to be compared with, becomes 0: it neither helps nor harms.

    Args:
        credits: of B reports.
        study: the study that each report belongs to [B].
        form: how the credits were made.

    >>> one, other = np.array([0.5, 0.1, 0.0]), np.array([0.3, 0.0])
    >>> [row.round(2).tolist() for row in centred_credits([one, other], [0, 0], "leave_one_out")]
    [[0.2, -0.2, -0.3], [0.0, -0.3]]
    """
    members: dict[int, list[int]] = {}
    for report, of_study in enumerate(study):
        members.setdefault(of_study, []).append(report)
    mean = _mean_of_sentences if form == "leave_one_out" else _means_by_number
    centred = []
    for report, own in enumerate(credits):
        others = [credits[other] for other in members[study[report]] if other != report]
        centred.append(np.nan_to_num(own - mean(others, len(own)), nan=0.0))
    return centred


def token_credits(credits: Sequence[Credits], sentences: Sequence[Sequence[int]]) -> Tensor:
    """Return the credit of each token's sentence, float32 [B, T], 0 in the padding.

    Args:
        credits: of each report.
        sentences: number of each token's sentence; -1 is the end of the report.
    """
    rows = []
    for of_report, numbers in zip(credits, sentences, strict=True):
        # -1, the end, is the last of the credits.
        rows.append(torch.from_numpy(of_report[list(numbers)]).float())
    return pad_sequence(rows, batch_first=True)


def _mean_of_sentences(others: Sequence[Credits], steps: int) -> Credits:
    """Return the mean credit of all sentences of ``others``, for each of ``steps``."""
    sentences = np.concatenate([np.empty(0), *(other[:-1] for other in others)])
    return np.full(steps, _known_mean(sentences.tolist()))


def _means_by_number(others: Sequence[Credits], steps: int) -> Credits:
    """Return for each step the mean credit of the same sentence of ``others``; last, of the end."""
    means = np.empty(steps)
    for number in range(steps - 1):
        means[number] = _known_mean([other[number] for other in others if number < len(other) - 1])
    means[-1] = _known_mean([other[-1] for other in others])
    return means


def _known_mean(credits: Sequence[float]) -> float:
    """Return the mean of the credits that are known; NaN where none is."""
    known = [credit for credit in credits if np.isfinite(credit)]
    return float(np.mean(known)) if known else np.nan
