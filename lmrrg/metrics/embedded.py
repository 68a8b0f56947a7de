"""The `embedded` backend: RadCliQ's four parts by rules, without any model or download (ours).

Its results are named ``radcliq-embedded`` everywhere; only the `reference` backend may be called RadCliQ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lmrrg.metrics.labeler import label_report
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.bleu import bleu2
from lmrrg.metrics.report_graph import ReportGraph, build_graph, graph_scores, set_f1
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE


@dataclass(frozen=True, slots=True)
class _Analysis:
    graph: ReportGraph
    labels: np.ndarray


class EmbeddedBackend:
    """Rule-based stand-ins for RadGraph, BERTScore and CheXbert on the same scales."""

    name = "radcliq-embedded"
    version = "1"

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Parts of N pairs, each float64 [N]; all 0 where a side has no word.

        Raises:
            ValueError: the two sequences differ in length.
        """
        rows = [_score(h, r) for h, r in zip(hypotheses, references, strict=True)]
        rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb = np.array(rows, dtype=np.float64).reshape(-1, 6).T
        return Parts(rg_e, rg_er, rg_bar_er, radgraph, bertscore, semb, bleu2(hypotheses, references))


def _score(hypothesis: str, reference: str) -> tuple[float, ...]:
    if not hypothesis.strip() or not reference.strip():
        return (0.0,) * 6
    a, b = _analyse(hypothesis), _analyse(reference)
    levels = graph_scores(a.graph, b.graph)
    same = " ".join(hypothesis.split()) == " ".join(reference.split())
    bertscore = 1.0 if same else set_f1(a.graph.entities, b.graph.entities)
    semb = 1.0 if same else _cosine(a.labels, b.labels)
    return (levels.rg_e, levels.rg_er, levels.rg_bar_er, levels.radgraph, bertscore, semb)


@lru_cache(maxsize=65536)
def _analyse(text: str) -> _Analysis:
    labels = label_report(text)
    weight = {POSITIVE: 1.0, NEGATIVE: 0.3}
    vector = np.zeros(2 * len(LABELS))
    for i, label in enumerate(LABELS):
        if label in labels:
            vector[2 * i + (labels[label] == NEGATIVE)] = weight.get(labels[label], 0.7)
    return _Analysis(build_graph(text), vector)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0
