"""A finding that is denied on one side and left out on the other."""

from __future__ import annotations

import pytest

from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.metrics.embedded.lexicon import graph_lexicon
from lmrrg.metrics.embedded.reading.ellipsis import with_names


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("No pleural effusion on the left, moderate on the right.", 1),
        ("No effusion on the right; a small one on the left.", 1),
        ("Effusion is not seen on the left but present on the right.", 1),
        ("No effusion on the left, or on the right.", 0),
        ("No effusion on the left. There is none on the right.", 0),
    ],
)
def test_other_side(text: str, value: int) -> None:
    assert label_report(text)["Pleural Effusion"] == value


@pytest.mark.parametrize(
    "text",
    [
        "bilateral effusions , large on the right and small on the left",
        "no effusion on the left , small pneumothorax on the right",
    ],
)
def test_sentences_that_leave_nothing_out(text: str) -> None:
    assert with_names(text.split(), graph_lexicon()) == text.split()


def test_other_side_is_gone() -> None:
    assert label_report("Right effusion, resolved on the left.")["Pleural Effusion"] == 1


def test_the_other_side_of_a_sized_finding_is_named_again():
    words = ["the", "right", "effusion", "is", "large", ",", "the", "left", "is", "small"]
    named = with_names(words, graph_lexicon())
    assert " ".join(named).endswith("the left effusion is small")
    organ = ["the", "right", "lung", "is", "clear", ",", "the", "left", "is", "small"]
    assert with_names(organ, graph_lexicon()) == organ
