"""Check the labels of a text."""

from __future__ import annotations

from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import POSITIVE


def check_labels(text: str, expected: dict[str, int | None]) -> None:
    """Check the classes that are named; None is any label but positive, and {} no label at all."""
    found = label_report(text)
    if not expected:
        assert found == {}
    for label, value in expected.items():
        if value is None:
            assert found.get(label) != POSITIVE
        else:
            assert found.get(label) == value
