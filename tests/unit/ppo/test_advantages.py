import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.ppo.advantages import (
    emphasise,
    explained_variance,
    generalised_advantages,
    sibling_advantages,
    token_rewards,
    whiten,
)
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.masks import Moments
from tests.support.ppo.batches import mask_of, poisoned, random_batch

POISONS = [math.nan, math.inf, -math.inf]


def oracle_advantage(
    rewards: list[float], values: list[float], t: int, gamma: float, lam: float
) -> float:
    """Apply the definition: a weighted sum of all later temporal differences of one row."""
    total = 0.0
    for k in range(t, len(rewards)):
        following = values[k + 1] if k + 1 < len(values) else 0.0
        total += (gamma * lam) ** (k - t) * (rewards[k] + gamma * following - values[k])
    return total


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 10_000),
    gamma=st.sampled_from([1.0, 0.97, 0.5]),
    lam=st.sampled_from([0.0, 0.95, 1.0]),
)
def test_gae_equals_the_quadratic_definition(lengths, seed, gamma, lam):
    batch = random_batch(seed, lengths)
    rewards, values, mask = batch["log_probs"].double(), batch["values"].double(), batch["mask"]
    advantages, returns = generalised_advantages(rewards, values, mask, gamma, lam)
    expected = torch.zeros_like(rewards)
    for row, length in enumerate(lengths):
        for t in range(length):
            expected[row, t] = oracle_advantage(
                rewards[row, :length].tolist(), values[row, :length].tolist(), t, gamma, lam
            )
    torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        returns, torch.where(mask, expected + values, 0.0), rtol=0, atol=1e-12
    )


