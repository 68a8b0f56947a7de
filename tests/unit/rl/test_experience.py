import dataclasses
import math

import numpy as np
import pytest
import torch

from lmrrg.config.ppo import KLConfig, PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.reward import RewardScores
from lmrrg.policy.batches import PolicyOutputs
from lmrrg.policy.update_report import UpdateReport
from lmrrg.ppo.correction import Parity
from lmrrg.ppo.errors import PPOError
from lmrrg.vision.study_features import StudyFeatures
from rl.credit.reference_sentences import EditedReport
from rl.credit.sentences import SentenceRewards
from rl.experience import Sample, ScoredBatch, make_experience, make_sample, shuffled_rewards
from rl.iteration_metrics import (
    credit_metrics,
    edit_metrics,
    experience_metrics,
    is_all_normal,
    iteration_metrics,
    kl_metrics,
    reward_metrics,
    text_metrics,
)
from rl.study_pool import StudyBatch

CLEAR, SICK = "The lungs are clear.", "There is a large left pleural effusion."


def study_batch() -> StudyBatch:
    return StudyBatch(
        features=StudyFeatures(
            torch.zeros(2, 1, 4, 3), torch.zeros(2, 1).long(), torch.ones(2, 1).bool()
        ),
        prompts=[[1], [1]],
        references=[CLEAR, SICK],
        reference_tokens=[5, 9],
        labels=[{"No Finding": 1}, {"Pleural Effusion": 1}],
        abnormal=[False, True],
    )


def report(ids: list[int], text: str, finished: bool = True) -> GeneratedReport:
    return GeneratedReport(ids, [-0.5] * len(ids), text, finished)


@pytest.fixture
def sample() -> Sample:
    return make_sample(
        [3, 8],
        study_batch(),
        [
            [report([5, 6, 2], CLEAR), report([5, 2], CLEAR)],
            [report([7, 8, 7, 8, 7, 8], SICK, finished=False), report([2], "")],
        ],
        version=0,
    )


@pytest.fixture
def scores(sample) -> PolicyOutputs:
    noise = torch.randn(sample.rollout.ids.shape, generator=torch.Generator().manual_seed(0))
    return PolicyOutputs(-1 + 0.1 * noise, 0.1 * noise, noise.abs())


def test_reports_are_padded_study_by_study(sample):
    assert sample.rollout.study.tolist() == [0, 0, 1, 1]
    assert sample.rollout.lengths.tolist() == [3, 2, 6, 1]
    assert sample.rollout.ids[0].tolist() == [5, 6, 2, 0, 0, 0]
    assert sample.references == [CLEAR, CLEAR, SICK, SICK]
    assert sample.engine_log_probs[2].tolist() == [-0.5] * 6


def test_a_report_without_tokens_is_refused():
    with pytest.raises(PPOError, match="empty_sample"):
        make_sample([3, 8], study_batch(), [[report([], "")], [report([2], "")]], version=0)


def test_reward_lands_on_the_last_token_of_finished_and_truncated_reports(sample, scores):
    """Without critic and KL, the return of every token is the report's reward: EOS or not."""
    rewards = np.array([1.0, -2.0, 0.5, -1.0])
    flat = dataclasses.replace(scores, values=torch.zeros_like(scores.values))
    experience = make_experience(
        sample, rewards, flat, flat.log_probs, 0.7, PPOConfig(gae_lambda=1.0)
    )
    mask = sample.rollout.mask
    assert torch.equal(
        experience.returns, torch.where(mask, torch.tensor(rewards)[:, None].float(), 0.0)
    )
    assert float(experience.advantages[mask].mean()) == pytest.approx(0, abs=1e-6)


def test_a_report_that_could_not_be_scored_is_masked_and_has_no_influence(sample, scores):
    rewards = np.array([1.0, math.nan, 0.5, -1.0])
    experience = make_experience(sample, rewards, scores, scores.log_probs - 0.1, 0.1, PPOConfig())
    assert not experience.loss_mask[1].any()
    assert torch.equal(experience.loss_mask[[0, 2, 3]], sample.rollout.mask[[0, 2, 3]])
    assert torch.isfinite(experience.advantages).all()
    other = dataclasses.replace(
        scores, log_probs=scores.log_probs.clone(), values=scores.values.clone()
    )
    other.log_probs[1], other.values[1] = 50.0, 50.0
    again = make_experience(sample, rewards, other, scores.log_probs - 0.1, 0.1, PPOConfig())
    assert torch.equal(again.advantages, experience.advantages)


