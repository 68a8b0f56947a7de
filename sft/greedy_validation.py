"""Measure what the model writes, beside how probable it finds the references (**ours**)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmrrg.metrics.clinical import positives
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.model.evidence import FINDINGS
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.greedy import greedy_reports
from sft.batches import Examples

_AT_ONCE = 32
"""Studies whose reports are written together."""


def written_findings(
    model: ReportGenerator, examples: Examples, index: Sequence[int], max_new_tokens: int
) -> Tensor:
    """Return which findings the greedy reports of some examples state, bool [len(index), 13].

    Args:
        model: in evaluation mode.
        examples: of the validation studies.
        index: of the examples that get a report.
        max_new_tokens: length at which a report is cut, tokens.
    """
    device = next(model.parameters()).device
    labels: list[dict[str, int]] = []
    for start in range(0, len(index), _AT_ONCE):
        batch = examples.batch(index[start : start + _AT_ONCE])
        features = batch.features.to(device)
        reports = greedy_reports(model, features, batch.prompts, max_new_tokens)
        labels += map(label_report, reports)
    return torch.from_numpy(positives(labels, "positive"))[:, : len(FINDINGS)]


def findings_f1(written: Tensor, stated: Tensor) -> float:
    """Return the micro F1 of the findings of N reports; 0 where neither side states any.

    >>> findings_f1(torch.tensor([[True, True]]), torch.tensor([[True, False]]))
    0.6666666666666666
    """
    hits = int((written & stated).sum())
    return 2 * hits / max(1, int(written.sum()) + int(stated.sum()))
