"""The parts of RadCliQ for a list of report pairs, and what both backends need to compute them."""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """Scores of N (hypothesis, reference) pairs, each a float64 array [N].

    A pair that a backend could not score is NaN in every field; nothing is ever replaced by 0.
    """

    rg_e: Array
    """F1 of entities {(tokens, label)}."""
    rg_er: Array
    """F1 of entities that also carry whether they have a relation."""
    rg_bar_er: Array
    """F1 of entities with their relations' targets."""
    radgraph: Array
    """(entity F1 + relation F1) / 2: RadCliQ's RG."""
    bertscore: Array
    """BERTScore F1, rescaled with its baseline (embedded backend: a substitute on that scale)."""
    semb: Array
    """Cosine of the CheXbert embeddings (embedded backend: of the label vectors)."""
    bleu2: Array
    """BLEU-2 with RadCliQ's tokenisation."""


def is_empty(report: str) -> bool:
    """Return whether a report has no letter and no digit.

    >>> is_empty(" . - "), is_empty("Clear.")
    (True, False)
    """
    return not any(character.isalnum() for character in report)


def set_f1(first: Set[Hashable], second: Set[Hashable]) -> float:
    """Return F1 = 2|A∩B| / (|A| + |B|) of two sets; 0 where either is empty.

    >>> set_f1({"effusion", "left"}, {"effusion", "right"})
    0.5
    >>> set_f1(set(), set())
    0.0
    """
    # RadGraph's F1 gives 0, not 1, to two reports without any entity; RadCliQ was fitted to that.
    if not first or not second:
        return 0.0
    return 2 * len(first & second) / (len(first) + len(second))
