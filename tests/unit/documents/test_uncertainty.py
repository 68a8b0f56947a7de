"""How sure the language model was of each sentence."""

from __future__ import annotations

import pytest

from lmrrg.documents.sentence_regions import sentence_regions
from lmrrg.documents.uncertainty import sentence_likelihoods


def likelihoods(text: str, tokens: list[tuple[str, float]]):
    pieces, logprobs = [piece for piece, _ in tokens], [value for _, value in tokens]
    return sentence_likelihoods(text, sentence_regions(text), pieces, logprobs)


@pytest.mark.parametrize("mark", ["Ġ", "▁", " "])
def test_every_token_counts_in_its_own_sentence(mark: str):
    tokens = [(f"{mark}Clear", -1.0), (".", -3.0), (f"{mark}No", -0.2), (f"{mark}mass.", -0.4)]
    first, second = likelihoods("Clear. No mass.", tokens)
    assert (first.mean, first.least) == (-2.0, -3.0)
    assert (second.mean, second.least) == (pytest.approx(-0.3), -0.4)


def test_a_token_over_the_border_counts_in_both_sentences():
    first, second = likelihoods("No. Yes.", [("No", -1.0), (". Y", -5.0), ("es.", -2.0)])
    assert (first.least, second.least) == (-5.0, -5.0)


def test_tokens_that_do_not_spell_the_text_give_nothing():
    # A byte-level tokenizer writes "é" as two letters.
    assert likelihoods("Né. Clear.", [("NÃ©", -1.0), (".", 0.0), ("ĠClear.", 0.0)]) == [None, None]


def test_an_empty_report_has_no_sentences():
    assert likelihoods("", []) == []
