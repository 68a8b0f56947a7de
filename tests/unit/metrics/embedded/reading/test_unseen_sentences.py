"""Sentences that were written before their author saw the word lists: right ones and known faults.

A known fault fails here as soon as it is mended, and is then moved to the sentences that are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.radcliq import radcliq_v1
from tests.support.texts import check_labels

MARGIN = 0.05
"""How much more a report must earn that says what the reference says."""
_CASES = yaml.safe_load(
    (Path(__file__).parent / "unseen_sentences.yaml").read_text(encoding="utf-8")
)
KNOWN_FAULT = pytest.mark.xfail(strict=True, reason="known fault", raises=AssertionError)


def _labelled() -> list[Any]:
    return [
        pytest.param(
            case["text"],
            case["expect"],
            id=f"{group}-{kind}-{number}",
            marks=[KNOWN_FAULT] if group == "misread" else [],
        )
        for group, kinds in _CASES["labels"].items()
        for kind, cases in kinds.items()
        for number, case in enumerate(cases)
    ]


def _ordered() -> list[Any]:
    return [
        pytest.param(
            case["reference"],
            case["same"],
            case["other"],
            id=f"{group}-{number}",
            marks=[KNOWN_FAULT] if group == "misread" else [],
        )
        for group, cases in _CASES["orders"].items()
        for number, case in enumerate(cases)
    ]


@pytest.mark.parametrize(("text", "expected"), _labelled())
def test_labels_of_an_unseen_sentence(text: str, expected: dict[str, int | None]) -> None:
    check_labels(text, expected)


@pytest.mark.parametrize(("reference", "same", "other"), _ordered())
def test_the_same_in_other_words_earns_more(reference: str, same: str, other: str) -> None:
    parts = EmbeddedBackend().score([same, other], [reference] * 2)
    right, wrong = -radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
    assert right > wrong + MARGIN
