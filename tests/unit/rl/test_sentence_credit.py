"""Sentences of reports as tokens, and what each of them earns by the real reward."""

import math

import numpy as np
import pytest
import torch

from lmrrg.config.loading import load_config
from lmrrg.config.ppo import PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.model.decoder import train_tokenizer
from rl.sentence_credit import Sentences, sentence_numbers, shuffled_partial_rewards

EFFUSION = "There is a large left pleural effusion."
HEART = "The heart is normal in size."
PNEUMOTHORAX = "There is a small right pneumothorax."
REFERENCE = f"{HEART} {EFFUSION} No pneumothorax."


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([REFERENCE, PNEUMOTHORAX], vocabulary=300)


@pytest.fixture(scope="module")
def scorer():
    return RadCliQReward(load_config().reward)


def sentences(tokenizer, form: str = "leave_one_out") -> Sentences:
    return Sentences(tokenizer, PPOConfig.model_validate({"credit": form}))


def report(tokenizer, text: str, finished: bool = True) -> GeneratedReport:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids += [tokenizer.eos_token_id] * finished
    return GeneratedReport(ids, [-0.5] * len(ids), text, finished)


def rewards(scorer, reports: list[GeneratedReport]) -> np.ndarray:
    return scorer.score(
        [one.text for one in reports],
        [REFERENCE] * len(reports),
        [one.token_ids for one in reports],
        [one.finished for one in reports],
    ).reward


def credit_by_sentence(tokenizer, scorer, texts: list[str]) -> list[list[float]]:
    """Return the credit of each sentence and of the end, for the samples ``texts`` of one study."""
    of = sentences(tokenizer)
    samples = [report(tokenizer, text) for text in texts]
    partial = [rewards(scorer, of.partial_reports(sample)) for sample in samples]
    tokens = of.credit(samples, [0] * len(texts), rewards(scorer, samples), partial)
    by_sentence = []
    for row, sample in zip(tokens, samples, strict=True):
        numbers = of.numbers(sample.token_ids)
        by_sentence.append([float(row[numbers.index(n)]) for n in [*range(max(numbers) + 1), -1]])
    return by_sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b. c d.", [0, 0, 0, 0, 0, 1, 1, 1, 1]),
        ("a; b", [0, 0, 0, 1]),
        ("0.5 c", [0, 0, 0, 0, 0]),
        ("a. . b", [0, 0, 0, 0, 0, 1]),
        ("a\n\nb", [0, 0, 0, 1]),
        ("a\nb", [0, 0, 0]),
        ("a?! b", [0, 0, 0, 0, 1]),
        (". a.", [0, 0, 0, 0]),
        ("", []),
    ],
)
def test_where_sentences_end(text, expected):
    assert sentence_numbers(list(text)) == expected


def test_pieces_of_several_characters_belong_to_the_sentence_of_their_word():
    assert sentence_numbers(["Cle", "ar.", " No", " fluid", "."]) == [0, 0, 1, 1, 1]


def test_partial_reports_lack_one_sentence_and_end_as_the_whole(tokenizer):
    whole = report(tokenizer, f"{HEART} {EFFUSION} {PNEUMOTHORAX}")
    partial = sentences(tokenizer).partial_reports(whole)
    assert [one.text for one in partial] == [
        f"{EFFUSION} {PNEUMOTHORAX}",
        f"{HEART} {PNEUMOTHORAX}",
        f"{HEART} {EFFUSION}",
    ]
    for one in partial:
        assert one.finished
        assert one.token_ids[-1] == tokenizer.eos_token_id


def test_prefixes_are_what_was_written_before_each_sentence(tokenizer):
    cut = report(tokenizer, f"{HEART} {EFFUSION} There is", finished=False)
    partial = sentences(tokenizer, "prefix").partial_reports(cut)
    assert [one.text for one in partial] == ["", HEART, f"{HEART} {EFFUSION}"]
    assert not any(one.finished for one in partial)


def test_the_tail_of_a_cut_report_is_a_sentence(tokenizer):
    cut = report(tokenizer, f"{HEART} There is", finished=False)
    assert max(sentences(tokenizer).numbers(cut.token_ids)) == 1


def test_an_empty_report_has_no_sentence(tokenizer):
    of = sentences(tokenizer)
    empty = report(tokenizer, "")
    assert of.numbers(empty.token_ids) == [-1]
    assert of.partial_reports(empty) == []
    tokens = of.credit([empty, empty], [0, 0], np.array([-2.0, -2.0]), [np.empty(0)] * 2)
    assert not tokens.any()


def test_right_sentences_earn_more_than_wrong_and_repeated_ones(tokenizer, scorer):
    honest = f"{HEART} {EFFUSION}"
    wrong, repeated, _ = credit_by_sentence(
        tokenizer,
        scorer,
        [f"{honest} {PNEUMOTHORAX}", f"{honest} {EFFUSION}", honest],
    )
    assert wrong[1] > 0 > wrong[2]
    assert wrong[2] < wrong[-1], "ending the report must be better than the wrong sentence"
    assert repeated[2] < repeated[-1], "and better than saying it twice"


def test_the_order_of_sentences_does_not_matter(tokenizer, scorer):
    other = f"{HEART} {PNEUMOTHORAX}"
    one, _ = credit_by_sentence(tokenizer, scorer, [f"{HEART} {EFFUSION} {PNEUMOTHORAX}", other])
    moved, _ = credit_by_sentence(tokenizer, scorer, [f"{PNEUMOTHORAX} {HEART} {EFFUSION}", other])
    # Three-token sequences across two sentences differ, and with them the price of repetition.
    assert moved == pytest.approx([one[2], one[0], one[1], one[3]], abs=0.03)


def test_a_report_that_was_not_scored_has_no_credit(tokenizer):
    of = sentences(tokenizer)
    samples = [report(tokenizer, f"{HEART} {EFFUSION}"), report(tokenizer, HEART)]
    partial = [np.array([0.1, 0.2]), np.array([-2.0])]
    tokens = of.credit(samples, [0, 0], np.array([math.nan, 1.0]), partial)
    assert torch.isfinite(tokens).all()
    # Only its end is compared; the report itself is masked where the experience is made.
    numbers = of.numbers(samples[0].token_ids)
    assert not tokens[0][: numbers.index(-1)].any()


def test_the_negative_control_moves_rewards_between_sentences():
    partial = [np.array([1.0, 2.0, 3.0]), np.empty(0), np.array([4.0, 5.0])]
    shuffled = shuffled_partial_rewards(partial, seed=3)
    assert [len(row) for row in shuffled] == [3, 0, 2]
    assert sorted(np.concatenate(shuffled)) == [1, 2, 3, 4, 5]
    assert shuffled[0].tolist() != partial[0].tolist()