def test_kl_lowers_the_return_of_tokens_that_leave_the_reference(sample, scores):
    rewards = np.zeros(4)
    flat = dataclasses.replace(scores, values=torch.zeros_like(scores.values))
    experience = make_experience(
        sample, rewards, flat, flat.log_probs - 0.2, 0.5, PPOConfig(gae_lambda=1.0)
    )
    torch.testing.assert_close(experience.returns[0, :3], torch.tensor([-0.3, -0.2, -0.1]))


@pytest.mark.parametrize("seed", range(8))
def test_shuffling_gives_every_study_the_rewards_of_another(seed):
    rewards = np.arange(12.0)
    shuffled = shuffled_rewards(rewards, samples=3, seed=seed)
    assert sorted(shuffled.tolist()) == rewards.tolist()
    assert sorted(map(tuple, shuffled.reshape(-1, 3))) == sorted(map(tuple, rewards.reshape(-1, 3)))
    assert (shuffled != rewards).all()


def reward_scores(reward: list[float]) -> RewardScores:
    values = np.array(reward)
    parts = {f.name: values for f in dataclasses.fields(RewardScores) if f.name != "valid"}
    return RewardScores(**parts, valid=np.isfinite(values))


def test_reward_metrics_leave_out_what_has_no_score():
    metrics = reward_metrics(
        reward_scores([1.0, math.nan, -1.0, 0.0]), [False, False, True, True], np.array([0.2, 0.4])
    )
    assert metrics["reward"] == pytest.approx(0.0)
    assert metrics["reward_abnormal"] == pytest.approx(-0.5)
    assert metrics["reward_reference"] == pytest.approx(0.3)
    assert metrics["invalid_ratio"] == 0.25


def test_signs_of_collapse(sample):
    metrics = text_metrics(sample)
    assert metrics["distinct_ratio"] == 0.75
    assert metrics["all_normal_ratio"] == 0.75
    assert metrics["no_eos_ratio"] == 0.25
    assert metrics["repetition"] == pytest.approx((2 / 4) / 4)
    assert (metrics["length"], metrics["reference_length"]) == (3.0, 7.0)


@pytest.mark.parametrize(
    ("text", "normal"), [(CLEAR, True), (SICK, False), ("Possible pneumonia.", False), ("", True)]
)
def test_all_normal(text, normal):
    assert is_all_normal(text) is normal


def test_kl_metrics_units(sample):
    mask = sample.rollout.mask
    policy = torch.full(mask.shape, -1.0)
    metrics = kl_metrics(policy, policy - 0.1, mask)
    assert metrics["kl_per_token"] == pytest.approx(0.1)
    assert metrics["kl_per_sequence"] == pytest.approx(0.1 * 12 / 4)
    assert metrics["log_ratio_max"] == pytest.approx(0.1)


def test_experience_metrics_of_a_perfect_critic(sample, scores):
    experience = make_experience(
        sample, np.array([1.0, -2.0, 0.5, -1.0]), scores, scores.log_probs, 0.1, PPOConfig()
    )
    perfect = dataclasses.replace(experience, values=experience.returns)
    metrics = experience_metrics(perfect, scores, torch.ones(4).bool())
    assert metrics["explained_variance"] == 1.0
    assert metrics["importance_weight"] <= 2.0


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_critic_free_algorithms_compare_siblings_once(sample, scores, algorithm):
    rewards, reference = np.array([1.0, 0.8, -2.0, -1.0]), scores.log_probs - 0.3
    plain, switched = (
        make_experience(
            sample,
            rewards,
            scores,
            reference,
            0.5,
            PPOConfig(algorithm=algorithm, sibling_baseline=on),
        )
        for on in (False, True)
    )
    assert torch.equal(plain.advantages, switched.advantages)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_without_a_critic_a_report_is_compared_with_the_other_samples_of_its_study(
    sample, scores, algorithm
):
    """An easy and a hard study: only the comparison of the two samples counts, on every token."""
    rewards = np.array([1.0, 0.8, -2.0, -1.0])
    experience = make_experience(
        sample, rewards, scores, scores.log_probs, 0.0, PPOConfig(algorithm=algorithm)
    )
    first, mask = experience.advantages[:, 0], sample.rollout.mask
    assert torch.equal(experience.advantages, torch.where(mask, first[:, None], 0.0))
    assert first[0] > first[1]
    assert first[3] > first[2]
    assert torch.equal(experience.returns, torch.where(mask, scores.values, 0.0))


