"""What the charts of the run report show beside the logged metrics."""

from __future__ import annotations

import math

import pytest

from lmrrg.run_report.curves import _with_differences


def test_the_policy_is_compared_with_the_sft_model_on_the_same_studies():
    lines = [
        {"step": 0, "heldout_reward": -0.5},
        {"step": 1, "reward": 0.2, "reward_reference": 0.1},
        {"step": 2, "reward": 0.5, "reward_reference": 0.1, "heldout_reward": -0.25},
    ]
    start, first, second = _with_differences(lines)
    assert start["heldout_reward_difference"] == 0.0
    assert "reward_difference" not in start
    assert first["reward_difference"] == pytest.approx(0.1)
    assert second["reward_difference"] == pytest.approx(0.4)
    assert second["reward_difference_mean"] == pytest.approx(0.25)
    assert second["heldout_reward_difference"] == pytest.approx(0.25)


def test_the_mean_moves_and_leaves_out_what_was_not_scored():
    lines = [{"step": k, "reward": float(k), "reward_reference": 0.0} for k in range(1, 16)]
    lines[-1]["reward"] = math.nan
    last = _with_differences(lines)[-1]
    assert math.isnan(last["reward_difference"])
    assert last["reward_difference_mean"] == pytest.approx(sum(range(6, 15)) / 9)
