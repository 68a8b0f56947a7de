"""The n-gram metrics against the captioning package, NLTK and slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from lmrrg.metrics.text.bleu import bleu2, bleu_counts, bleu_from_counts, radcliq_tokens
from lmrrg.metrics.text.cider import cider_d
from lmrrg.metrics.text.ngram import BLEU_NAMES, nlg_scores
from lmrrg.metrics.text.rouge import longest_common_subsequence, rouge_l
from tests.support.texts import random_pairs

HYPOTHESES, REFERENCES = random_pairs(150, seed=3)
GOLD = {row: [text] for row, text in enumerate(REFERENCES)}
FOUND = {row: [text] for row, text in enumerate(HYPOTHESES)}
sentences = st.lists(st.sampled_from("abcde"), max_size=14)


def test_bleu_equals_pycocoevalcap() -> None:
    corpus, reports = Bleu(4).compute_score(GOLD, FOUND, verbose=0)
    counts = bleu_counts(HYPOTHESES, REFERENCES)
    np.testing.assert_allclose(bleu_from_counts(counts).T, reports, atol=1e-9)
    np.testing.assert_allclose(bleu_from_counts(counts.sum(axis=0)), corpus, atol=1e-9)


def test_rouge_equals_pycocoevalcap() -> None:
    _, reports = Rouge().compute_score(GOLD, FOUND)
    assert rouge_l(HYPOTHESES, REFERENCES) == pytest.approx(reports, abs=1e-9)


def test_cider_equals_pycocoevalcap() -> None:
    mean, reports = Cider().compute_score(GOLD, FOUND)
    ours = cider_d(HYPOTHESES, REFERENCES)
    assert ours == pytest.approx(reports, abs=1e-9)
    assert ours.mean() == pytest.approx(mean, abs=1e-9)


def test_corpus_metrics_equal_pycocoevalcap() -> None:
    _, aggregates = nlg_scores(HYPOTHESES, REFERENCES, (*BLEU_NAMES, "rouge_l", "cider"))
    corpus, _ = Bleu(4).compute_score(GOLD, FOUND, verbose=0)
    assert [aggregates[name].value for name in BLEU_NAMES] == pytest.approx(corpus, abs=1e-9)
    assert aggregates["cider"].value == pytest.approx(
        Cider().compute_score(GOLD, FOUND)[0], abs=1e-9
    )
    assert aggregates["rouge_l"].value == pytest.approx(
        Rouge().compute_score(GOLD, FOUND)[0], abs=1e-9
    )


def test_empty_hypothesis_is_zero_everywhere() -> None:
    columns, _ = nlg_scores(
        ["", "lungs clear"], ["lungs clear", "lungs clear"], (*BLEU_NAMES, "rouge_l", "cider")
    )
    assert {name: column[0] for name, column in columns.items()} == pytest.approx(
        dict.fromkeys(columns, 0.0), abs=1e-6
    )


@given(sentences, sentences)
def test_bleu2_equals_nltk(hypothesis: list[str], reference: list[str]) -> None:
    ours = bleu2([" ".join(hypothesis)], [" ".join(reference)])[0]
    smooth = SmoothingFunction().method1
    oracle = (
        sentence_bleu([reference], hypothesis, weights=(0.5, 0.5), smoothing_function=smooth)
        if hypothesis
        else 0.0
    )
    assert ours == pytest.approx(oracle, abs=1e-12)


def test_bleu2_tokens_split_at_spaces_and_periods_only() -> None:
    assert radcliq_tokens("No  Effusion, seen.Heart\tnormal.") == [
        "no",
        "effusion,",
        "seen",
        ".heart\tnormal",
        ".",
    ]


def test_bleu2_without_a_common_bigram_counts_a_tenth() -> None:
    assert bleu2(["lungs b"], ["lungs c"])[0] == pytest.approx(np.sqrt(0.5 * 0.1))


@given(sentences, sentences)
def test_common_subsequence_equals_dynamic_programme(first: list[str], second: list[str]) -> None:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
            )
    assert longest_common_subsequence(first, second) == table[-1, -1]
