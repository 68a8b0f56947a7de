"""The n-gram metrics of captioning, per report and for a corpus, computed without Java."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from lmrrg.metrics.bootstrap import Aggregate
from lmrrg.metrics.parts import Array
from lmrrg.metrics.text.bleu import MAX_ORDER, bleu_counts, bleu_from_counts
from lmrrg.metrics.text.cider import cider_d
from lmrrg.metrics.text.meteor.score import meteor_counts, meteor_from_counts
from lmrrg.metrics.text.rouge import rouge_l

BLEU_NAMES = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))
NLG_METRICS = (*BLEU_NAMES, "meteor", "rouge_l", "cider")


def nlg_scores(
    hypotheses: Sequence[str], references: Sequence[str], names: Collection[str] = NLG_METRICS
) -> tuple[dict[str, Array], dict[str, Aggregate]]:
    """Return per-report columns [N] and corpus-level aggregates of some of :data:`NLG_METRICS`.

    The texts must be prepared by a convention. Corpus BLEU and METEOR come from summed counts, the
    others are means. In resamples, CIDEr keeps the document frequencies of the whole reference set.
    METEOR first reads a table of five million paraphrases, which takes seconds.

    >>> names = ["rouge_l", "bleu_1"]
    >>> columns, aggregates = nlg_scores(["clear lungs"], ["lungs are clear"], names)
    >>> columns["rouge_l"].round(4).tolist(), round(aggregates["bleu_1"].value, 4)
    ([0.3861], 0.6065)

    Raises:
        MetricError: ``meteor_data_missing`` where METEOR is asked for and its word lists are not
            installed.
    """
    columns: dict[str, Array] = {}
    aggregates: dict[str, Aggregate] = {}
    if not set(BLEU_NAMES).isdisjoint(names):
        counts = bleu_counts(hypotheses, references)
        columns |= dict(zip(BLEU_NAMES, bleu_from_counts(counts).T, strict=True))
        aggregates |= {
            name: Aggregate(counts, _BleuOrder(order)) for order, name in enumerate(BLEU_NAMES)
        }
    if "meteor" in names:
        counts = meteor_counts(hypotheses, references)
        columns["meteor"] = meteor_from_counts(counts)
        aggregates["meteor"] = Aggregate(counts, meteor_from_counts)
    for name, score in (("rouge_l", rouge_l), ("cider", cider_d)):
        if name in names:
            columns[name] = score(hypotheses, references)
            aggregates[name] = Aggregate.mean(columns[name])
    return columns, aggregates


class _BleuOrder:
    """One order of the corpus BLEU, from the means of the counts.

    A class, because a lambda in a loop would read the last order only.
    """

    def __init__(self, order: int):
        self._order = order

    def __call__(self, means: Array) -> Array:
        return np.asarray(bleu_from_counts(means)[..., self._order])
