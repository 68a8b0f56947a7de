"""Rewards of SFT reports and the validation, with stand-ins for engines and scorers."""

from types import SimpleNamespace

import numpy as np
import pytest

from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.ppo.errors import PPOError
from rl import reference_rewards
from rl.reference_rewards import ReferenceRewards
from rl.validation import HeldOut, evaluate_heldout, label_f1

SEED = 7
SICK = "There is a large left pleural effusion."
CLEAR = "The lungs are clear."


class Engines:
    """Write one report for each study, whose only token is made of the study and its seed."""

    def __init__(self, version: int = 0, text: str = CLEAR):
        self.version = version
        self.calls = []
        self._text = text

    def generate(self, features, prompts, *, samples, seed, temperature=None):
        self.calls.append((list(features), seed, temperature))
        return [
            [GeneratedReport([study * 1000 + seed % 997], [0.0], self._text, True)]
            for study in features
        ]


class Scorers:
    def score(self, reports, references, token_ids, finished):
        reward = np.array([float(ids[0]) for ids in token_ids])
        faults = np.array([float(text.count("twice")) for text in reports])
        return SimpleNamespace(reward=reward, radcliq_v1=-reward, faults=faults)


class Studies:
    def take(self, indices):
        return SimpleNamespace(
            features=list(indices), prompts=[[1]] * len(indices), references=[CLEAR] * len(indices)
        )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(reference_rewards, "BLOCK", 4)


def complete(visits: list[int], rewards: ReferenceRewards | None = None, version: int = 0) -> tuple:
    rewards = rewards or ReferenceRewards(SEED)
    engines = Engines(version)
    rewards.complete(visits, Studies(), engines, Scorers())
    return rewards, engines


def test_each_visited_study_is_sampled_once():
    rewards, engines = complete([5, 2, 5, 9, 2, 7, 1])
    assert [call[0] for call in engines.calls] == [[5, 2, 9, 7], [1]]
    assert all(call[2] is None for call in engines.calls)  # sampled like the policy, not greedy
    assert len(rewards.of([5, 1])) == 2
    assert not complete([5, 2, 9, 7, 1], rewards)[1].calls


def test_a_longer_run_gets_the_same_rewards():
    short, _ = complete([5, 2, 9, 7, 1, 3])
    extended = ReferenceRewards(SEED)
    extended.load_state_dict(short.state_dict())
    visits = [5, 2, 9, 7, 1, 3, 8, 6, 4]
    complete(visits, extended)
    straight, _ = complete(visits)
    assert extended.of(visits).tolist() == straight.of(visits).tolist()


def test_too_late_and_missing_are_errors():
    with pytest.raises(PPOError, match="reference_too_late"):
        complete([1], version=3)
    rewards, _ = complete([1, 2])
    with pytest.raises(PPOError, match="reference_missing"):
        rewards.of([1, 3])


def test_a_report_without_score_stays_unknown():
    rewards = ReferenceRewards(SEED)
    rewards.load_state_dict([(1, None), (2, 0.5)])
    assert np.isnan(rewards.of([1, 2])).tolist() == [True, False]
    assert rewards.state_dict() == [(1, None), (2, 0.5)]


def test_heldout_reports_are_greedy():
    studies = SimpleNamespace(
        features=[0, 1],
        prompts=[[1], [1]],
        references=[CLEAR, SICK],
        labels=[{"No Finding": 1}, {"Pleural Effusion": 1}],
    )
    engines = Engines(text=CLEAR)
    found = evaluate_heldout(studies, engines, Scorers(), "label_f1")
    assert engines.calls[0][2] == 0.0
    assert found.metric == label_f1([CLEAR, CLEAR], studies.labels) == pytest.approx(0.5)
    assert found.distinct_ratio == 0.5
    assert found.incoherent_ratio == 0
    twice = evaluate_heldout(studies, Engines(text="twice twice"), Scorers(), "label_f1")
    assert twice.incoherent_ratio == 1  # two faults in each of two reports
    assert evaluate_heldout(studies, engines, Scorers(), "rouge_l").metric == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("metric", "reward", "alarm"),
    [(0.3, 0.5, True), (0.49, 0.5, False), (0.3, -0.5, False), (0.6, 0.5, False)],
)
def test_alarm_when_reward_rises_and_the_heldout_metric_falls(metric, reward, alarm):
    assert (
        HeldOut(metric, reward, 0.0, 1.0, 0.0).is_hacked(HeldOut(0.5, 0.0, 0.0, 1.0, 0.0)) is alarm
    )


@pytest.mark.parametrize(
    ("ratio", "share", "kept"), [(0.5, 0.9, False), (0.54, 0.9, True), (0.01, 0.0, True)]
)
def test_a_collapsed_checkpoint_is_no_best_one(ratio, share, kept):
    assert (
        HeldOut(0.9, 0.9, 0.0, ratio, 0.0).is_as_varied(HeldOut(0.5, 0.0, 0.0, 0.6, 0.0), share)
        is kept
    )
