"""ROUGE-L as the captioning scorers compute it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmrrg.metrics.parts import Array

# The captioning scorers' beta, above 1: recall weighs more than precision.
_BETA_SQUARED = 1.2**2


def rouge_l(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """Return the ROUGE-L F score (beta 1.2) of N pairs [N].

    Equal to ``pycocoevalcap`` on texts with single spaces. Tokens are split at white space; a pair
    with an empty side scores 0.

    >>> rouge_l(["no effusion", "no effusion"], ["no effusion", "no large effusion"]).tolist()
    [1.0, 0.77]
    """
    scores = [
        _rouge_l(hypothesis.split(), reference.split())
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]
    return np.array(scores)


def _rouge_l(hypothesis: list[str], reference: list[str]) -> float:
    common = longest_common_subsequence(hypothesis, reference)
    if not common:
        return 0.0
    precision = common / len(hypothesis)
    recall = common / len(reference)
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    Bit-parallel (Hyyrö 2004): one Python integer holds a row of the dynamic programme, one bit per
    token of ``second``. A token of ``first`` costs a few big-integer operations instead of a loop
    over ``second``.

    >>> longest_common_subsequence("the heart is normal".split(), "heart size normal".split())
    2
    """
    positions: dict[str, int] = {}
    for position, token in enumerate(second):
        positions[token] = positions.get(token, 0) | 1 << position
    full = (1 << len(second)) - 1
    # A bit of 0 marks a step of the dynamic programme: the common subsequence grows there by one.
    row = full
    for token in first:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(second) - row.bit_count()
