"""What an iteration is warned of."""

from __future__ import annotations

import pytest

from rl.iteration_metrics import warn_of_collapse


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (["", " ", ""], "all 3 sampled reports are empty"),
        (["Clear lungs.", "Clear lungs. "], "all 2 sampled reports are the same"),
        (["Clear lungs.", ""], None),
        (["Clear lungs."], None),
    ],
)
def test_empty_or_equal_reports_are_warned_of_and_not_quoted(
    texts: list[str], word: str | None, caplog: pytest.LogCaptureFixture
):
    warn_of_collapse(texts, iteration=4)
    assert caplog.text == "" if word is None else f"iteration 4: {word}" in caplog.text
    assert "lungs" not in caplog.text
