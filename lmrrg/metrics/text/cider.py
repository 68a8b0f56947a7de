"""CIDEr-D: a clipped cosine of tf-idf weighted n-grams, with a penalty on the length difference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lmrrg.metrics.parts import Array
from lmrrg.metrics.text.bleu import MAX_ORDER, ngrams

# The width of the length penalty, in bigrams, as in pycocoevalcap.
_SIGMA = 6.0
_Gram = tuple[str, ...]


def cider_d(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """Return CIDEr-D of N pairs [N], scale 0..10; document frequencies are of the N references.

    Equal to ``pycocoevalcap`` with one reference. The score of a pair depends on all references:
    an n-gram that every reference has weighs nothing, so with a single study every score is 0.

    >>> references = ["no acute disease .", "small left effusion ."]
    >>> cider_d(["no acute disease .", "small effusion ."], references).round(2).tolist()
    [10.0, 3.02]
    >>> cider_d(["no acute disease ."], ["no acute disease ."]).tolist()
    [0.0]
    """
    reference_counts = list(map(_counts, references))
    # The number of references that have an n-gram, each counted once.
    frequency = Counter(gram for counts in reference_counts for order in counts for gram in order)
    log_documents = math.log(len(references)) if references else 0.0
    scores = [
        _similarity(_counts(hypothesis), counts, frequency, log_documents)
        for hypothesis, counts in zip(hypotheses, reference_counts, strict=True)
    ]
    return np.array(scores)


def _counts(report: str) -> list[Counter[_Gram]]:
    """Return how often each n-gram occurs, for each order."""
    tokens = report.split()
    return [Counter(ngrams(tokens, order)) for order in range(1, MAX_ORDER + 1)]


def _similarity(
    hypothesis: list[Counter[_Gram]],
    reference: list[Counter[_Gram]],
    frequency: Counter[_Gram],
    log_documents: float,
) -> float:
    """Return CIDEr-D of one pair from the n-gram counts of both sides."""
    # The original measures length in bigrams, not in words.
    delta = hypothesis[1].total() - reference[1].total()
    penalty = math.exp(-(delta**2) / (2 * _SIGMA**2))
    cosines = []
    for ours, truth in zip(hypothesis, reference, strict=True):
        # An n-gram of the hypothesis that no reference has weighs as much as one of one reference.
        weight = {
            gram: log_documents - math.log(max(1, frequency[gram]))
            for gram in ours.keys() | truth.keys()
        }
        # The "D" of CIDEr-D: a count above the reference's gains nothing.
        dot = sum(
            min(n, truth[gram]) * truth[gram] * weight[gram] ** 2
            for gram, n in ours.items()
            if gram in truth
        )
        norms = _norm(ours, weight) * _norm(truth, weight)
        cosines.append(dot / norms if norms else 0.0)
    return 10.0 * penalty * sum(cosines) / MAX_ORDER


def _norm(counts: Counter[_Gram], weight: dict[_Gram, float]) -> float:
    return math.sqrt(sum((n * weight[gram]) ** 2 for gram, n in counts.items()))
