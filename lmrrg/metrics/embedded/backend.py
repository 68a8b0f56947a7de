"""The ``embedded`` backend: RadCliQ's parts by rules, without any model or download (ours).

Its results are named ``radcliq-embedded`` everywhere; only the ``published`` backend may be called
RadCliQ. How a report is read is in :mod:`lmrrg.metrics.embedded.analysis`, how two are compared in
:mod:`lmrrg.metrics.embedded.comparison`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from lmrrg.metrics.embedded.analysis import (
    REPORT_BATCH,
    analyses_of_hypotheses,
    analyses_of_references,
)
from lmrrg.metrics.embedded.batch_cache import in_batches
from lmrrg.metrics.embedded.comparison import WORDLESS, PairScores, compare
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.text.bleu import bleu2

_VERSION = "9"
"""Raise it when a change of a rule or a lexicon can change a score or a label."""


class RuleLabeler:
    """The rules of :func:`lmrrg.metrics.embedded.labeler.label_report` for many reports."""

    name = f"embedded {_VERSION}"

    def label(self, reports: Sequence[str]) -> list[dict[str, int]]:
        """Return the classes of :data:`~lmrrg.studies.LABELS` that each report mentions: 1, 0, -1.

        >>> RuleLabeler().label(["Mild edema.", "No fracture."])
        [{'Edema': 1}, {'Fracture': 0, 'No Finding': 1}]
        """
        return [label_report(report) for report in reports]


class EmbeddedBackend:
    """Rule-based stand-ins for RadGraph, BERTScore and CheXbert on the same scales."""

    name = "radcliq-embedded"
    version = _VERSION
    labeler = RuleLabeler()

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Return the parts of N pairs, each float64 [N]; all 0 where a side is unreadable.

        Raises:
            ValueError: the two sequences differ in length.

        >>> parts = EmbeddedBackend().score(
        ...     ["Small left effusion.", "Small right effusion."], ["Small left effusion."] * 2
        ... )
        >>> parts.radgraph.round(2).tolist(), parts.semb.round(2).tolist()
        ([1.0, 0.58], [1.0, 0.56])
        """
        with _garbage_collector_paused():
            pairs = list(zip(hypotheses, references, strict=True))
            scores: list[PairScores] = []
            for batch in in_batches(pairs, REPORT_BATCH):
                scores += _score_batch(batch)
            has_words = [pair is not WORDLESS for pair in scores]
            bleu = np.where(has_words, bleu2(hypotheses, references), 0.0)
        table = np.array(scores, dtype=np.float64).reshape(-1, len(PairScores._fields))
        return Parts(**dict(zip(PairScores._fields, table.T, strict=True)), bleu2=bleu)


def _score_batch(pairs: list[tuple[str, str]]) -> list[PairScores]:
    hypotheses = analyses_of_hypotheses([hypothesis for hypothesis, _ in pairs])
    references = analyses_of_references([reference for _, reference in pairs])
    return [compare(hypotheses[h], references[r]) for h, r in pairs]


@contextmanager
def _garbage_collector_paused() -> Iterator[None]:
    """Pause Python's cyclic garbage collector, which costs time here and finds nothing.

    An analysis creates many small tuples and no reference cycles. Every few hundred new objects
    start a collection, and every full collection visits all objects in the caches.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            # Objects created meanwhile count as young, and the first collection afterwards would
            # visit all of them. A freeze and its undoing move every object to the oldest
            # generation without a visit. Skipped where the caller has frozen objects itself:
            # the undoing would release those as well.
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
