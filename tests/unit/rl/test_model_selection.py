"""Which candidate becomes the best model of a run."""

from __future__ import annotations

import pytest

from lmrrg.config.ppo import PPOConfig
from rl.model_selection import ModelSelection
from rl.validation import HeldOut

SFT = HeldOut(metric=0.5, reward=-1.0, radcliq=1.0, distinct_ratio=0.8, incoherent_ratio=0.02)


class Run:
    """A run whose validations have given results, and that remembers what it saved and loaded."""

    def __init__(self, *results: HeldOut, **ppo: object):
        remaining = iter(results)
        self.saved: list[tuple[float, float]] = []
        self.loaded: list[float] = []
        self.selection = ModelSelection(
            PPOConfig.model_validate(ppo),
            validate=lambda: next(remaining),
            save_best=lambda found, fraction: self.saved.append((found.metric, fraction)),
        )


def held_out(
    metric: float,
    *,
    reward: float = -1.0,
    distinct_ratio: float = 0.8,
    incoherent_ratio: float = 0.0,
) -> HeldOut:
    return HeldOut(metric, reward, 1.0, distinct_ratio, incoherent_ratio)


def test_the_sft_model_is_the_first_best_model():
    run = Run(SFT)
    metrics = run.selection.evaluate_policy(0)
    assert run.saved == [(0.5, 1.0)]
    assert run.selection.start is run.selection.best is SFT
    assert (metrics["heldout"], metrics["heldout_best"], metrics["heldout_alarm"]) == (0.5, 0.5, 0)


@pytest.mark.parametrize(
    ("candidate", "is_kept"),
    [
        (held_out(0.6), True),
        (held_out(0.5), True),  # at a tie the later one
        (held_out(0.49), False),
        (held_out(0.9, distinct_ratio=0.71), False),  # collapsed: below 0.9 x 0.8
        (held_out(0.9, distinct_ratio=0.73), True),
        (held_out(0.9, incoherent_ratio=0.0325), False),  # more than 0.02 + 0.01
        (held_out(0.9, incoherent_ratio=0.0275), True),
    ],
)
def test_a_better_and_as_varied_and_coherent_policy_replaces_the_best(candidate, is_kept):
    run = Run(SFT, candidate)
    run.selection.evaluate_policy(0)
    metrics = run.selection.evaluate_policy(10)
    assert (run.selection.best is candidate) is is_kept
    assert len(run.saved) == 1 + is_kept
    assert metrics["heldout_best"] == (candidate.metric if is_kept else 0.5)


def test_variety_is_measured_against_the_sft_model_not_the_last_best_one():
    run = Run(SFT, held_out(0.6, distinct_ratio=1.0), held_out(0.7, distinct_ratio=0.75))
    for iteration in range(3):
        run.selection.evaluate_policy(iteration)
    assert run.selection.best.metric == 0.7


def test_any_share_of_incoherent_reports_is_allowed_on_request():
    run = Run(SFT, held_out(0.6, incoherent_ratio=0.9), best_incoherent_margin=1)
    for iteration in range(2):
        run.selection.evaluate_policy(iteration)
    assert run.selection.best.metric == 0.6


def test_more_reward_with_a_lower_metric_raises_the_alarm(caplog):
    run = Run(SFT, held_out(0.3, reward=0.5))
    run.selection.evaluate_policy(0)
    assert run.selection.evaluate_policy(10)["heldout_alarm"] == 1
    assert "iteration 10" in caplog.text


def test_mixtures_compete_and_the_policy_comes_back():
    run = Run(SFT, held_out(0.4), held_out(0.7), mixtures=[0.25, 0.5])
    run.selection.evaluate_policy(0)
    measured = run.selection.evaluate_mixtures(run.loaded.append)
    assert run.loaded == [0.25, 0.5, 1.0]
    assert {percent: found["heldout"] for percent, found in measured.items()} == {
        "25": 0.4,
        "50": 0.7,
    }
    assert run.saved == [(0.5, 1.0), (0.7, 0.5)]


def test_without_mixtures_no_weights_are_moved():
    run = Run()
    assert run.selection.evaluate_mixtures(run.loaded.append) == {}
    assert run.loaded == []