def test_kl_is_charged_once(sample, scores):
    """In the reward or in the loss, never in both."""
    reference, rewards = scores.log_probs - 0.3, np.zeros(4)
    for placement, charged in (("reward", True), ("loss", False)):
        ppo = PPOConfig.model_validate(
            {"kl": {"placement": placement, "estimator": "k2"}, "gae_lambda": 1.0}
        )
        experience = make_experience(sample, rewards, scores, reference, 0.5, ppo)
        assert bool((experience.returns.abs() > 1e-3).any()) is charged
        assert (experience.reference is None) is (experience.kl_weights is None) is charged
        if not charged:
            torch.testing.assert_close(experience.kl_weights, 0.5 * sample.rollout.mask)


def test_wording_is_tied_to_the_sft_model_at_tokens_without_a_finding(sample, scores):
    """Beside lambda of the reward, and on top of lambda of the loss; never in the padding."""
    mask = sample.rollout.mask
    findings = mask & (torch.arange(mask.shape[1]) % 2 == 0)
    for placement, everywhere in (("reward", 0.0), ("loss", 0.5)):
        kl = {"placement": placement, "estimator": "k2", "wording_weight": 2.0}
        ppo = PPOConfig.model_validate({"kl": kl})
        experience = make_experience(
            sample, np.zeros(4), scores, scores.log_probs - 0.3, 0.5, ppo, findings
        )
        expected = torch.where(findings, everywhere, everywhere + 2.0) * mask
        torch.testing.assert_close(experience.kl_weights, expected)
        torch.testing.assert_close(experience.reference, scores.log_probs - 0.3)


def test_the_loss_charges_k2_for_wording_whatever_the_reward_charges():
    for placement, estimator, charged in (
        ("reward", "k1", "k2"),
        ("reward", "k3", "k2"),
        ("loss", "k3", "k3"),
    ):
        assert (
            KLConfig(placement=placement, estimator=estimator, wording_weight=1.0).loss_estimator
            == charged
        )


@pytest.mark.parametrize(
    "settings", [{"sibling_baseline": True}, {"algorithm": "rloo"}, {"algorithm": "grpo"}]
)
def test_a_comparison_of_samples_needs_two(settings):
    with pytest.raises(ValueError, match="samples_per_study must be 2 or more"):
        PPOConfig(samples_per_study=1, **settings)


def credited(sample, scores, credit: torch.Tensor | None, **ppo) -> torch.Tensor:
    """Return the advantages of two studies with the credit of their tokens."""
    settings = PPOConfig.model_validate({"credit": "leave_one_out"} | ppo)
    rewards = np.array([1.0, 0.8, -2.0, -1.0])
    reference = scores.log_probs - 0.3
    experience = make_experience(sample, rewards, scores, reference, 0.5, settings, None, credit)
    return experience.advantages


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_credit_raises_the_advantage_of_its_tokens_alone(sample, scores, algorithm):
    credit = torch.zeros(sample.rollout.mask.shape)
    credit[0, 1] = 2.0
    plain = credited(sample, scores, None, algorithm=algorithm)
    rated = credited(sample, scores, credit, algorithm=algorithm)
    lift = rated[0, 1] - rated[0, 0]
    assert lift > plain[0, 1] - plain[0, 0] + 0.5
    assert not rated[~sample.rollout.mask].any()


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_credit_of_weight_0_changes_nothing(sample, scores, algorithm):
    credit = torch.randn(sample.rollout.mask.shape, generator=torch.Generator().manual_seed(1))
    plain = credited(sample, scores, None, algorithm=algorithm)
    rated = credited(sample, scores, credit, algorithm=algorithm, credit_weight=0.0)
    assert torch.equal(plain, rated)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_credit_of_weight_0_is_learnt_as_if_there_were_none(sample, scores, algorithm):
    """Every tensor that the update gets is the same to the bit."""
    rewards = np.array([1.0, 0.8, -2.0, -1.0])
    made = []
    for settings in ({"credit": "last"}, {"credit": "leave_one_out", "credit_weight": 0.0}):
        ppo = PPOConfig.model_validate({"algorithm": algorithm} | settings)
        assert not ppo.credits_sentences, "no partial report is scored either"
        reference = scores.log_probs - 0.3
        made.append(make_experience(sample, rewards, scores, reference, 0.5, ppo))
    for field in dataclasses.fields(made[0]):
        last, weightless = (getattr(one, field.name) for one in made)
        if isinstance(last, torch.Tensor):
            assert torch.equal(last, weightless), field.name


