"""Labels of sentences that are easily misread, and that no report is read worse in another form."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.texts import check_labels

_SENTENCES = yaml.safe_load(
    (Path(__file__).parent / "adversarial_sentences.yaml").read_text(encoding="utf-8")
)
CASES = [
    pytest.param(case["text"], case["expect"], id=f"{kind}-{number}")
    for kind, cases in _SENTENCES.items()
    for number, case in enumerate(cases)
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_labels_of_a_sentence(text: str, expected: dict[str, int | None]) -> None:
    check_labels(text, expected)
