import math

import numpy as np
import pytest
import torch

from lmrrg.ppo.credit import (
    centred_credits,
    leave_one_out_credits,
    prefix_credits,
    token_credits,
)

NAN = math.nan


def test_a_sentence_earns_what_the_report_loses_without_it():
    """A wrong sentence, without which the report earns more, has a negative credit."""
    assert leave_one_out_credits(1.0, [0.2, 1.7]).tolist() == [0.8, pytest.approx(-0.7), 0.0]


def test_an_only_sentence_has_no_credit():
    centred = centred_credits(
        [leave_one_out_credits(1.0, [-2.5]), leave_one_out_credits(0.5, [0.0, 0.3])],
        [0, 0],
        "leave_one_out",
    )
    assert centred[0].tolist() == [0.0, pytest.approx(-0.35)]


def test_prefix_credits_telescope_to_the_reward_of_the_report():
    """What a sentence adds is the step between two credits; all steps make the whole reward."""
    before = [-2.5, 0.3, -0.1, 0.8]
    credits = prefix_credits(1.2, before)
    steps = credits[:-1] - credits[1:]
    assert steps == pytest.approx([2.8, -0.4, 0.9, 0.4])
    assert steps.sum() == pytest.approx(1.2 - before[0])


def test_the_mean_of_the_other_samples_is_subtracted_on_the_end_too():
    own, other = leave_one_out_credits(1.0, [0.5, 0.9]), leave_one_out_credits(0.5, [0.0, 0.2])
    centred = centred_credits([own, other], [0, 0], "leave_one_out")
    # The other report's sentences have 0.5 and 0.3.
    assert centred[0].tolist() == pytest.approx([0.1, -0.3, -0.4])
    assert centred[1].tolist() == pytest.approx([0.2, 0.0, -0.3])


def test_studies_are_not_compared_with_each_other():
    generator = np.random.default_rng(0)
    reports = [leave_one_out_credits(0.0, generator.normal(size=3)) for _ in range(4)]
    together = centred_credits(reports, [0, 1, 0, 1], "leave_one_out")
    apart = centred_credits([reports[0], reports[2]], [0, 0], "leave_one_out")
    np.testing.assert_array_equal(together[0], apart[0])
    np.testing.assert_array_equal(together[2], apart[1])


@pytest.mark.parametrize("form", ["leave_one_out", "prefix"])
def test_what_was_not_scored_is_neutral_and_has_no_influence(form):
    make = leave_one_out_credits if form == "leave_one_out" else prefix_credits
    known = [make(1.0, [0.5, 0.9, 0.2]), make(0.5, [0.0, 0.2, 0.1])]
    failed = make(NAN, [NAN, NAN])
    centred = centred_credits([*known, failed], [0, 0, 0], form)
    assert not centred[2][:-1].any()
    for with_failed, without in zip(centred, centred_credits(known, [0, 0], form), strict=False):
        np.testing.assert_array_equal(with_failed, without)
    one_failed = centred_credits([make(1.0, [0.5, NAN, 0.2]), known[1]], [0, 0], form)[0]
    assert one_failed[1] == 0
    assert one_failed[[0, 2]] == pytest.approx(centred[0][[0, 2]])


@pytest.mark.parametrize("form", ["leave_one_out", "prefix"])
def test_a_report_without_another_sample_has_no_credit(form):
    assert not centred_credits([np.array([0.5, 0.1, 0.0])], [0], form)[0].any()


def test_prefixes_are_compared_sentence_by_sentence():
    own, other = prefix_credits(1.0, [-2.5, 0.5]), prefix_credits(0.0, [-2.5, -0.5, 0.25])
    centred = centred_credits([own, other], [0, 0], "prefix")
    # First sentence: both start from an empty report. End: 1.0 and 0.0 are earned already.
    assert centred[0].tolist() == pytest.approx([0.0, -1.0, -1.0])
    # The third sentence of the other report has nothing to be compared with.
    assert centred[1].tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0])


def test_tokens_get_the_credit_of_their_sentence_and_the_end_its_own():
    tokens = token_credits(
        [np.array([0.5, -0.5, -0.1]), np.array([0.25, 0.0])], [[0, 0, 1, 1, -1], [0, 0, 0]]
    )
    expected = torch.tensor([[0.5, 0.5, -0.5, -0.5, -0.1], [0.25, 0.25, 0.25, 0.0, 0.0]])
    torch.testing.assert_close(tokens, expected)
