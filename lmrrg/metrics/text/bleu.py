"""BLEU in the two forms that this field reports: RadCliQ's sentence BLEU-2, and the corpus BLEU-1..4 of captioning."""

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
_SMALL, _TINY = (
    1e-9,
    1e-15,
)  # the captioning scorer's guards against a division by zero; they are part of its values


def radcliq_tokens(report: str) -> list[str]:
    """RadCliQ's tokenisation: lower case, "." split off, split at spaces (and at nothing else)."""
    return [token for token in report.lower().replace(".", " .").split(" ") if token]


def bleu2(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """RadCliQ's BLEU-2 of N pairs [N]: weights (1/2, 1/2), an n-gram order without a match counts 0.1 matches.

    No shared word at all gives 0. Source: Yu et al. 2023 (the smoothing is method 1 of Chen and Cherry 2014).
    """
    return np.array(
        [
            _bleu2(radcliq_tokens(h), radcliq_tokens(r))
            for h, r in zip(hypotheses, references, strict=True)
        ]
    )


def _bleu2(hypothesis: list[str], reference: list[str]) -> float:
    words = _matches(hypothesis, reference)
    if not words:
        return 0.0
    pairs = _matches(pairwise(hypothesis), pairwise(reference)) or 0.1
    precision = words / len(hypothesis) * (pairs / max(1, len(hypothesis) - 1))
    brevity = min(1.0, math.exp(1 - len(reference) / len(hypothesis)))
    return brevity * math.sqrt(precision)


def ngrams(tokens: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    """All n-grams of one order."""
    return zip(*[tokens[start:] for start in range(order)], strict=False)


def _matches(hypothesis: Iterable[Any], reference: Iterable[Any]) -> int:
    """How many of the hypothesis's n-grams the reference has, each as often as it stands there."""
    left = Counter(reference)
    matches = 0
    for gram in hypothesis:
        if count := left.get(gram):
            left[gram] = count - 1
            matches += 1
    return matches


def bleu_counts(hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """The sums that BLEU is made of, per pair: [N, 10] = matches of order 1..4, n-grams of order 1..4, both lengths.

    Tokens are split at white space. Adding rows gives the counts of a corpus.
    """
    rows = np.zeros((len(hypotheses), 2 * MAX_ORDER + 2))
    for row, hypothesis, reference in zip(rows, hypotheses, references, strict=True):
        tokens, truth = hypothesis.split(), reference.split()
        for order in range(1, MAX_ORDER + 1):
            row[order - 1] = _matches(ngrams(tokens, order), ngrams(truth, order))
            row[MAX_ORDER + order - 1] = max(0, len(tokens) - order + 1)
        row[-2:] = len(tokens), len(truth)
    return rows


def bleu_from_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU-1..4 [..., 4] from (summed) counts [..., 10]; equal to ``pycocoevalcap`` with one reference."""
    matches, guesses = counts[..., :MAX_ORDER], counts[..., MAX_ORDER : 2 * MAX_ORDER]
    products = np.cumprod((matches + _TINY) / (guesses + _SMALL), axis=-1)
    scores = products ** (1.0 / np.arange(1, MAX_ORDER + 1))
    ratio = (counts[..., -2] + _TINY) / (counts[..., -1] + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    return scores * brevity[..., None]
