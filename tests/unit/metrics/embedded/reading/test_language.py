"""Which texts the rules can read."""

from __future__ import annotations

import pytest

from lmrrg.metrics.embedded.reading.language import is_readable


@pytest.mark.parametrize(
    "text",
    [
        "Normal exam.",
        "Unremarkable examination.",
        "Negative preoperative chest x-ray.",
        "A nasogastric tube is in the stomach.",
        "NO ACUTE DISEASE",
    ],
)
def test_english_reports(text: str) -> None:
    assert is_readable(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4.5",
        "qwerty uiop",
        "Kein Pneumothorax, kein Pleuraerguss.",
        "Sin derrame pleural. Silueta cardiaca normal.",
        "Pas d'épanchement pleural. Silhouette cardiaque normale.",
        "Geen pneumothorax. Normaal hart.",
        "Лёгкие без очаговых теней.",
        "両肺野に異常陰影なし",
    ],
)
def test_other_texts(text: str) -> None:
    assert not is_readable(text)
