"""The reward function for TRL: both forms of completions, columns by name, named errors."""

import pytest

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.rewards.trl import make_reward, reward

EFFUSION = "There is a small left pleural effusion."
CLEAR = "The lungs are clear."


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "describe"}, {"role": "assistant", "content": text}]


def test_plain_and_conversational_completions_earn_the_same():
    pairs = ([EFFUSION, CLEAR], [EFFUSION, EFFUSION])
    plain = reward(pairs[0], reference=pairs[1])
    conversational = reward([chat(text) for text in pairs[0]], reference=pairs[1])
    assert plain == conversational
    expected = RadCliQReward(RewardConfig()).score(*pairs, None, [True, True]).reward
    assert plain == pytest.approx(expected)


def test_what_cannot_be_scored_is_none_and_never_zero():
    worst = pytest.approx(-2.4501, abs=1e-4)
    assert reward([EFFUSION, ""], reference=["", EFFUSION]) == [None, worst]


def test_the_reference_column_may_have_another_name():
    assert make_reward(reference_column="target")([CLEAR], target=[CLEAR], prompts=["x"]) == (
        reward([CLEAR], ground_truth=[CLEAR])
    )


@pytest.mark.parametrize(
    "completion",
    [None, 3, [], [None], [{"role": "user", "content": "x"}], [{"role": "assistant"}], b"bytes"],
)
def test_anything_else_is_a_named_error_without_the_text(completion):
    with pytest.raises(MetricError) as caught:
        reward([CLEAR, completion], reference=[CLEAR, "SECRET TEXT"])
    assert caught.value.code == "missing_text"
    assert "row 1" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_missing_column_and_a_wrong_length_are_named():
    with pytest.raises(MetricError, match="ground_truth") as caught:
        reward([CLEAR], prompts=["x"])
    assert caught.value.code == "missing_column"
    with pytest.raises(MetricError) as caught:
        reward([CLEAR], reference=[CLEAR, CLEAR])
    assert caught.value.code == "length_mismatch"