def test_gae_agrees_with_rllib():
    """RLlib's own value targets are a second, independent oracle."""
    rllib = importlib.import_module("ray.rllib.utils.postprocessing.value_predictions")
    batch = random_batch(3, [7])
    rewards, values = batch["log_probs"][0].numpy(), batch["values"][0].numpy()
    targets = rllib.compute_value_targets(
        values=values,
        rewards=rewards,
        terminateds=np.array([False] * 6 + [True]),
        truncateds=np.zeros(7, dtype=bool),
        gamma=0.9,
        lambda_=0.8,
    )
    _, returns = generalised_advantages(
        batch["log_probs"], batch["values"], batch["mask"], 0.9, 0.8
    )
    torch.testing.assert_close(returns[0], torch.as_tensor(targets), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("poison", POISONS)
def test_padding_never_reaches_rewards_or_advantages(poison):
    batch = random_batch(1, [5, 2, 0, 4], width=7)
    mask, sequence = batch["mask"], torch.tensor([0.3, -1.2, poison, 0.5])
    clean = token_rewards(torch.nan_to_num(sequence), batch["log_probs"], mask, 0.1)
    dirty = token_rewards(sequence, poisoned(batch["log_probs"], mask, poison), mask, 0.1)
    assert torch.equal(clean, dirty)
    expected = generalised_advantages(clean, batch["values"], mask, 1.0, 0.95)
    got = generalised_advantages(
        poisoned(clean, mask, poison), poisoned(batch["values"], mask, poison), mask, 1.0, 0.95
    )
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert torch.equal(whiten(expected[0], mask), whiten(poisoned(expected[0], mask, poison), mask))


def test_reward_stands_on_the_last_valid_token_and_kl_on_all():
    mask = mask_of([1, 3, 4])
    kl = torch.full(mask.shape, 2.0)
    rewards = token_rewards(torch.tensor([10.0, 20.0, 30.0]), kl, mask, 0.5)
    assert rewards.tolist() == [[9, 0, 0, 0], [-1, -1, 19, 0], [-1, -1, -1, 29]]


def test_constant_return_without_kl():
    """With gamma = lambda = 1 and no critic, each token's advantage is the report's reward."""
    mask = mask_of([2, 4])
    rewards = token_rewards(torch.tensor([1.5, -2.0]), torch.zeros(mask.shape), mask, 0.3)
    advantages, _ = generalised_advantages(rewards, torch.zeros(mask.shape), mask, 1.0, 1.0)
    assert advantages.tolist() == [[1.5, 1.5, 0, 0], [-2, -2, -2, -2]]


def test_whitening_over_ranks_is_whitening_of_the_whole():
    batch = random_batch(5, [3, 6, 1, 5])
    values, mask = batch["advantages"], batch["mask"]
    whole = whiten(values, mask)
    assert float(whole[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(whole[mask].var(unbiased=False)) == pytest.approx(1, abs=1e-5)
    moments = Moments.of(values[:1], mask[:1]) + Moments.of(values[1:], mask[1:])
    parts = torch.cat(
        [whiten(values[:1], mask[:1], moments), whiten(values[1:], mask[1:], moments)]
    )
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_whitening_a_constant_is_zero_not_nan():
    mask = mask_of([3, 2])
    assert whiten(torch.full(mask.shape, 0.7), mask).abs().max() < 1e-3


def test_explained_variance():
    batch = random_batch(2, [6, 4])
    returns, mask = batch["returns"], batch["mask"]
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.zeros_like(returns), returns, mask) == pytest.approx(
        0, abs=1e-9
    )
    assert explained_variance(returns, torch.ones_like(returns), mask) == 0.0


@pytest.mark.parametrize(
    "mask", [torch.tensor([[False, True]]), torch.tensor([[True, False, True]])]
)
def test_left_padding_is_refused(mask):
    with pytest.raises(PPOError, match="mask_not_right_padded"):
        generalised_advantages(torch.zeros(mask.shape), torch.zeros(mask.shape), mask, 1.0, 1.0)


def oracle_siblings(
    returns: list[float], study: list[int], valid: list[bool], scaled: bool
) -> list[float]:
    """RLOO and GRPO as they are written down, report by report."""
    found = []
    for i, mine in enumerate(returns):
        group = [returns[j] for j in range(len(returns)) if valid[j] and study[j] == study[i]]
        if not valid[i] or len(group) < 2:
            found.append(0.0)
        elif scaled:
            found.append((mine - np.mean(group)) / (np.std(group) + 1e-6))
        else:
            found.append(mine - (sum(group) - mine) / (len(group) - 1))
    return found


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.floats(-3, 1.5)), min_size=1, max_size=14
    ),
    scaled=st.booleans(),
    poison=st.sampled_from(POISONS),
)
def test_sibling_advantages_equal_the_definition(rows, scaled, poison):
    """Whatever stands in a report that could not be scored has no influence."""
    study, valid, returns = (list(column) for column in zip(*rows, strict=True))
    given_returns = [value if good else poison for value, good in zip(returns, valid, strict=True)]
    got = sibling_advantages(
        torch.tensor(given_returns), torch.tensor(study), torch.tensor(valid), scaled=scaled
    )
    returns = torch.tensor(returns).double().tolist()  # as float32 holds them
    np.testing.assert_allclose(
        got, oracle_siblings(returns, study, valid, scaled), rtol=1e-3, atol=1e-3
    )


def test_a_study_whose_samples_earn_the_same_teaches_nothing():
    same = sibling_advantages(
        torch.full((4,), -0.7), torch.zeros(4).long(), torch.ones(4).bool(), scaled=True
    )
    assert not same.any()


def test_findings_weigh_more_at_the_same_step_size():
    mask = mask_of([3, 1])
    findings = torch.tensor(
        [[True, False, False], [True, True, True]]
    )  # true in the padding has no influence
    advantages = torch.where(mask, 2.0, math.nan)
    got = emphasise(advantages, findings, mask, 3.0)
    assert got.tolist() == [[3.0, 1.0, 1.0], [3.0, 0.0, 0.0]]
    torch.testing.assert_close(
        emphasise(advantages, findings, mask, 1.0), torch.where(mask, 2.0, 0.0)
    )
