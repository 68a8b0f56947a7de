"""What the generated reports name at several operating points of the evidence (ours).

The curve is that of the reports, not of the class head: each point is a full pass of the generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmrrg.evaluation.study_set import EvaluationSet
from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.clinical import FIVE_LABELS, UncertainPolicy, positives
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.radcliq import radcliq_v1
from lmrrg.studies import LABELS

_FINDINGS = [column for column, label in enumerate(LABELS) if label != "No Finding"]
_FIVE = [LABELS.index(label) for label in FIVE_LABELS]

OPERATING_COLUMNS = {
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "F1, 13 findings": ("f1_13", ".3f"),
    "F1, 5 findings": ("f1_5", ".3f"),
    "macro F1, 14 classes": ("macro_14", ".3f"),
    "RadCliQ-v1 ↓": ("radcliq_v1", ".3f"),
    "distinct reports": ("distinct_reports", "d"),
    "distinct finding sets": ("distinct_finding_sets", "d"),
}
"""Title of each column of the table of operating points: its key in a record, and its format."""


def operating_curve(
    reports: Mapping[float, Sequence[str]],
    evaluated: EvaluationSet,
    backend: Backend,
    policy: UncertainPolicy,
) -> list[dict[str, Any]]:
    """Return one record for each threshold, the lowest first.

    A record has ``threshold``; ``precision``, ``recall`` and ``f1_13``, micro over the 13 findings;
    ``f1_5``, micro over CheXpert's five; ``macro_14``; ``radcliq_v1``; ``distinct_reports`` and
    ``distinct_finding_sets``.

    Args:
        reports: what the system wrote for the N studies, by threshold.
        evaluated: the N studies.
        backend: reads labels and scores.
        policy: how an uncertain label counts.
    """
    truth = positives(evaluated.labels, policy)
    records = []
    for threshold, written in sorted(reports.items()):
        found = positives(backend.labeler.label(written), policy)
        parts = score_parts(backend, written, evaluated.references)
        precision, recall, f1 = _ratios(truth[:, _FINDINGS], found[:, _FINDINGS])
        every = [_ratios(truth[:, [k]], found[:, [k]])[2] for k in range(len(LABELS))]
        record = {
            "threshold": threshold,
            "precision": precision,
            "recall": recall,
            "f1_13": f1,
            "f1_5": _ratios(truth[:, _FIVE], found[:, _FIVE])[2],
            "macro_14": float(np.mean(every)),
            "radcliq_v1": float(radcliq_v1(parts.radgraph, parts.bertscore, parts.semb).mean()),
            "distinct_reports": len(set(written)),
            "distinct_finding_sets": len(np.unique(found[:, _FINDINGS], axis=0)),
        }
        records.append(record)
    return records


def _ratios(truth: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    """Return precision, recall and F1 over all entries of two tables; 0 where undefined."""
    hits = int((truth & found).sum())
    named = int(found.sum())
    present = int(truth.sum())
    f1 = 2 * hits / max(1, named + present)
    return hits / max(1, named), hits / max(1, present), f1
