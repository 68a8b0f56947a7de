"""ROUGE-L as the captioning scorers compute it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmrrg.metrics.parts import Array

_BETA_SQUARED = 1.2**2  # recall weighs more than precision


def rouge_l(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """ROUGE-L F (beta 1.2) of N pairs [N]; equal to ``pycocoevalcap`` on texts with single spaces.

    Tokens are split at white space; a pair with an empty side scores 0.
    """
    return np.array(
        [_rouge_l(h.split(), r.split()) for h, r in zip(hypotheses, references, strict=True)]
    )


def _rouge_l(hypothesis: list[str], reference: list[str]) -> float:
    common = longest_common_subsequence(hypothesis, reference)
    if not common:
        return 0.0
    precision, recall = common / len(hypothesis), common / len(reference)
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Hyyrö 2004): one Python integer holds a row of the dynamic programme, one bit per token of
    ``second``; a token costs a few big-integer operations instead of a loop over ``second``.
    """
    places: dict[str, int] = {}
    for position, token in enumerate(second):
        places[token] = places.get(token, 0) | 1 << position
    full = (1 << len(second)) - 1
    row = full
    for token in first:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(second) - row.bit_count()
