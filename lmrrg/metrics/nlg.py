"""The n-gram metrics of captioning, per report and for a corpus, without Java."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmrrg.metrics.bleu import MAX_ORDER, bleu_counts, bleu_from_counts
from lmrrg.metrics.cider import cider_d
from lmrrg.metrics.parts import Array
from lmrrg.metrics.rouge import rouge_l
from lmrrg.metrics.statistics import Aggregate

BLEU_NAMES = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))
NLG_METRICS = (*BLEU_NAMES, "rouge_l", "cider")


def nlg_scores(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[dict[str, Array], dict[str, Aggregate]]:
    """Per-report columns [N] and corpus-level aggregates of :data:`NLG_METRICS`.

    The texts must have gone through a convention. The corpus BLEU comes from summed counts, the others are means. In
    resamples, CIDEr keeps the document frequencies of the whole reference set.
    """
    counts = bleu_counts(hypotheses, references)
    columns: dict[str, Array] = dict(zip(BLEU_NAMES, bleu_from_counts(counts).T, strict=True))
    columns["rouge_l"] = rouge_l(hypotheses, references)
    columns["cider"] = cider_d(hypotheses, references)
    aggregates = {name: Aggregate.mean(columns[name]) for name in ("rouge_l", "cider")}
    corpus = {name: Aggregate(counts, _BleuOrder(order)) for order, name in enumerate(BLEU_NAMES)}
    return columns, corpus | aggregates


class _BleuOrder:
    """One order of the corpus BLEU; counts may be means, since BLEU only looks at their ratios."""

    def __init__(self, order: int):
        self._order = order

    def __call__(self, means: Array) -> Array:
        return np.asarray(bleu_from_counts(means)[..., self._order])
