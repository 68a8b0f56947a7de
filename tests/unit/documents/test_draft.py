"""A draft is read from the service's answer, and from nothing else."""

from __future__ import annotations

import copy

import pytest

from lmrrg.documents.draft import DocumentError, read_answer
from lmrrg.studies import LABELS

ANSWER = {
    "findings": "The lungs are clear.",
    "impression": None,
    "complete": True,
    "probabilities": dict.fromkeys(LABELS, 0.25),
    "images": [{"view": "PA"}, {"view": "lateral"}],
    "model": {"version": "sha256:0", "architecture": "LMRRG"},
    "generated_at": "2026-02-01T09:30:00Z",
    "notice": "For research only.",
    "seconds": 0.1,
}


def test_an_answer_becomes_a_draft() -> None:
    draft = read_answer(ANSWER)
    assert (draft.findings, draft.impression, draft.images) == ("The lungs are clear.", "", 2)
    assert draft.generated_at.tzinfo is not None
    text = draft.text()
    assert text.startswith("For research only.")
    assert "The lungs are clear." in text
    assert "Not verified" in text
    assert "IMPRESSION" not in text


def test_a_cut_text_says_so() -> None:
    assert "cut at the length limit" in read_answer(ANSWER | {"complete": False}).text()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("findings",), None, "findings"),
        (("model", "version"), "", "model.version"),
        (("generated_at",), "2026-02-01T09:30:00", "generated_at"),
        (("images",), [], "images"),
        (("probabilities", "Edema"), 1.5, "probability"),
        (("probabilities", "Edema"), "Mr Example", "probabilities.Edema"),
        (("notice",), "", "notice"),
    ],
)
def test_what_does_not_fit_is_named_but_not_quoted(path, value, named) -> None:
    broken = copy.deepcopy(ANSWER)
    *above, last = path
    inner = broken
    for key in above:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(DocumentError, match=named) as caught:
        read_answer(broken)
    assert caught.value.code == "bad_answer"
    assert "Example" not in str(caught.value)