def test_credit_stays_small_where_all_samples_of_a_study_earn_the_same(sample, scores):
    """GRPO divides by a deviation of 0 there."""
    credit = torch.randn(sample.rollout.mask.shape, generator=torch.Generator().manual_seed(1))
    for rewards in (np.array([1.0, 1.0, -2.0, -1.0]), np.ones(4)):
        ppo = PPOConfig(algorithm="grpo", credit="leave_one_out")
        experience = make_experience(
            sample, rewards, scores, scores.log_probs, 0.0, ppo, None, credit
        )
        assert float(experience.advantages.abs().max()) < 50


def test_the_critic_does_not_learn_the_credit(sample, scores):
    credit = torch.ones(sample.rollout.mask.shape)
    returns = []
    for of_tokens in (None, credit):
        experience = make_experience(
            sample,
            np.zeros(4),
            scores,
            scores.log_probs,
            0.0,
            PPOConfig(credit="leave_one_out"),
            None,
            of_tokens,
        )
        returns.append(experience.returns)
    assert torch.equal(*returns)


def test_how_many_sentences_were_credited():
    assert credit_metrics([]) == {}
    rated = [
        SentenceRewards([0, 1], np.array([1.0, math.nan])),
        SentenceRewards([0, 1], np.array([0.5, 0.5])),
    ]
    metrics = credit_metrics(rated)
    assert metrics == {"credited_sentences": 2.0, "credit_invalid_ratio": 0.25}


def with_an_edit(sample: Sample) -> Sample:
    """Return the sample whose last report got a sentence of two tokens from its reference."""
    edited = EditedReport([7, 8, 2], [0.0, 0.0, -0.5], SICK, finished=True)
    groups = [sample.reports[:2], [sample.reports[2], edited]]
    return make_sample(sample.visits, sample.studies, groups, sample.version)


def test_an_edited_report_weighs_as_much_as_the_policy_finds_its_sentence_probable(sample, scores):
    """The edit wrote the sentence with probability 1, the engine all other tokens."""
    edited = with_an_edit(sample)
    ppo = PPOConfig(algorithm="rloo", reference_sentences=1.0)
    rewards = np.array([1.0, 0.8, -2.0, 1.0])
    width = edited.rollout.ids.shape[1]
    policy = dataclasses.replace(scores, log_probs=scores.log_probs[:, :width])
    weights = make_experience(edited, rewards, policy, policy.log_probs, 0.0, ppo).weights
    torch.testing.assert_close(weights[3, :2], policy.log_probs[3, :2].exp())
    expected = (policy.log_probs[3, 2] + 0.5).exp().clamp(max=ppo.correction_cap)
    torch.testing.assert_close(weights[3, 2], expected)
    assert weights[3].max() <= ppo.correction_cap


def test_no_metric_counts_an_edited_report_as_the_policys_own(sample, scores):
    edited = with_an_edit(sample)
    ppo = PPOConfig(algorithm="rloo", reference_sentences=1.0)
    policy = dataclasses.replace(scores, log_probs=torch.where(edited.rollout.mask, -0.5, 0.0))
    # As if the policy found the sentence next to impossible.
    policy.log_probs[3, :2] = -9.0
    rewards = reward_scores([1.0, 0.8, -2.0, 1.4])
    batch = ScoredBatch(
        edited, rewards, np.array([0.2, 0.4]), policy, policy.log_probs - 0.1, version=0
    )
    batch.reference[3] -= 5.0
    experience = make_experience(edited, rewards.reward, policy, batch.reference, 0.0, ppo)
    update = UpdateReport(metrics={}, first_ratio_error=0.0, first_ratio_mean=0.0)
    metrics = iteration_metrics(batch, Parity(0.0, 0.0), experience, update)
    assert metrics["reward"] == pytest.approx((1.0 + 0.8 - 2.0) / 3)
    assert metrics["reward_abnormal"] == -2.0
    assert metrics["kl_per_token"] == pytest.approx(0.1)
    assert metrics["length_max"] == 6
    assert metrics["distinct_ratio"] == pytest.approx(2 / 3)
    assert metrics["importance_weight"] == pytest.approx(1.0)
    assert metrics["edited_ratio"] == 0.5
    assert metrics["edited_reward"] == 1.4
    assert metrics["edited_weight"] == pytest.approx((2 * math.exp(-9) + 1) / 3)


def test_a_sample_without_edits_has_no_metric_of_them(sample, scores):
    batch = ScoredBatch(
        sample, reward_scores([1.0, 0.8, -2.0, 1.4]), np.zeros(2), scores, scores.log_probs, 0
    )
    experience = make_experience(
        sample, batch.rewards.reward, scores, scores.log_probs, 0.0, PPOConfig()
    )
    assert sample.own() is sample
    assert edit_metrics(batch, experience) == {}
