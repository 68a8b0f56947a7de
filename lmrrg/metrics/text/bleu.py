"""BLEU in the two forms of this field: RadCliQ's BLEU-2, and the corpus BLEU-1..4 of captioning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmrrg.metrics.parts import Array

MAX_ORDER = 4
# The captioning scorer's guards against a division by zero. They change its values slightly, so
# they are kept exactly.
_SMALL = 1e-9
_TINY = 1e-15


def radcliq_tokens(report: str) -> list[str]:
    """Return RadCliQ's tokens: lower case, "." split off, split at spaces (and at nothing else).

    >>> radcliq_tokens("Heart size normal. No effusion.")
    ['heart', 'size', 'normal', '.', 'no', 'effusion', '.']
    """
    return list(filter(None, report.lower().replace(".", " .").split(" ")))


def bleu2(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """Return RadCliQ's BLEU-2 of N pairs [N].

    Single words and pairs of words have the weights (1/2, 1/2). Where no pair of words matches, 0.1
    matches are counted; no shared word at all gives 0. Source: Yu et al. 2023 (the smoothing is
    method 1 of Chen and Cherry 2014).

    >>> bleu2(["clear lungs", "lungs clear", "effusion"], ["clear lungs"] * 3).round(4).tolist()
    [1.0, 0.3162, 0.0]
    """
    scores = [
        _bleu2(radcliq_tokens(hypothesis), radcliq_tokens(reference))
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]
    return np.array(scores)


def _bleu2(hypothesis: list[str], reference: list[str]) -> float:
    words = _matches(hypothesis, reference)
    if not words:
        return 0.0
    pairs = _matches(pairwise(hypothesis), pairwise(reference)) or 0.1
    # A single word has no pair to divide by; its 0.1 matches count as they are.
    precision = words / len(hypothesis) * (pairs / max(1, len(hypothesis) - 1))
    brevity = min(1.0, math.exp(1 - len(reference) / len(hypothesis)))
    return brevity * math.sqrt(precision)


def ngrams(tokens: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    """Yield all n-grams of one order.

    >>> list(ngrams(["no", "acute", "disease"], 2))
    [('no', 'acute'), ('acute', 'disease')]
    """
    # The shifted copies differ in length, and the shortest one is as long as there are n-grams.
    return zip(*[tokens[start:] for start in range(order)], strict=False)


def _matches(hypothesis: Iterable[Any], reference: Iterable[Any]) -> int:
    """Count the hypothesis's n-grams that the reference has, each as often as it occurs there."""
    left = Counter(reference)
    matches = 0
    for gram in hypothesis:
        if count := left.get(gram):
            left[gram] = count - 1
            matches += 1
    return matches


def bleu_counts(hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Return the counts that BLEU is computed from, per pair [N, 10].

    The columns are the matches of order 1..4, the hypothesis's n-grams of order 1..4, and the
    lengths of hypothesis and reference. Tokens are split at white space. Adding rows gives the
    counts of a corpus.

    >>> bleu_counts(["no acute disease"], ["no disease"])[0].astype(int).tolist()
    [2, 0, 0, 0, 3, 2, 1, 0, 3, 2]
    """
    rows = np.zeros((len(hypotheses), 2 * MAX_ORDER + 2))
    for row, hypothesis, reference in zip(rows, hypotheses, references, strict=True):
        tokens = hypothesis.split()
        truth = reference.split()
        for order in range(1, MAX_ORDER + 1):
            row[order - 1] = _matches(ngrams(tokens, order), ngrams(truth, order))
            row[MAX_ORDER + order - 1] = max(0, len(tokens) - order + 1)
        row[-2:] = len(tokens), len(truth)
    return rows


def bleu_from_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return BLEU-1..4 [..., 4] from (summed) counts [..., 10].

    Equal to ``pycocoevalcap`` with one reference. BLEU depends on ratios only, so means of counts
    give the same as sums. The BLEU of a corpus comes from its summed counts; it is not the mean of
    the reports' BLEU:

    >>> counts = bleu_counts(["clear lungs", "no effusion"], ["clear lungs", "small effusion"])
    >>> bleu_from_counts(counts)[:, 0].round(4).tolist()
    [1.0, 0.5]
    >>> bleu_from_counts(counts.sum(axis=0)).round(4)[:2].tolist()  # BLEU-1 and BLEU-2
    [0.75, 0.6124]
    """
    matches = counts[..., :MAX_ORDER]
    guesses = counts[..., MAX_ORDER : 2 * MAX_ORDER]
    products = np.cumprod((matches + _TINY) / (guesses + _SMALL), axis=-1)
    scores = products ** (1.0 / np.arange(1, MAX_ORDER + 1))
    ratio = (counts[..., -2] + _TINY) / (counts[..., -1] + _SMALL)
    # 1 for a hypothesis that is longer than the reference.
    brevity = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    return scores * brevity[..., None]
