"""The checks that stop a run whose engines, trainer and SFT model disagree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lmrrg.config.ppo import PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.policy.batches import PolicyOutputs
from lmrrg.policy.update_report import UpdateReport
from lmrrg.ppo.correction import Parity
from lmrrg.ppo.errors import PPOError
from lmrrg.vision.study_features import StudyFeatures
from rl import parity_checks
from rl.credit.reference_sentences import EditedReport
from rl.experience import Sample, ScoredBatch, make_sample
from rl.parity_checks import ParityChecks
from rl.study_pool import StudyBatch, StudySampler

TOLERANCE = 1e-3
ENGINE = {"algorithm": "grpo", "old_log_probs": "engine"}


def study_batch(studies: int) -> StudyBatch:
    features = StudyFeatures(
        torch.zeros(studies, 1, 4, 3), torch.zeros(studies, 1).long(), torch.ones(studies, 1).bool()
    )
    return StudyBatch(
        features, [[1]] * studies, ["-"] * studies, [5] * studies, [{}] * studies, [False] * studies
    )


class Crew:
    """Stand in for engines, with log-probs of -0.5, and for a policy ``off`` by some nats."""

    def __init__(self, off: float = 0.0):
        self.off = off
        self.scored: list[int] = []
        self.policy = self
        self.rollouts = SimpleNamespace(version=0, generate=self.generate)

    def generate(self, features, prompts, *, samples, seed) -> list[list[GeneratedReport]]:
        self.seed = seed
        return [[report(3 + k) for k in range(samples)] for _ in prompts]

    def log_probs(self, rollout) -> Any:
        self.scored.append(len(rollout))
        values = torch.full(rollout.ids.shape, -0.5 + self.off)
        return SimpleNamespace(result=lambda: PolicyOutputs(values, values, values))


@pytest.fixture(autouse=True)
def no_object_store(monkeypatch):
    monkeypatch.setattr(parity_checks.ray, "put", lambda value: value)


def report(length: int) -> GeneratedReport:
    return GeneratedReport([4] * length, [-0.5] * length, "-", True)


def checks(crew: Crew, **ppo: object) -> ParityChecks:
    studies: Any = SimpleNamespace(take=lambda visits: study_batch(len(visits)))
    settings = PPOConfig.model_validate(ppo)
    return ParityChecks(settings, TOLERANCE, 7, studies, StudySampler(12, 3, 0), crew)  # type: ignore[arg-type]


def sample(studies: int = 4, samples: int = 4) -> Sample:
    reports = [[report(2 + k) for k in range(samples)] for _ in range(studies)]
    return make_sample(list(range(studies)), study_batch(studies), reports, version=0)


def scored(*, policy_off: float = 0.0, reference_off: float = 0.0, version: int = 0) -> ScoredBatch:
    reports = sample()
    policy = reports.engine_log_probs + policy_off
    rewards: Any = None
    return ScoredBatch(
        reports,
        rewards,
        np.zeros(4),
        PolicyOutputs(policy, policy, policy),
        policy + reference_off,
        version,
    )


def test_parity_is_over_all_reports_that_the_trainer_has_scored():
    crew = Crew()
    measured = checks(crew).engine_parity(scored(policy_off=0.25))
    assert measured.mean_abs == pytest.approx(0.25)
    assert crew.scored == []


def test_with_the_engines_log_probs_a_few_reports_are_scored_for_the_check():
    crew = Crew(off=0.25)
    measured = checks(crew, **ENGINE).engine_parity(scored())
    assert measured.mean_abs == pytest.approx(0.25)
    assert crew.scored == [4]


def test_a_probe_writes_reports_anew_for_as_many_as_it_needs():
    crew = Crew(off=0.25)
    measured = checks(crew).probe(iteration=2)
    assert measured.mean_abs == pytest.approx(0.25)
    assert crew.scored == [6]  # 4 wanted of 3 studies: 2 each
    first = crew.seed
    checks(crew).probe(iteration=3)
    assert crew.seed != first


def test_every_rank_gets_a_report_of_the_probe():
    crew = Crew()
    checks(crew, workers=6, minibatch=96, microbatch=16, studies_per_iteration=96).probe(0)
    assert crew.scored == [6]


@pytest.mark.parametrize("mean_abs", [2 * TOLERANCE, float("nan")])
def test_engines_that_disagree_stop_the_run(mean_abs):
    check = checks(Crew())
    check.require_parity(Parity(TOLERANCE, 1.0))
    with pytest.raises(PPOError, match="parity_broken"):
        check.require_parity(Parity(mean_abs, mean_abs))


def test_the_policy_starts_as_the_sft_model():
    checks(Crew()).require_sft_start(scored())
    with pytest.raises(PPOError, match="kl_not_zero"):
        checks(Crew()).require_sft_start(scored(reference_off=2e-4))
    checks(Crew()).require_sft_start(scored(reference_off=2e-4, version=1))


def test_an_engine_is_compared_with_the_reference_within_the_tolerance():
    check = checks(Crew(), **ENGINE)
    check.require_sft_start(scored(reference_off=2e-4))
    with pytest.raises(PPOError, match="parity_broken"):
        check.require_sft_start(scored(reference_off=2 * TOLERANCE))


@pytest.mark.parametrize(
    ("settings", "mean", "largest", "stops"),
    [
        ({}, 0.0, 5e-5, False),
        ({}, 0.0, 5e-4, True),
        ({}, float("nan"), float("nan"), True),
        ({"precision": "bf16"}, 0.02, 0.5, False),  # single tokens may be far off
        ({"precision": "bf16"}, 0.05, 0.5, True),
        (ENGINE, 0.5, 0.5, False),  # the ratio compares engine and trainer
    ],
)
def test_an_update_starts_at_ratio_one(settings, mean, largest, stops):
    update = UpdateReport({}, first_ratio_error=largest, first_ratio_mean=mean)
    check = checks(Crew(), **settings)
    if stops:
        with pytest.raises(PPOError, match="ratio_not_one"):
            check.require_first_ratio(update)
    else:
        check.require_first_ratio(update)


def test_an_edited_report_is_not_compared_and_hides_nothing():
    """Its log-probs are not the engine's; those of all other reports still must agree."""
    groups = [[report(2), report(3)] for _ in range(4)]
    groups[1][1] = EditedReport([4] * 3, [0.0, 0.0, -0.5], "-", finished=True)
    edited = make_sample([0, 1, 2, 3], study_batch(4), groups, version=0)
    policy = torch.where(edited.rollout.mask, -0.5, 0.0)
    policy[3] = torch.tensor([-7.0, -8.0, -0.1])
    rewards: Any = None
    batch = ScoredBatch(
        edited, rewards, np.zeros(4), PolicyOutputs(policy, policy, policy), policy, version=1
    )
    agreeing = checks(Crew(), algorithm="rloo", reference_sentences=1.0)
    assert agreeing.engine_parity(batch) == Parity(0.0, 0.0)
    policy[2, 0] += 0.5
    with pytest.raises(PPOError, match="parity_broken"):
        agreeing.require_parity(agreeing.engine_parity(batch))
