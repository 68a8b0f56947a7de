"""The parts of RadCliQ for a list of report pairs."""

from __future__ import annotations

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
    """BERTScore F1, rescaled with its baseline (embedded backend: its stand-in on the same scale)."""
    semb: Array
    """Cosine of the CheXbert embeddings (embedded backend: of the label vectors)."""
    bleu2: Array
    """BLEU-2 with RadCliQ's tokenisation."""


def is_empty(report: str) -> bool:
    """Whether a report has no word at all."""
    return not any(character.isalnum() for character in report)
