"""Tasks so small that the best policy is known: every algorithm must find it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lmrrg.ppo.advantages import generalised_advantages, sibling_advantages, token_rewards, whiten
from lmrrg.ppo.kl import kl_estimate
from lmrrg.ppo.losses import policy_loss, value_loss

STEPS, SYMBOLS, BATCH = 3, 5, 128
TARGET = torch.tensor([3, 0, 2])


class Table(torch.nn.Module):
    """A policy and a critic that know nothing but the place in the sequence."""

    def __init__(self, steps: int = STEPS, symbols: int = SYMBOLS):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(steps, symbols))
        self.values = torch.nn.Parameter(torch.zeros(steps))

    def log_probs(self, ids: Tensor) -> Tensor:
        table = self.logits.log_softmax(-1)
        return table.gather(1, ids.T).T


def train(
    reward: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    steps: int = STEPS,
    kl_weight: float = 0.0,
    whitened: bool = True,
    learning_rate: float = 0.05,
    shuffle: bool = False,
    algorithm: str = "ppo",
) -> Table:
    """Train as the real trainer does: GAE or siblings, clipping, KL to the start, two epochs."""
    torch.manual_seed(0)
    table, mask = Table(steps), torch.ones(BATCH, steps, dtype=torch.bool)
    optimizer = torch.optim.Adam(table.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, iterations)
    reference = table.logits.detach().log_softmax(-1)
    for _ in range(iterations):
        ids = torch.distributions.Categorical(logits=table.logits.detach()).sample((BATCH,))
        with torch.no_grad():
            old, values = table.log_probs(ids), table.values.expand(BATCH, -1).clone()
            kl = kl_estimate(old, reference.gather(1, ids.T).T, mask, "k1")
            earned = reward(ids)[torch.randperm(BATCH)] if shuffle else reward(ids)
            rewards = token_rewards(earned, kl, mask, kl_weight)
            if algorithm == "ppo":
                advantages, returns = generalised_advantages(rewards, values, mask, 1.0, 0.95)
            else:
                advantages, returns = of_siblings(rewards, scaled=algorithm == "grpo"), values
            advantages = whiten(advantages, mask) if whitened else advantages
        for _ in range(2):
            optimizer.zero_grad()
            policy = policy_loss(
                table.log_probs(ids), old, advantages, mask, shares=1 / mask.sum(), clip=0.2
            )
            critic = value_loss(
                table.values.expand(BATCH, -1),
                values,
                returns,
                mask,
                shares=1 / mask.sum(),
                clip=0.2,
            )
            (policy.loss + 0.5 * critic).backward()
            optimizer.step()
        schedule.step()
    return table


def of_siblings(rewards: Tensor, *, scaled: bool) -> Tensor:
    """Groups of four, as if they were samples of one study."""
    group, valid = torch.arange(BATCH) // 4, torch.ones(BATCH, dtype=torch.bool)
    return sibling_advantages(rewards.sum(1), group, valid, scaled=scaled)[:, None].expand_as(
        rewards
    )


def hits(ids: Tensor) -> Tensor:
    """Share of places that hold the target symbol; chance gives 1/5."""
    return (ids == TARGET).float().mean(1)


def expected_hits(table: Table) -> float:
    return float(table.logits.detach().softmax(-1)[torch.arange(STEPS), TARGET].mean())


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_the_best_sequence_is_found(algorithm):
    assert expected_hits(Table()) == pytest.approx(1 / SYMBOLS)
    assert expected_hits(train(hits, iterations=150, algorithm=algorithm)) > 0.95


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_shuffled_rewards_teach_nothing(algorithm):
    assert expected_hits(train(hits, iterations=150, shuffle=True, algorithm=algorithm)) < 0.45


def test_kl_penalty_leads_to_the_boltzmann_policy():
    """With reward r and penalty lambda KL, the best policy is pi_ref exp(r / lambda), scaled."""
    gains = torch.tensor([1.0, 0.4, 0.0, -0.3, 0.7])
    table = train(
        lambda ids: gains[ids[:, 0]],
        iterations=400,
        steps=1,
        kl_weight=0.5,
        whitened=False,
        learning_rate=0.05,
    )
    expected = (gains / 0.5).softmax(0)
    torch.testing.assert_close(table.logits.detach()[0].softmax(0), expected, rtol=0, atol=0.04)


def test_the_critic_learns_the_expected_return():
    table = train(hits, iterations=150)
    assert float(table.values.detach()[0]) == pytest.approx(expected_hits(table), abs=0.1)
