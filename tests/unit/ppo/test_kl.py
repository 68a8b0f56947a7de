import math

import pytest
import torch

from lmrrg.config.ppo import KLConfig
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.kl import BatchSignal, KLController, kl_estimate, kl_per_sequence
from tests.support.ppo.batches import mask_of, poisoned, random_batch


def categoricals(distance: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs [V] of a policy and a reference whose logits differ by about ``distance``."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, generator=generator, dtype=torch.float64)
    other = logits + distance * torch.randn(6, generator=generator, dtype=torch.float64)
    return logits.log_softmax(0), other.log_softmax(0)


def expectation(policy: torch.Tensor, estimate: torch.Tensor) -> float:
    return float((policy.exp() * estimate).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(seed, estimator):
    policy, reference = categoricals(0.8, seed)
    exact = float((policy.exp() * (policy - reference)).sum())
    estimate = kl_estimate(policy[None], reference[None], mask_of([6]), estimator)[0]
    assert expectation(policy, estimate) == pytest.approx(exact, rel=1e-12)


def test_k2_is_right_to_second_order():
    errors = []
    for distance in (0.2, 0.1, 0.05):
        policy, reference = categoricals(distance)
        exact = float((policy.exp() * (policy - reference)).sum())
        errors.append(
            abs(
                expectation(
                    policy, kl_estimate(policy[None], reference[None], mask_of([6]), "k2")[0]
                )
                - exact
            )
        )
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(8, rel=0.25)


def test_k3_is_never_negative_and_k1_is():
    policy, reference = categoricals(1.0)
    assert (kl_estimate(policy[None], reference[None], mask_of([6]), "k3") >= 0).all()
    assert (kl_estimate(policy[None], reference[None], mask_of([6]), "k1") < 0).any()


@pytest.mark.parametrize(
    ("estimator", "direction"), [("k2", "policy||reference"), ("k3", "reference||policy")]
)
def test_expected_gradient_of_the_sampled_loss(estimator, direction):
    """As a loss on fixed samples, k2 follows the true KL, k3 the reverse one, as documented."""
    _, reference = categoricals(0.7)
    logits = torch.randn(
        6, generator=torch.Generator().manual_seed(9), dtype=torch.float64, requires_grad=True
    )
    policy = logits.log_softmax(0)
    sampled = (
        policy.detach().exp()
        * kl_estimate(policy[None], reference[None], mask_of([6]), estimator)[0]
    )
    (got,) = torch.autograd.grad(sampled.sum(), logits, retain_graph=True)
    if direction == "policy||reference":
        exact = (policy.exp() * (policy - reference)).sum()
    else:
        exact = (reference.exp() * (reference - policy)).sum()
    (expected,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_padding_and_identity(estimator, poison):
    batch = random_batch(4, [3, 0, 5], width=6)
    mask, policy, reference = batch["mask"], batch["log_probs"], batch["old_log_probs"]
    clean = kl_estimate(policy, reference, mask, estimator)
    assert torch.equal(
        clean, kl_estimate(poisoned(policy, mask, poison), reference, mask, estimator)
    )
    assert not kl_estimate(policy, policy, mask, estimator).any()


def test_sequence_kl_is_the_mean_over_reports_of_token_sums():
    mask = mask_of([2, 3, 0])
    policy, reference = torch.full(mask.shape, -1.0), torch.full(mask.shape, -1.5)
    assert kl_per_sequence(policy, reference, mask) == pytest.approx((1.0 + 1.5) / 2)


def signal(
    kl: float = 6.0, policy: float = 0.0, reference: float = 0.0, episodes: int = 100
) -> BatchSignal:
    return BatchSignal(kl, policy, reference, episodes)


def controller(rule: str, **settings) -> KLController:
    return KLController(
        KLConfig(controller=rule, **{"initial": 0.1, "horizon_episodes": 1000.0, **settings})
    )


@pytest.mark.parametrize(
    ("policy", "reference", "error"),
    [(0.05, 0.0, -0.05), (0.0, 0.1, 0.1), (2.0, 0.0, -0.2), (0.0, 2.0, 0.2)],
)
def test_reward_rule(policy, reference, error):
    """Deviating pays: lambda falls; it does not: lambda rises."""
    moved = controller("reward").update(signal(policy=policy, reference=reference))
    assert moved == pytest.approx(0.1 * (1 + error * 100 / 1000))


@pytest.mark.parametrize(
    ("kl", "error"), [(6.0, 0.0), (6.6, 0.1), (60.0, 0.2), (0.0, -0.2), (-3.0, -0.2)]
)
def test_target_rule(kl, error):
    assert controller("target").update(signal(kl=kl)) == pytest.approx(
        0.1 * (1 + error * 100 / 1000)
    )


@pytest.mark.parametrize(
    ("kl", "factor"), [(12.01, 1.5), (12.0, 1.0), (3.0, 1.0), (2.99, 0.5), (-1.0, 0.5)]
)
def test_rllib_rule(kl, factor):
    assert controller("rllib").update(signal(kl=kl)) == pytest.approx(0.1 * factor)


def test_fixed_rule_never_moves():
    assert controller("fixed").update(signal(kl=100.0, reference=3.0)) == 0.1


@pytest.mark.parametrize("rule", ["reward", "target", "rllib"])
def test_lambda_stays_in_its_bounds(rule):
    high = controller(rule, horizon_episodes=1.0)
    for _ in range(20):
        high.update(signal(kl=1000.0, reference=5.0))
    assert high.weight == 1.0
    low = controller(rule, horizon_episodes=1.0)
    for _ in range(20):
        low.update(signal(kl=0.0, policy=5.0))
    assert low.weight == 1e-3


def test_state_continues_and_foreign_state_is_refused():
    first, second = controller("target"), controller("target")
    first.update(signal(kl=9.0))
    second.load_state_dict(first.state_dict())
    assert second.update(signal(kl=2.0)) == first.update(signal(kl=2.0))
    for state in (
        {"controller": "rllib", "weight": 0.1},
        {"weight": 0.1},
        {"controller": "target", "weight": 7.0},
    ):
        with pytest.raises(PPOError, match="kl_state"):
            second.load_state_dict(state)


def test_impossible_settings_and_signals_are_refused():
    with pytest.raises(ValueError, match="greater than 0"):
        KLConfig(target_per_sequence=0)
    with pytest.raises(PPOError, match="target_per_sequence"):
        KLController(
            KLConfig.model_construct(**{**KLConfig().model_dump(), "target_per_sequence": 0.0})
        )
    with pytest.raises(PPOError, match="never moves"):
        KLController(KLConfig(initial=0.0, minimum=0.0))
    with pytest.raises(PPOError, match="kl_not_finite"):
        controller("target").update(signal(kl=math.nan))
