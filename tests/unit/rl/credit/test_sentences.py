"""Sentences of reports as tokens, and what each of them earns by the real reward."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lmrrg.config.loading import load_config
from lmrrg.config.ppo import PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.model.decoder import train_tokenizer
from lmrrg.ppo.credit import leave_one_out_credits, prefix_credits
from rl.credit.sentences import (
    SentenceRewards,
    Sentences,
    sentence_numbers,
    shuffled_partial_rewards,
)

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


def partial_reports(of: Sentences, sample: GeneratedReport) -> list[GeneratedReport]:
    return of.partial_reports(sample, of.numbers(sample.token_ids))


def sentence_rewards(of: Sentences, scorer, sample: GeneratedReport) -> SentenceRewards:
    partial = rewards(scorer, partial_reports(of, sample))
    return SentenceRewards(of.numbers(sample.token_ids), partial)


def credit_by_sentence(
    tokenizer, scorer, texts: list[str], form: str = "leave_one_out"
) -> list[list[float]]:
    """Return the credit of each sentence and of the end, for the samples ``texts`` of one study."""
    of = sentences(tokenizer, form)
    samples = [report(tokenizer, text) for text in texts]
    rated = [sentence_rewards(of, scorer, sample) for sample in samples]
    credits = of.credits(rewards(scorer, samples), rated, [0] * len(texts))
    return [row.tolist() for row in credits]


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
    partial = partial_reports(sentences(tokenizer), whole)
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
    partial = partial_reports(sentences(tokenizer, "prefix"), cut)
    assert [one.text for one in partial] == ["", HEART, f"{HEART} {EFFUSION}"]
    assert not any(one.finished for one in partial)


def test_the_tail_of_a_cut_report_is_a_sentence(tokenizer):
    cut = report(tokenizer, f"{HEART} There is", finished=False)
    assert max(sentences(tokenizer).numbers(cut.token_ids)) == 1


def test_an_empty_report_has_no_sentence(tokenizer):
    of = sentences(tokenizer)
    empty = report(tokenizer, "")
    assert of.numbers(empty.token_ids) == [-1]
    assert partial_reports(of, empty) == []
    nothing = SentenceRewards([-1], np.empty(0))
    credits = of.credits(np.array([-2.0, -2.0]), [nothing, nothing], [0, 0])
    assert [row.tolist() for row in credits] == [[0.0], [0.0]]


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


def test_prefix_credits_of_real_rewards_add_up_to_the_reward(tokenizer, scorer):
    """The steps between the credits are what each sentence adds; together they are the reward."""
    of = sentences(tokenizer, "prefix")
    whole = report(tokenizer, f"{HEART} {EFFUSION} {PNEUMOTHORAX}")
    before = rewards(scorer, partial_reports(of, whole))
    credits = prefix_credits(float(rewards(scorer, [whole])[0]), before.tolist())
    steps = credits[:-1] - credits[1:]
    assert steps[1] > 0 > steps[2], "the effusion is there, the pneumothorax is not"
    assert steps.sum() == pytest.approx(float(rewards(scorer, [whole])[0] - before[0]), abs=1e-12)
    assert before[0] == pytest.approx(float(rewards(scorer, [report(tokenizer, "")])[0]))


def test_a_wrong_sentence_has_a_negative_credit_of_its_own(tokenizer, scorer):
    """Before anything is compared with the other samples."""
    of = sentences(tokenizer)
    honest = f"{HEART} {EFFUSION}"
    for text, bad in ((f"{honest} {PNEUMOTHORAX}", 2), (f"{honest} {EFFUSION}", 2)):
        whole = report(tokenizer, text)
        without = rewards(scorer, partial_reports(of, whole))
        credits = leave_one_out_credits(float(rewards(scorer, [whole])[0]), without.tolist())
        assert credits[bad] < 0


def test_a_cut_report_is_credited_as_a_cut_one(tokenizer, scorer):
    """Its partial reports pay for the missing end too, so that the price is nobody's credit."""
    of = sentences(tokenizer)
    cut = report(tokenizer, f"{HEART} {EFFUSION} There is", finished=False)
    rated = sentence_rewards(of, scorer, cut)
    price = load_config().reward.no_eos_penalty
    assert price > 0
    finished = [replace(one, finished=True) for one in partial_reports(of, cut)]
    assert rewards(scorer, finished) - rated.partial == pytest.approx([price] * 3)
    credits = of.credits(rewards(scorer, [cut]), [rated], [0])[0]
    assert len(credits) == 4


def test_sentences_as_text(tokenizer):
    of = sentences(tokenizer)
    cut = report(tokenizer, f"{HEART} {EFFUSION} There is", finished=False)
    assert of.texts(cut.token_ids, of.numbers(cut.token_ids)) == [HEART, EFFUSION, "There is"]
    assert of.texts([tokenizer.eos_token_id], [-1]) == []


def test_a_report_that_was_not_scored_has_no_credit(tokenizer):
    of = sentences(tokenizer)
    rated = [
        SentenceRewards([0, 0, 1, -1], np.array([0.1, 0.2])),
        SentenceRewards([0, -1], np.array([-2.0])),
    ]
    credits = of.credits(np.array([math.nan, 1.0]), rated, [0, 0])
    # Only its end is compared; the report itself is masked where the experience is made.
    assert np.isfinite(np.concatenate(credits)).all()
    assert not credits[0][:-1].any()


def test_the_negative_control_moves_rewards_between_sentences():
    partial = [np.array([1.0, 2.0, 3.0]), np.empty(0), np.array([4.0, 5.0])]
    rated = [SentenceRewards([len(row)], row) for row in partial]
    shuffled = shuffled_partial_rewards(rated, seed=3)
    assert [len(one.partial) for one in shuffled] == [3, 0, 2]
    assert [one.numbers for one in shuffled] == [[3], [0], [2]]
    assert sorted(np.concatenate([one.partial for one in shuffled])) == [1, 2, 3, 4, 5]
    assert shuffled[0].partial.tolist() != partial[0].tolist()
